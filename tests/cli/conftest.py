"""The command in this process, and the working directory of a clumsy user."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgessl import cli
from tests.cli.place import Call, Run, images, weights_of


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process: ``(exit code, stdout, stderr)``."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def made(mae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MAE bundles, ``onnx`` and ``openvino``; not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    assert cli.run(["export", str(mae), "-t", "onnx", "-o", str(folder / "onnx"), "-q"]) == 0
    arguments = ["export", str(folder / "onnx"), "-t", "openvino", "-o", str(folder / "openvino")]
    assert cli.run([*arguments, "-q"]) == 0
    return folder


@pytest.fixture
def place(mae: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user with broken models, odd files and two good bundles."""
    monkeypatch.chdir(tmp_path)
    for name in ("mae", "truncated", "nan", "evil", "no-weights", "no-json", "no-preprocessor"):
        shutil.copytree(mae, tmp_path / name)
    for name in ("onnx", "openvino"):
        (tmp_path / f"{name}-bundle").symlink_to(made / name)
    weights = weights_of(tmp_path / "truncated")
    weights.write_bytes(weights.read_bytes()[:100_000])
    tensors = load_file(weights_of(mae))
    tensors["vit.encoder.layer.0.output.dense.weight"][3, 3] = np.nan
    save_file(tensors, weights_of(tmp_path / "nan"))
    weights_of(tmp_path / "evil").unlink()
    evil = {"weight": Call(tmp_path / "code-ran")}
    (tmp_path / "evil" / "pytorch_model.bin").write_bytes(pickle.dumps(evil))
    weights_of(tmp_path / "no-weights").unlink()
    (tmp_path / "no-json" / "config.json").write_text("{")
    (tmp_path / "no-preprocessor" / "preprocessor_config.json").write_text("[]")
    for name in ("empty", "gpt2", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2}')
    save_file({"wte.weight": np.zeros((9, 8), np.float32)}, tmp_path / "gpt2/model.safetensors")
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    np.save(tmp_path / "images.npy", images(8))
    np.save(tmp_path / "floats.npy", np.zeros((2, 2), np.float32))
    for name, text in {
        "syntax": "[encoder\n",
        "section": "[encodr]",
        "key": "[encoder]\nmodle = 'x'",
        "type": "[encoder]\nmodel = 3",
        "list": "[target]\ncompute_capabilities = '8.6'",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00")
    return tmp_path

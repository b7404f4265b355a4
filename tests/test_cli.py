"""The command line as a clumsy user meets it: messages, exit codes, what is left behind."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgessl import bundle, cli, console
from tests.builders import save_text_model
from tests.commands import edgessl, environment
from tests.hub_server import HubStandIn

Run = Callable[..., tuple[int, str, str]]


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


class Call:
    """A pickle that writes a file when it is loaded without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "ran")


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


def weights_of(model: Path) -> Path:
    return model / "model.safetensors"


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return noise.repeat(4, axis=1).repeat(4, axis=2)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }


# Wrong use: arguments -> exit code, and what the line says. "-o out" is added to exports.
MISTAKES: list[tuple[str, int, tuple[str, ...]]] = [
    ("expot", 2, ("no such command 'expot'", "Did you mean 'export'?", "edgessl --help")),
    ("export", 2, ("no model given",)),
    ("export mae", 2, ("no target given", "--target")),
    ("export mae -t onxx", 2, ("unknown target 'onxx'", "'onnx'", "tensorrt-rtx")),
    ("export mae -t onnx -p int9", 2, ("unknown precision 'int9'", "'int8'")),
    ("export mae -t onnx -p bf16", 3, ("onnx has no bf16", "fp16", "openvino")),
    ("export mae -t onnx --pooling men", 2, ("unknown pooling 'men'", "'mean'")),
    ("export mae -t onnx --precison int8", 2, ("no such option --precison", "'--precision'")),
    ("export mae -t onnx --samples many", 2, ("--samples", "'many'", "export --help")),
    ("export mae -t onnx --samples 0", 2, ("--samples", "0")),
    ("export mae extra -t onnx", 2, ("unexpected extra argument", "extra")),
    ("export mae -t onnx --max-length 9", 2, ("--max-length is for text",)),
    ("export mae -t onnx --revision main", 2, ("revision 'main'", "directory")),
    ("export mae -t onnx -c images.npy", 2, ("--calibration is for int8", "-p int8")),
    ("export mae -t onnx --compute-capability 8.6", 2, ("--compute-capability", "tensorrt-rtx")),
    ("export mae -t onnx --workspace-mb 9", 2, ("--workspace-mb", "tensorrt")),
    ("export /no/such/dir -t onnx", 2, ("no such directory", "/no/such/dir")),
    ("export ./mea -t onnx", 2, ("no such directory", "'mae'")),
    ("export a-file -t onnx", 2, ("a-file", "not a weights file", "directory")),
    ("export empty -t onnx", 2, ("empty has no config.json",)),
    ("export gpt2 -t onnx", 3, ("gpt2", "decoder-only", "encoders")),
    ("export truncated -t onnx", 2, ("model.safetensors is truncated", "100000 of", "again")),
    ("export nan -t onnx", 2, ("damaged", "1 of", ".weight", "NaN")),
    ("export evil -t onnx", 2, ("pytorch_model.bin is refused", "pickle", "safetensors")),
    ("export no-weights -t onnx", 2, ("no-weights has no weights", "model.safetensors")),
    ("export no-json -t onnx", 2, ("no-json/config.json", "line 1", "damaged JSON")),
    ("export no-preprocessor -t onnx", 2, ("no-preprocessor", "preprocessor_config.json", "list")),
    ("export mae -t openvino -p int8-dynamic", 3, ("openvino has no int8-dynamic", "onnx")),
    ("export mae -t onnx -p int4-weight-only -c images.npy", 2, ("--calibration is for int8",)),
    ("export mae -t onnx -p fp16 -c images.npy", 2, ("--calibration is for int8,", "is fp16")),
    ("export mae -t tensorrt -p fp16 --seed 1", 2, ("--seed is for --calibration",)),
    ("export mae -t tensorrt -p bf16 --seed 1", 2, ("--seed is for int8 and fp16",)),
    ("export mae -t onnx --exclude head", 2, ("--exclude is for int8", "this is fp32")),
    ("export mae -t onnx -p int8-dynamic --method mse", 2, ("--method is for int8",)),
    ("export mae -t onnx -p fp16 --isa any", 2, ("--isa is for int8 and int8-dynamic",)),
    ("export mae -t tensorrt -p int8 --isa any", 2, ("--isa is for CPUs", "tensorrt")),
    ("export mae -t onnx -p int8 --isa avx2", 2, ("unknown isa 'avx2'", "auto, vnni, any")),
    ("export mae -t onnx -p int8 --method mnmax", 2, ("unknown method 'mnmax'", "'minmax'")),
    ("export mae -t onnx -p int8 --max-drop 0.01", 2, ("--max-drop '0.01'", "cosine=0.005")),
    (
        "export mae -t onnx -p int8 --max-drop cosine=-1",
        2,
        ("--max-drop 'cosine=-1'", "between 0 and 1"),
    ),
    ("export mae -t onnx -p int8 --calibration-column a", 2, ("--calibration", "not given")),
    (
        "export mae -t onnx -p int8 -c images.npy --calibration-column a",
        2,
        ("--calibration-column 'a' is for tables",),
    ),
    ("export mae -t onnx -p int8 -c gone", 2, ("calibration data 'gone'", "no such file")),
    ("export mae -t onnx -p int8 -c texts.txt", 2, ("texts.txt", "folder of images")),
    ("export mae -t onnx -p int8 -c empty", 2, ("'empty' holds no images",)),
    ("export mae -t onnx -p int8 -c floats.npy", 2, ("float32 (2, 2)", "uint8")),
    ("export openvino-bundle -t onnx", 3, ("bundle without an ONNX", "from the checkpoint")),
    ("export onnx-bundle -t onnx --pooling cls", 2, ("--pooling", "fixed in the bundle")),
    ("export --recipe gone.toml", 2, ("recipe 'gone.toml'", "No such file")),
    ("export --recipe empty", 2, ("recipe 'empty'", "directory")),
    ("export --recipe syntax.toml", 2, ("'syntax.toml' is not TOML", "line 1")),
    ("export --recipe binary.toml", 2, ("'binary.toml' is not UTF-8",)),
    ("export --recipe section.toml", 2, ("[encodr]", "'encoder'")),
    ("export --recipe key.toml", 2, ("'modle' in [encoder]", "'model'")),
    ("export --recipe type.toml", 2, ("model in [encoder] is 3", "a string")),
    ("export --recipe list.toml", 2, ("compute_capabilities in [target]", "a list")),
    ("verify", 2, ("missing argument 'BUNDLE'", "edgessl verify --help")),
    ("verify gone", 4, ("no bundle at 'gone'",)),
    ("verify mae", 4, ("'mae' is not a bundle", "edgessl export")),
    ("inspect ./gone", 2, ("no such directory", "gone")),
    ("inspect empty", 2, ("empty has no config.json",)),
    ("inspect gpt2", 3, ("decoder-only",)),
    ("info --jsn", 2, ("no such option --jsn", "'--json'")),
]


@pytest.mark.parametrize(("line", "code", "says"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_gets_one_line_an_exit_code_and_leaves_nothing(
    line: str, code: int, says: tuple[str, ...], place: Path, run: Run
) -> None:
    before = tree(place)
    arguments = shlex.split(line)
    if arguments[0] == "export":
        arguments += ["-o", "out"]

    found, out, err = run(*arguments)

    *progress, message = err.splitlines()
    assert (found, out) == (code, "")
    assert message.startswith("error: ")
    assert all(text in message for text in says), message
    assert str(place) not in message  # no path that the user did not write
    assert all(step.endswith(" ...") for step in progress)
    assert tree(place) == before  # and so no code of the pickle ran


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("a-file", ("a-file exists and is not a directory",)),
        ("a-file/below", ("a-file is a file",)),
        ("other", ("other exists and is not a bundle",)),
        ("other --overwrite", ("other exists and is not a bundle",)),
        ("taken", ("taken exists", "--overwrite")),
        ("/proc/nowhere/out", ("cannot write /proc/nowhere/out",)),
        (".", ("current directory",)),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    output: str, says: tuple[str, ...], place: Path, run: Run
) -> None:
    shutil.copytree(place / "onnx-bundle", place / "taken")
    before = tree(place)

    code, out, err = run("export", "mae", "-t", "onnx", "-o", *output.split())

    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(text in err for text in says)
    assert tree(place) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--max-length 9999", ("--max-length 9999", "3 to 24")),
        ("--max-length 0", ("--max-length 0", "3 to 24")),
        ("-p int8 -c a-folder", ("'a-folder' is a folder", "text file")),
        ("-p int8 -c empty.txt", ("'empty.txt' holds no texts",)),
        ("-p int8 -c binary.txt", ("'binary.txt' is not UTF-8", "byte 0")),
    ],
)
def test_a_mistake_with_a_text_encoder(
    arguments: str,
    says: tuple[str, ...],
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")

    save_text_model(tmp_path / "bert")

    code, out, err = run("export", "bert", "-t", "onnx", "-o", "out", *arguments.split())

    message = err.splitlines()[-1]
    assert (code, out) == (2, "")
    assert message.startswith("error: ") and all(text in message for text in says)
    assert sorted(os.listdir()) == ["a-folder", "bert", "binary.txt", "empty.txt"]


def test_parity_out_of_bound_is_a_verdict_and_force_overrides_it(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgessl import parity

    monkeypatch.setitem(parity.BOUNDS, "fp32", (1.1, 1.1))
    arguments = ("export", "onnx-bundle", "-t", "openvino", "-o", "out", "-q")

    code, out, err = run(*arguments)

    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "outside its bound" in err and "--force" in err
    assert not (place / "out").exists()
    code, out, err = run(*arguments, "--force")
    assert code == 0 and bundle.is_bundle(place / "out")
    assert "outside its bound" in err


def test_export_tells_a_person_what_was_made(place: Path, run: Run) -> None:
    code, out, err = run("export", "onnx-bundle", "-t", "openvino", "-o", "a/new folder/ü モデル")

    assert code == 0
    assert "a/new folder/ü モデル" in out and "openvino fp32" in out and "cosine 1.000000" in out
    assert err.splitlines() == [
        "loading onnx-bundle ...",
        "exporting to ONNX ...",
        "building for openvino ...",
        "checking parity with the fp32 encoder ...",
    ]
    assert run("verify", "a/new folder/ü モデル", "-q")[0] == 0


def test_json_is_the_manifest_and_all_there_is_on_stdout(place: Path, run: Run) -> None:
    code, out, err = run("export", "onnx-bundle", "-t", "openvino", "-o", "out", "--json", "-q")

    facts = json.loads(out)
    assert (code, err) == (0, "")
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    assert facts == {"path": "out", "size": facts["size"], **manifest}
    assert facts["size"] == sum(
        path.stat().st_size for path in (place / "out").iterdir() if path.name != "manifest.json"
    )


def test_int8_without_data_warns(place: Path, run: Run) -> None:
    code, out, err = run(*"export onnx-bundle -t onnx -p int8 --samples 8 --isa any -o out".split())

    assert code == 0 and "onnx int8" in out
    (line,) = [line for line in err.splitlines() if line.startswith("warning")]
    assert "no --calibration was given" in line
    manifest = bundle.read(place / "out")
    assert manifest.calibration is not None and manifest.calibration["source"] == "built-in"
    assert manifest.compatibility["int8"] == {"weights": "reduced range", "isa": "any"}
    code, _, err = run("export", "out", "-t", "onnx", "-c", "images.npy", "-o", "again")
    assert code == 2 and "--calibration: fixed in the bundle 'out', which is int8" in err


def test_precisions_without_data_and_what_inspect_says(place: Path, run: Run) -> None:
    for precision, kind, layers in (
        ("int8-dynamic", "int8", 48),
        ("int4-weight-only", "int4 weights", 48),
    ):
        code, out, err = run(
            *("export", "onnx-bundle", "-t", "onnx", "-p", precision, "-o", precision)
        )
        assert code == 0 and f"quantizing to {precision} ..." in err
        assert ("embed one at a time" in out) == (precision == "int8-dynamic")
        _, text, _ = run("inspect", precision, "--json", "-q")
        found = [layer for layer in json.loads(text)["layers"] if layer["precision"] == kind]
        assert len(found) == layers
        assert {tuple(layer["shape"]) for layer in found} == {(128, 128), (128, 512), (512, 128)}
        assert kind in run("inspect", precision, "-q")[1]


def test_a_link_is_kept_and_what_it_points_to_replaced(place: Path, run: Run) -> None:
    shutil.copytree(place / "onnx-bundle", place / "real")
    (place / "link").symlink_to("real")

    code, _, _ = run("export", "onnx-bundle", "-t", "openvino", "-o", "link", "--overwrite", "-q")

    assert code == 0 and (place / "link").is_symlink()
    assert bundle.read(place / "real").target == "openvino"
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_a_recipe_is_read_and_flags_go_before_it(place: Path, run: Run) -> None:
    (place / "recipes").mkdir()
    recipe = "[encoder]\nmodel = '../onnx-bundle'\n[target]\nname = 'onnx'\n"
    (place / "recipes" / "r.toml").write_text(recipe, encoding="utf-8-sig")

    code, out, _ = run(
        *("export", "--recipe", "recipes/r.toml", "-t", "openvino", "-o", "out", "--json", "-q")
    )

    assert code == 0 and json.loads(out)["target"] == "openvino"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("name", ["openvino_model.bin", "reference.npz", "config.json"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_names_the_damaged_file(kind: str, name: str, place: Path, run: Run) -> None:
    shutil.copytree(place / "openvino-bundle", place / "copy")
    DAMAGE[kind](place / "copy" / name)

    code, out, err = run("verify", "copy", "-q")
    json_code, document, _ = run("verify", "copy", "-q", "--json")

    assert (code, json_code, err) == (4, 4, "")
    assert out.startswith(f"files          {name}: {'missing' if kind == 'gone' else 'changed'}")
    assert "copy or export it again" in out
    found = json.loads(document)
    assert found["ok"] is False and [line.partition(":")[0] for line in found["files"]] == [name]


@pytest.mark.parametrize("damage", [*DAMAGE.values(), lambda path: path.write_text("[]")])
def test_a_damaged_manifest_is_one_line(
    damage: Callable[[Path], object], place: Path, run: Run
) -> None:
    shutil.copytree(place / "openvino-bundle", place / "copy")
    damage(place / "copy" / "manifest.json")

    for command in ("verify", "inspect"):
        code, out, err = run(command, "copy", "-q")
        # without a manifest a directory is taken for a model
        gone = command == "inspect" and not (place / "copy" / "manifest.json").exists()
        assert code == (2 if gone else 4) and out == ""
        assert err.startswith("error: ") and err.count("\n") == 1


def test_a_stranger_in_the_bundle_is_reported(place: Path, run: Run) -> None:
    shutil.copytree(place / "onnx-bundle", place / "copy")
    (place / "copy" / "notes.txt").write_text("x")

    code, out, _ = run("verify", "copy")

    assert code == 4 and "notes.txt: not in the manifest" in out


def test_verify_of_a_sound_bundle(place: Path, run: Run) -> None:
    code, out, _ = run("verify", "onnx-bundle", "--json")

    found = json.loads(out)
    assert code == 0 and found["ok"] and found["files"] == [] and found["preprocessing"]
    assert found["parity"]["cosine_min"] > 0.9999
    assert found["runtime"]["runtime"] == "onnxruntime"


def test_inspect_a_model(place: Path, run: Run) -> None:
    code, out, _ = run("inspect", "mae", "--json", "-q")
    _, text, _ = run("inspect", "mae", "-q")

    found = json.loads(out)
    assert code == 0 and found["kind"] == "model"
    tensors = load_file(weights_of(place / "mae"))
    count = sum(array.size for name, array in tensors.items() if name.startswith("vit."))
    assert found["compute"]["parameters"] == count
    assert sum(layer["parameters"] for layer in found["layers"]) == count
    # 65 tokens through 8 layers: 2 FLOPs a weight a token, and the two attention products
    weights = 8 * (4 * 128 * 128 + 2 * 128 * 512)
    patches = 64 * 48 * 128
    assert found["compute"]["flops"] == 2 * (65 * weights + patches + 8 * 2 * 65 * 65 * 128)
    assert f"{count:,}" in text and "8 x 198,272 parameters" in text and "vit_mae" in text


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_inspect_a_bundle(target: str, place: Path, run: Run) -> None:
    code, out, _ = run("inspect", f"{target}-bundle", "--json", "-q")
    _, text, _ = run("inspect", f"{target}-bundle", "--layers", "-q")

    found, manifest = json.loads(out), bundle.read(place / f"{target}-bundle")
    assert code == 0 and found["kind"] == "bundle" and found["variant"] == manifest.variant
    assert {layer["precision"] for layer in found["layers"]} == {"fp32"}
    # a convolution, and six matrix products a layer (with attention's own two where they show)
    assert len(found["layers"]) == {"onnx": 65, "openvino": 49}[target]
    for fact in (manifest.variant, manifest.provenance.weights_sha256, "1,601,152", "edgessl 0"):
        assert fact in text
    names = [layer["name"] for layer in found["layers"]]
    assert [line.split()[0] for line in text.splitlines()[-len(names) :]] == names


def test_help_is_everywhere(run: Run) -> None:
    for command in ("export", "verify", "embed", "info", "inspect"):
        code, out, err = run(command, "-h")
        assert (code, err) == (0, "") and out.startswith(f"Usage: edgessl {command} ")
        assert run(command, "--help")[1] == out
    assert "edgessl export ./" in run("export", "-h")[1]  # the examples
    code, out, err = run()
    assert (code, out) == (2, "") and "Commands:" in err
    summaries = err.partition("Commands:")[2]
    assert summaries and "..." not in summaries  # none is cut off


def test_the_help_of_export_states_the_defaults_of_a_recipe(run: Run) -> None:
    from edgessl.recipe import Recipe

    _, out, _ = run("export", "--help")

    text = " ".join(out.split())
    assert f"Calibration items. [default: {Recipe().samples}]" in text
    assert f"Draws the calibration items. [default: {Recipe().seed}]" in text
    assert f"entropy, mse. [default: {Recipe().method}]" in text
    assert f"machine is exact. [default: {Recipe().isa}]" in text
    assert f"For TensorRT. [default: {Recipe().workspace_mb}]" in text
    assert Recipe().features is False and Recipe().precision is None


@pytest.mark.parametrize(
    ("missing", "arguments", "says"),
    [
        ("openvino", "verify openvino-bundle", "pip install 'edgessl[openvino]'"),
        ("openvino", "export onnx-bundle -t openvino -o out", "pip install 'edgessl[openvino]'"),
        ("onnxruntime", "verify onnx-bundle", "pip install 'edgessl[onnx]'"),
        ("torch", "export mae -t onnx -o out", "pip install 'edgessl[compress]'"),
        ("torch", "inspect mae", "pip install 'edgessl[compress]'"),
        (
            "onnx",
            "export onnx-bundle -t openvino -p int8 -c images.npy -o out",
            "pip install 'edgessl[compress]'",
        ),
        (
            "onnxruntime",
            "export onnx-bundle -t openvino -p int8 -c images.npy -o out",
            "pip install 'edgessl[onnx]'",
        ),
        ("onnx", "export onnx-bundle -t onnx -p fp16 -o out", "pip install 'edgessl[compress]'"),
    ],
)
def test_a_missing_library_is_named_with_its_command(
    missing: str, arguments: str, says: str, place: Path
) -> None:
    done = edgessl(*arguments.split(), cwd=place, without=[missing])

    message = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (3, "")
    assert message.startswith("error: ") and f"needs {missing}" in message and says in message
    assert "Traceback" not in done.stderr
    assert not (place / "out").exists()


def test_inspect_says_what_it_can_without_onnx(place: Path) -> None:
    done = edgessl("inspect", "onnx-bundle", cwd=place, without=["onnx", "torch"])

    assert done.returncode == 0
    assert "pip install onnx" in " ".join(done.stdout.split()) and "1,601,152" in done.stdout


def test_chatter_of_the_libraries_reaches_neither_stream(place: Path) -> None:
    done = edgessl(*"export mae -t openvino -p int8 -c images.npy -o out --json".split(), cwd=place)

    assert done.returncode == 0
    assert json.loads(done.stdout)["precision"] == "int8"
    lines = done.stderr.splitlines()
    steps = [
        "loading mae ...",
        "exporting to ONNX ...",
        "quantizing to int8 ...",
        "building for openvino ...",
        "checking parity with the fp32 encoder ...",
    ]
    assert [line for line in lines if line in steps] == steps
    assert all(line.endswith(" ...") for line in lines)


@pytest.mark.parametrize("settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C"}])
def test_settings_of_the_terminal_do_no_harm(settings: dict[str, str], place: Path) -> None:
    shutil.copytree(place / "onnx-bundle", place / "ü")

    done = edgessl("verify", "ü", cwd=place, env=settings)

    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr


def test_a_reader_that_leaves_gets_no_traceback(place: Path) -> None:
    command = f"'{sys.executable}' -m edgessl inspect onnx-bundle -q --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == '{\n  "kind"'
    # when head was faster; else all was read by the pipe
    assert done.returncode in (console.BROKEN_PIPE, 0) and done.stderr == ""


def test_a_closed_pipe_is_no_verdict(place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "edgessl", "verify", "onnx-bundle", "-q"],
        cwd=place,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (console.BROKEN_PIPE, "")


def test_progress_that_nobody_can_read_does_not_end_the_job(place: Path) -> None:
    command = [sys.executable, "-m", "edgessl", "verify", "onnx-bundle", "--json"]
    with open("/dev/full", "wb") as full:
        unreadable = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=full)
    closed = subprocess.run(
        ["bash", "-c", '"$@" 2>&-', "-", *command], cwd=place, stdout=subprocess.PIPE
    )

    for done in (unreadable, closed):
        assert done.returncode == 0 and json.loads(done.stdout)["ok"]


def test_a_full_disk_behind_stdout_is_one_line(place: Path) -> None:
    command = [sys.executable, "-m", "edgessl", "verify", "onnx-bundle", "-q"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 2
    assert done.stderr == "error: No space left on device\n"


def test_a_bug_shows_its_traceback_and_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgessl import inspection

    def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(inspection, "inspect", broken)
    monkeypatch.setattr(sys, "argv", ["edgessl", "inspect", "x"])

    with pytest.raises(SystemExit) as stop:
        cli.main()

    err = capsys.readouterr().err
    assert stop.value.code == console.BUG
    assert "ZeroDivisionError: oops" in err and "bug in edgessl" in err


def test_export_of_a_hub_model(mae: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in mae.iterdir()}
    with HubStandIn("acme/mae", files) as hub:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = edgessl(
            *("export", "acme/mae", "-t", "onnx", "-o", tmp_path / "out", "--json"), env=settings
        )
        missing = edgessl(
            *("export", "acme/mea", "-t", "onnx", "-o", tmp_path / "no"), env=settings
        )
        revision = edgessl(
            *("export", "acme/mae", "--revision", "v9", "-t", "onnx", "-o", tmp_path / "no"),
            env=settings,
        )
        endpoint = hub.endpoint
    gone = edgessl(
        *("export", "acme/other", "-t", "onnx", "-o", tmp_path / "no"),
        env={**settings, "HF_ENDPOINT": endpoint},
    )

    assert done.returncode == 0
    manifest = json.loads(done.stdout)
    assert manifest["provenance"]["source"] == "acme/mae"
    assert manifest["provenance"]["revision"] == hub.commit
    assert manifest["recipe"]["revision"] == hub.commit
    for failed, says in (
        (missing, ("acme/mea", "nor a repository on", endpoint)),
        (revision, ("acme/mae", "no revision 'v9'")),
        (gone, ("acme/other", endpoint, "fails")),
    ):
        assert (failed.returncode, failed.stdout) == (2, "")
        assert "Traceback" not in failed.stderr
        message = failed.stderr.splitlines()[-1]
        assert message.startswith("error: ") and all(text in message for text in says)
    assert not (tmp_path / "no").exists()

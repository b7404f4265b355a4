"""Wrong use: one line, an exit code, and nothing left behind."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests.builders import save_text_model
from tests.cli.place import Run, tree

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

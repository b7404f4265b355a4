"""Help, missing libraries, terminals, closed pipes, full disks: what is around the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgessl import cli, console
from tests.cli.place import Run
from tests.commands import edgessl, environment


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

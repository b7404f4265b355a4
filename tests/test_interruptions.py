"""Ctrl-C, SIGTERM, kill -9, a full disk: what is left, what is said; and progress on a terminal."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgessl import bundle, cli, console
from tests import disks
from tests.commands import TIMEOUT_S, edgessl, environment, screen, signalled


@pytest.fixture(scope="module")
def onnx(mae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An onnx bundle of the MAE: all but the export itself starts from it, without torch."""
    path = tmp_path_factory.mktemp("made") / "onnx"
    assert cli.run(["export", str(mae), "-t", "onnx", "-o", str(path), "-q"]) == 0
    return path


@pytest.fixture
def int8(onnx: Path, tmp_path: Path) -> list[str]:
    """Arguments of an export that quantizes for some seconds; output ``out/bundle``."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", noise)
    (tmp_path / "out").mkdir()
    output = str(tmp_path / "out" / "bundle")
    data = str(tmp_path / "images.npy")
    return ["export", str(onnx), "-t", "openvino", "-p", "int8", "-c", data, "-o", output]


ENDINGS = {
    signal.SIGINT: (console.INTERRUPTED, "interrupted: nothing was written"),
    signal.SIGTERM: (console.TERMINATED, "terminated: nothing was written"),
}


def assert_ended(number: signal.Signals, code: int, stderr: str) -> None:
    expected, line = ENDINGS[number]
    *steps, last = stderr.splitlines()
    assert (code, last) == (expected, line), stderr
    assert all(step.endswith(" ...") for step in steps), stderr  # no traceback of anybody's


@pytest.mark.parametrize("number", ENDINGS)
@pytest.mark.parametrize(
    ("step", "delay_s"),
    [
        ("loading", 0.5),  # importing torch
        ("exporting to ONNX", 0.3),  # torch at work
    ],
)
def test_stopped_while_torch_is_busy(
    step: str, delay_s: float, number: signal.Signals, mae: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "bundle"

    code, stderr = signalled(step, delay_s, number, "export", mae, "-t", "onnx", "-o", output)

    assert_ended(number, code, stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ENDINGS)
def test_stopped_while_quantizing_and_the_old_bundle_stays(
    number: signal.Signals, int8: list[str], onnx: Path
) -> None:
    output = Path(int8[-1])
    assert cli.run(["export", str(onnx), "-t", "openvino", "-o", str(output), "-q"]) == 0
    old = (output / "manifest.json").read_bytes()

    code, stderr = signalled("quantizing", 0.7, number, *int8, "--overwrite")

    assert_ended(number, code, stderr)
    assert os.listdir(output.parent) == [output.name]
    assert (output / "manifest.json").read_bytes() == old
    assert bundle.check_files(output, bundle.read(output)) == []


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
def test_stopped_while_tensorrt_builds_in_a_child(onnx: Path, tmp_path: Path) -> None:
    arguments = ("export", onnx, "-t", "tensorrt-rtx", "-o", tmp_path / "bundle")

    code, stderr = signalled("building", 0.5, signal.SIGINT, *arguments)

    assert_ended(signal.SIGINT, code, stderr)
    assert list(tmp_path.iterdir()) == []


def test_killed_and_run_again(int8: list[str], onnx: Path) -> None:
    output = Path(int8[-1])

    code, _ = signalled("quantizing", 0.5, signal.SIGKILL, *int8)

    assert code == -signal.SIGKILL
    assert not output.exists()
    (leftover,) = os.listdir(output.parent)
    assert leftover.startswith(".bundle.tmp-")
    again = edgessl("export", onnx, "-t", "openvino", "-o", output)
    assert again.returncode == 0
    assert os.listdir(output.parent) == ["bundle"]
    assert bundle.check_files(output, bundle.read(output)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Room for the MAE's ONNX (6.4 MB), not for an IR beside it."""
    with disks.small(tmp_path, 9) as disk:
        yield disk


@pytest.mark.parametrize("taken_mb", [0, 4])  # full for OpenVINO's C++, and for Python
def test_a_full_disk(taken_mb: int, small_disk: Path, onnx: Path) -> None:
    (small_disk / "taken").write_bytes(b"x" * taken_mb * 2**20)

    done = edgessl("export", onnx, "-t", "openvino", "-o", small_disk / "bundle", "-q")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: no space left on {small_disk} ")
    assert done.stderr.count("\n") == 1
    assert os.listdir(small_disk) == ["taken"]


def test_a_limit_on_the_size_of_files(onnx: Path, tmp_path: Path) -> None:
    command = 'ulimit -f 1000; exec "$@"'  # kB
    arguments = [sys.executable, "-m", "edgessl", "export", str(onnx), "-t", "openvino", "-q"]

    done = subprocess.run(
        ["bash", "-c", command, "-", *arguments, "-o", str(tmp_path / "new" / "bundle")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot write ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def on_terminal(*arguments: str, interrupt_at: str = "", **settings: str) -> tuple[int, str, str]:
    """Run with stderr on a terminal and stdout in a pipe: exit code, stdout, what was drawn."""
    master, slave = pty.openpty()
    drawn: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the terminal's last user has gone
                return
            drawn.append(piece)

    process = subprocess.Popen(
        [sys.executable, "-m", "edgessl", *arguments],
        env=environment({"TERM": "xterm", **settings}),
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        start_new_session=True,
    )
    os.close(slave)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if interrupt_at:
            while process.poll() is None and interrupt_at not in b"".join(drawn).decode():
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
        stdout, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        watcher.join()
        os.close(master)
    # the terminal itself turns \n into \r\n
    return process.returncode, stdout, b"".join(drawn).decode()


def test_a_terminal_shows_the_steps_and_no_bars_of_the_libraries(int8: list[str]) -> None:
    code, stdout, drawn = on_terminal(*int8, "--json")

    assert code == 0 and json.loads(stdout)["precision"] == "int8"
    lines = screen(drawn)
    names = [line.partition(": done in ")[0] for line in lines]
    steps = [
        f"loading {int8[1]}",
        "exporting to ONNX",
        "quantizing to int8",
        "building for openvino",
        "checking parity with the fp32 encoder",
        "",
    ]
    assert [name for name in names if name in steps] == steps
    assert all(": done in " in line and line.endswith(" s") for line in lines[:-1])
    # it moved
    assert any(f"/ {step} " in drawn for step in (*steps[1:-1], "timing int8 against float, here"))


def test_ctrl_c_leaves_a_clean_line_on_a_terminal(mae: Path, tmp_path: Path) -> None:
    arguments = ("export", str(mae), "-t", "onnx", "-o", str(tmp_path / "bundle"))

    code, stdout, drawn = on_terminal(*arguments, interrupt_at="loading")

    assert (code, stdout) == (console.INTERRUPTED, "")
    loading, *rest = screen(drawn)
    assert loading.startswith(f"loading {mae}: stopped in ")
    assert rest == ["interrupted: nothing was written", ""]


def test_quiet_and_dumb_terminals_see_no_live_line(onnx: Path) -> None:
    code, stdout, drawn = on_terminal("verify", str(onnx), "--quiet")
    dumb_code, _, dumb = on_terminal("verify", str(onnx), TERM="dumb")

    assert (code, dumb_code, drawn) == (0, 0, "") and "ok" in stdout
    assert dumb.splitlines() == ["checking files ...", "checking parity on this device ..."]


def test_a_long_name_does_not_wrap() -> None:
    code, _, drawn = on_terminal("inspect", "./no-such-directory-" + "x" * 200)

    frames = [part for part in drawn.split("\r\x1b[K") if part[:2] in ("| ", "/ ", "- ", "\\ ")]
    assert code == 2, drawn
    assert frames and all(len(frame) < 80 and "..." in frame for frame in frames)
    assert screen(drawn)[-2].startswith("error: no such directory")

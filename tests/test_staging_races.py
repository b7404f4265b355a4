"""A bundle is there whole or not at all: killed writers, full disks, several writers at once."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import EdgesslError, OutputError
from edgessl.staging import check_output, staged
from tests import disks
from tests.writers import end, fill, generation_of, hidden, start

KILLED = """
if sys.argv[2] == "rename":
    staging._exchange = no_exchange
for number in range(10**6):
    with staging.staged(output, True) as directory:
        fill(directory, f"{os.getpid()}-{number}")
    if number == 0:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_killed_at_any_moment(tmp_path: Path, how: str) -> None:
    output = tmp_path / "bundle"
    fill(output)
    rng = random.Random(0)
    seen = set()
    for _ in range(12):
        writer = start(KILLED, output, how)
        time.sleep(rng.uniform(0.0, 0.06))
        end(writer, signal.SIGKILL)
        if how == "exchange":
            generation_of(output)  # whole at this very moment
        with pytest.raises(RuntimeError, match="stop"), staged(output, True):
            raise RuntimeError("stop")
        seen.add(generation_of(output))
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert len(seen) == 12  # every writer was at work when it was killed


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    code = """
staging._exchange = no_exchange
rename = os.rename
def deadly(source, target):
    if Path(target) == output and output.exists():
        return rename(source, target)
    rename(source, target)
    if Path(source) == output:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = deadly
print("ready", flush=True)
with staging.staged(output, True) as directory:
    fill(directory, "new")
"""
    output = tmp_path / "bundle"
    fill(output)
    with start(code, output) as writer:
        assert writer.wait(timeout=30) == -signal.SIGKILL
    assert not output.exists()
    with pytest.raises(OutputError, match="exists; pass --overwrite"):
        check_output(output, False)  # the old one is back
    assert generation_of(output) == "old"
    with staged(output, True) as directory:
        fill(directory, "newer")
    assert generation_of(output) == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


RACE = """
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "rename":
    staging._exchange = no_exchange
for number in range(int(sys.argv[3])):
    try:
        with staging.staged(output, sys.argv[4] == "overwrite") as directory:
            fill(directory, f"{os.getpid()}-{number}")
            time.sleep(0.001)
        print("won", flush=True)
    except OutputError as err:
        print(err, flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_many_writers_at_once_with_overwrite(tmp_path: Path, how: str) -> None:
    output = tmp_path / "bundle"
    writers = [start(RACE, output, how, "10", "overwrite") for _ in range(3)]
    results = talk(writers)
    if how == "exchange":
        assert results == ["won"] * 30
    else:  # without an exchange in one step a writer may find half a step of another and give up
        assert results.count("won") > 10 and len(results) == 30
    generation_of(output)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_many_writers_at_once_without_overwrite(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    results = talk([start(RACE, output, "exchange", "1", "no") for _ in range(4)])
    assert results.count("won") == 1
    refused = [line for line in results if line != "won"]
    assert len(refused) == 3 and all("exists; pass --overwrite" in line for line in refused)
    generation_of(output)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def talk(writers: list[subprocess.Popen[str]]) -> list[str]:
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lines: list[str] = []
    for writer in writers:
        lines += writer.communicate(timeout=60)[0].splitlines()
        assert writer.returncode == 0
    return lines


def test_a_file_beyond_the_size_limit(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    fill(output)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match="File too large.*nothing was written") as caught:
            with staged(output, True) as directory:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
                (directory / "model.onnx").write_bytes(bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value, EdgesslError) and str(output) in str(caught.value)
    assert generation_of(output) == "old"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("writer", ["python", "numpy"])
def test_a_full_disk(tmp_path: Path, writer: str) -> None:
    with disks.small(tmp_path, 1) as disk:
        output = disk / "bundle"
        fill(output)
        with pytest.raises(OutputError, match="no space left on") as caught:
            with staged(output, True) as directory:
                if writer == "python":
                    (directory / "model.onnx").write_bytes(bytes(2_000_000))
                else:
                    np.save(directory / "model.npy", np.zeros(2_000_000, np.uint8))
        message = str(caught.value)
        assert message.startswith(f"no space left on {disk} while writing {output} (")
        assert "nothing was written" in message and "1.0 MB free" in message
        assert generation_of(output) == "old"
        assert hidden(disk) == []
        with pytest.raises(OutputError, match="mount point"):
            check_output(disk, True)
        (disk / "ballast").write_bytes(bytes((1 << 20) - 65536))
        with pytest.raises(OutputError, match="no space left on"):
            with staged(output, True) as directory:
                fill(directory, "x" * 10)
        assert generation_of(output) == "old"

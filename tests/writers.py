"""Processes that write a bundle, and how to tell whether it is whole."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

# What the child processes share: fill a directory with four files of one generation.
WRITER = """
import json, os, signal, sys, time
from pathlib import Path
from edgessl import staging
from edgessl.errors import OutputError

def fill(directory, generation):
    names = ["a", "b", "sub/c"]
    (directory / "sub").mkdir()
    for name in names:
        (directory / name).write_text(str(generation) * 5000)
    manifest = {"generation": generation, "files": dict.fromkeys(names)}
    (directory / "manifest.json").write_text(json.dumps(manifest))

def no_exchange(one, other):
    raise OSError(38, "Function not implemented")

output = Path(sys.argv[1])
"""


def fill(directory: Path, generation: str = "old") -> None:
    names = ["a", "b", "sub/c"]
    (directory / "sub").mkdir(parents=True)
    for name in names:
        (directory / name).write_text(generation * 5000)
    manifest = {"generation": generation, "files": dict.fromkeys(names)}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def generation_of(output: Path) -> str:
    """The generation of a directory that ``fill`` filled; fails unless it is whole."""
    manifest = json.loads((output / "manifest.json").read_text())
    generation = str(manifest["generation"])
    for name in manifest["files"]:
        assert (output / name).read_text() == generation * 5000
    return generation


def hidden(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.name.startswith("."))


def start(code: str, output: Path, *more: str) -> subprocess.Popen[str]:
    """Run *code* after ``WRITER`` and wait for its line "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER + code, str(output), *more],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], signum: int) -> int:
    process.send_signal(signum)
    with process:
        return process.wait(timeout=30)


HOLD = """
with staging.staged(output, True) as directory:
    (directory / "a").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def no_exchange(one: Path, other: Path) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")

"""Virtual environments as a user would make them: a wheel of this checkout, pip, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What lies in a checkout and is no source; a stale build/ would end up in the wheel.
_NO_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out")
# Nobody's time should depend on a network that is or is not there; NNCF would use it unasked.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NNCF_CI": "1"}

_SIZE = """
import importlib.metadata as metadata, json, sys
from pip._vendor.packaging.requirements import Requirement
queue, seen, size = [Requirement(sys.argv[1])], set(), {}
while queue:
    wanted = queue.pop()
    key = (wanted.name.lower().replace("_", "-").replace(".", "-"), tuple(sorted(wanted.extras)))
    if key in seen:
        continue
    seen.add(key)
    found = metadata.distribution(wanted.name)
    files = {str(file.locate()) for file in found.files or ()}
    size[key[0]] = sum(path.stat().st_size for path in map(__import__("pathlib").Path, files)
                       if path.is_file())
    for text in found.requires or ():
        need = Requirement(text)
        if any(need.marker is None or need.marker.evaluate({"extra": extra})
               for extra in (*wanted.extras, "")):
            queue.append(need)
print(json.dumps(size))
"""


def build_wheel(directory: Path) -> Path:
    """Build this checkout's wheel into *directory*, from a clean copy of the sources."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "edgessl"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=_NO_SOURCE)
        pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(directory), str(copy))
    (wheel,) = directory.glob("edgessl-*.whl")
    return wheel


def make(directory: Path, *installs: Sequence[str]) -> Path:
    """Make a virtual environment and run ``pip install`` in it once per item of *installs*.

    Returns:
        Its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = directory / "bin" / "python"
    for arguments in installs:
        pip(python, "install", *arguments)
    return python


def pip(python: str | Path, *arguments: str) -> None:
    """Run pip quietly.

    Raises:
        SystemExit: pip failed; with what it said last.
    """
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")


def installed_bytes(python: Path, requirement: str) -> dict[str, int]:
    """Bytes on disk of *requirement* and of all it depends on, by distribution.

    Counted from pip's records, so that a large environment can hold other things too.
    """
    command = [str(python), "-I", "-c", _SIZE, requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes: dict[str, int] = json.loads(result.stdout)
    return sizes


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would let another Python see this one's packages."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, **more}


def run(python: Path, code: str, *arguments: str) -> Any:
    """Run *code* in isolation from this checkout; returns the JSON of its last line.

    Raises:
        subprocess.CalledProcessError: it failed; ``stderr`` says why.
    """
    command = [str(python), "-I", "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])

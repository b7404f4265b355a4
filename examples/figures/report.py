"""Tables for people, and what every figure needs beside it: where it was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from edgessl import machine
from examples.figures.environments import ROOT

_PACKAGES = (
    "edgessl torch transformers onnx onnxscript onnxruntime openvino nncf tokenizers numpy pillow"
).split()


def spread(samples: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """``"9.4 s (9.1 to 10.2)"``: the median, and the range where there is one."""
    middle = f"{statistics.median(samples):.{digits}f}{unit}"
    if len(samples) < 2:
        return middle
    return f"{middle} ({min(samples):.{digits}f} to {max(samples):.{digits}f})"


def environment() -> dict[str, Any]:
    """Processor, memory, system, versions, load and commit, ready for JSON."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "cpu": machine.processor(),
        "memory": machine.memory(),
        "os": machine.operating_system(),
        "python": sys.version.partition(" ")[0],
        "load_average": list(os.getloadavg()),
        "versions": versions,
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

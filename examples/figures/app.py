"""What an app that embeds one text at a time pays beside the graph: start, memory, overhead."""

from __future__ import annotations

import functools
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgessl
from edgessl import tables
from edgessl.gate.latency import interleave
from examples.figures import graphs, int8, process, report, tasks
from examples.figures.environments import clean_environment

TEXT = "The battery lasts two full days."
_ALLOWED = (1.6, 80.0)  # times the bundle's size, and MB more
# Prints when the first vector was there and, where the system tells, the resident MB after it.
_APP = """
import json, sys, time
import edgessl
session = edgessl.load(sys.argv[1])
session.embed([sys.argv[2]])
at = time.time()
try:
    with open("/proc/self/status") as lines:
        resident = next(int(line.split()[1]) * 1024 / 1e6 for line in lines if "VmRSS" in line)
except OSError:
    resident = None
print(json.dumps([at, resident]))
"""


@dataclass(frozen=True)
class Sizes:
    """Processes of each bundle, rounds and calls of the overhead, calibration texts."""

    starts: int = 11
    rounds: int = 30
    calls: int = 20
    calibration: int = tasks.CALIBRATION_ITEMS
    bundles: tuple[tuple[str, str], ...] = (
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
    )


QUICK = Sizes(1, 2, 2, 16, (("onnx", "fp32"), ("openvino", "int8")))


def measure(directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Start each bundle in fresh processes, in turn; then time a call's parts; for JSON."""
    task = tasks.texts(directory, 1000, sizes.calibration)
    files = int8.bundles(task, directory, sizes.bundles, sizes.calibration)
    found: dict[str, Any] = {}
    runs: dict[str, list[process.Run]] = {name: [] for name in files}
    environment = clean_environment()

    def start(name: str) -> None:
        bundle = str(files[name].path.parent)
        command = [sys.executable, "-I", "-c", _APP, bundle, TEXT]
        runs[name].append(process.run(command, environment))

    report.say("starting processes")
    jobs = {name: functools.partial(start, name) for name in files}
    interleave(jobs, sizes.starts, warm_up=1)  # which fills the cache
    for name, file in files.items():
        told = [(run, json.loads(run.output.splitlines()[-1])) for run in runs[name][1:]]
        path = file.path.parent
        found[name] = {
            "seconds": [at - run.began for run, (at, _) in told],
            "resident_mb": [resident for _, (_, resident) in told],
            "bundle_mb": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6,
            "parts_s": _parts(file, sizes),
        }
    return found


def _parts(file: graphs.File, sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of one text through a session, of its tokenization, and of the bare graph."""
    report.say(f"timing the parts of a call: {file.path.parent.name}")
    bare = graphs.open_graph(file)
    with edgessl.load(file.path.parent, threads=graphs.THREADS) as session:
        inputs = session.prepare([TEXT])
        jobs = {
            "embed": lambda: session.embed([TEXT]),
            "tokenize": lambda: session.preprocessor.encode([TEXT]),
            "bare": lambda: bare.run(inputs),
        }
        return interleave(jobs, sizes.rounds, sizes.calls, warm_up=20)


def render(found: dict[str, Any]) -> str:
    """The table of what ``measure`` returned."""
    factor, more = _ALLOWED
    rows = []
    for name, row in found.items():
        resident = [mb for mb in row["resident_mb"] if mb is not None]
        parts = {key: statistics.median(seconds) for key, seconds in row["parts_s"].items()}
        overhead = parts["embed"] - parts["tokenize"] - parts["bare"]
        rows.append(
            [
                name,
                f"{statistics.median(row['seconds']):.2f} s",
                f"{statistics.median(resident):.0f}" if resident else "",
                f"{factor * row['bundle_mb'] + more:.0f}",
                *(f"{parts[key] * 1e6:.0f}" for key in ("embed", "tokenize", "bare")),
                f"{overhead * 1e6:.0f}",
            ]
        )
    head = (
        *("", "process start to first vector", "resident MB", f"{factor} x bundle + {more:.0f}"),
        *("embed, us", "tokenizing", "bare graph", "overhead"),
    )
    return f"### One text in an app, warm cache, medians\n\n{tables.markdown(head, rows)}"

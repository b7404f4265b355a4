"""What a device has to hold and wait for: size of the environment, start, peak memory."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgessl
from edgessl import tables
from edgessl.gate.latency import interleave
from examples.figures import environments, process, report, tasks
from examples.figures.environments import OFFLINE

TEXT = "The battery lasts two full days."
PEER = "sentence-transformers"

# Both print the same: seconds to import, to load, to the first vector, and when that was there.
_EDGESSL = """
import json, sys, time
start = time.perf_counter()
import edgessl.runtimes.session
imported = time.perf_counter()
session = edgessl.load(sys.argv[1])
loaded = time.perf_counter()
vectors = session.embed([sys.argv[2]])
done, at = time.perf_counter(), time.time()
assert vectors.shape == (1, 384)
print(json.dumps([imported - start, loaded - imported, done - loaded, at]))
"""
_PEER = """
import json, sys, time
start = time.perf_counter()
from sentence_transformers import SentenceTransformer
imported = time.perf_counter()
session = SentenceTransformer(sys.argv[1], device="cpu")
loaded = time.perf_counter()
vectors = session.encode([sys.argv[2]])
done, at = time.perf_counter(), time.time()
assert vectors.shape == (1, 384)
print(json.dumps([imported - start, loaded - imported, done - loaded, at]))
"""


def measure(
    directory: Path, peers: Path | None, rounds: int = 5, warm_up: int = 1
) -> dict[str, Any]:
    """Make the environments a device would have and start each in *rounds* fresh processes.

    *peers* is the folder of the competitors' environment; None leaves them out.
    """
    task = tasks.texts(directory, 1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgessl-device-") as place:
        wheel = environments.build_wheel(Path(place) / "wheel")
        commands: dict[str, list[str]] = {}
        source = task.model
        for target in ("onnx", "openvino"):
            name = f"edgessl[{target}]"
            report.say(f"making an environment: pip install '{name}'")
            python = environments.make(Path(place) / target, (f"{wheel}[{target}]",))
            sizes = environments.installed_bytes(python, name)
            found[name] = {"installed_bytes": sizes}
            # one export from torch; OpenVINO's is built from the ONNX that it left
            source = edgessl.build(source, target, Path(place) / f"bundle-{target}").path
            commands[name] = [str(python), "-I", "-c", _EDGESSL, str(source), TEXT]
        if peers is not None:
            python = peers / "bin" / "python"
            found[PEER] = {"installed_bytes": environments.installed_bytes(python, PEER)}
            commands[PEER] = [str(python), "-I", "-c", _PEER, str(task.model), TEXT]
        _start(commands, found, rounds, warm_up)
    return found


def _start(
    commands: dict[str, list[str]], found: dict[str, Any], rounds: int, warm_up: int
) -> None:
    runs: dict[str, list[process.Run]] = {name: [] for name in commands}

    def job(name: str) -> Callable[[], object]:
        environment = environments.clean_environment(**OFFLINE)
        return lambda: runs[name].append(process.run(commands[name], environment))

    interleave({name: job(name) for name in commands}, rounds=rounds, warm_up=warm_up)
    for name, done in runs.items():
        steps = []
        for run in done[warm_up:]:
            imported, loaded, first, at = json.loads(run.output.splitlines()[-1])
            total = at - run.began
            steps.append({"import": imported, "load": loaded, "first": first, "total": total})
        found[name]["seconds"] = steps
        found[name]["peak_mb"] = [run.peak_mb for run in done[warm_up:]]


def render(found: dict[str, Any]) -> str:
    """The table of what ``measure`` returned."""
    rows = []
    for name, row in found.items():
        cells = [name, f"{sum(row['installed_bytes'].values()) / 1e6:.0f}"]
        for step in ("import", "load", "first", "total"):
            cells.append(f"{statistics.median(run[step] for run in row['seconds']):.2f} s")
        rows.append([*cells, f"{statistics.median(row['peak_mb']):.0f}"])
    head = (
        *("", "installed MB", "import", "load", "first vector"),
        *("process start to first vector", "peak MB"),
    )
    title = "### all-MiniLM-L6-v2 from a cold process, fp32, medians"
    return f"{title}\n\n{tables.markdown(head, rows)}"

"""What quantizing costs: wall time and peak memory of whole processes, from an fp32 graph that is
there to an int8 graph that is there.

edgessl's process does more than the peers': it tokenizes, converts for its target, checks parity
with golden inputs, and hashes; the seconds of the quantization alone are listed beside. The peers
get their samples ready-made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgessl
from edgessl import tables
from edgessl.gate.latency import interleave
from examples.figures import graphs, int8, peer_files, peers, process, report, tasks
from examples.figures.environments import OFFLINE, clean_environment

# Prints when each step began; a step that quantizes ends where the next of another kind begins.
_EDGESSL = """
import json, sys, time
from edgessl import pipeline
from edgessl.recipe import Recipe
model, target, calibration, samples, out = sys.argv[1:]
recipe = Recipe(model=model, target=target, precision="int8", calibration=calibration,
                samples=int(samples))
steps = []
pipeline.build(recipe, out, overwrite=True, force=True,
               report=lambda line: steps.append((line, time.perf_counter())))
steps.append(("", time.perf_counter()))
print()
print(json.dumps(steps))
"""
_OTHER_STEPS = ("loading", "exporting", "building", "checking", "")


@dataclass(frozen=True)
class Sizes:
    """Calibration texts for everyone, rounds, and more texts that only edgessl gets."""

    calibration: int = tasks.CALIBRATION_ITEMS
    rounds: int = 3
    warm_up: int = 1
    more: tuple[int, ...] = (3000,)
    targets: tuple[str, ...] = ("onnx", "openvino")


LONG = Sizes(more=(3000, 30_000))
QUICK = Sizes(16, rounds=1, warm_up=0, more=(), targets=("openvino",))


def measure(directory: Path, others: Path | None, sizes: Sizes) -> dict[str, Any]:
    """Quantize all-MiniLM-L6-v2 in fresh processes; for JSON.

    *others* is the folder of the competitors' environment; None leaves them out.
    """
    task = tasks.texts(directory, 1, sizes.calibration)
    source = int8.exported(task.name, task.model, directory)
    out = directory / "cost"
    out.mkdir(exist_ok=True)
    commands: dict[str, list[str]] = {}
    if others is not None:
        with edgessl.load(source) as like:
            samples = graphs.save_samples(like, task.calibration_items(), directory / "samples.npz")
        kept = directory / "peers"
        made = peer_files.make(others, kept, task.model, task.calibration, samples)
        for name, graph in (("NNCF on ONNX", made.onnx), ("NNCF on OpenVINO IR", made.ir)):
            result = out / f"nncf{graph.suffix}"
            commands[name] = peers.command(others, "nncf", graph, samples, result)
    for target in sizes.targets:
        arguments = (source, target, task.calibration, sizes.calibration, out / target)
        commands[f"edgessl {target}"] = [sys.executable, "-c", _EDGESSL, *map(str, arguments)]
    found = _run(commands, sizes.calibration, sizes.rounds, sizes.warm_up)
    for count in sizes.more:
        texts = tasks.many_texts(directory, count)
        command = [sys.executable, "-c", _EDGESSL, str(source), "onnx", str(texts), str(count)]
        found += _run({"edgessl onnx": [*command, str(out / "many")]}, count, 1, 0)
    return {"rows": found}


def _run(
    commands: dict[str, list[str]], samples: int, rounds: int, warm_up: int
) -> list[dict[str, Any]]:
    runs: dict[str, list[process.Run]] = {name: [] for name in commands}

    def job(name: str) -> Callable[[], object]:
        def once() -> None:
            report.say(f"whole process: {name}, {samples} samples")
            runs[name].append(process.run(commands[name], clean_environment(**OFFLINE)))

        return once

    interleave({name: job(name) for name in commands}, rounds=rounds, warm_up=warm_up)
    return [
        {
            "name": name,
            "samples": samples,
            "seconds": [run.seconds for run in done[warm_up:]],
            "quantizing_s": [_quantizing(run.output) for run in done[warm_up:]],
            "peak_mb": [run.peak_mb for run in done[warm_up:]],
        }
        for name, done in runs.items()
    ]


def _quantizing(output: str) -> float:
    """Seconds of calibration and quantization within the process."""
    said = json.loads(output.splitlines()[-1])
    if isinstance(said, dict):
        return float(said["seconds"])
    seconds = 0.0
    for (line, began), (_, ended) in zip(said[:-1], said[1:], strict=True):
        if line.partition(" ")[0] not in _OTHER_STEPS:
            seconds += ended - began
    return seconds


def render(found: dict[str, Any]) -> str:
    """The table of what ``measure`` returned."""
    rows = [
        [
            row["name"],
            f"{row['samples']}",
            report.spread(row["quantizing_s"], " s"),
            report.spread(row["seconds"], " s"),
            report.spread(row["peak_mb"], " MB", 0),
        ]
        for row in found["rows"]
    ]
    head = ("", "samples", "calibration and quantization", "whole process", "peak memory")
    title = "### Quantizing all-MiniLM-L6-v2 to int8, whole processes, median (range)"
    return f"{title}\n\n{tables.markdown(head, rows)}"

"""Exporting all-MiniLM-L6-v2 to OpenVINO as whole processes: edgessl beside optimum-intel.

edgessl's time includes more than optimum's: pooling and normalisation in the graph, the parity
check through the runtime, hashes, and the reference that travels with the bundle.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgessl
from edgessl import parity, tables
from edgessl.gate.latency import interleave
from examples.figures import peers as peers_environment
from examples.figures import process, report, tasks
from examples.figures.environments import OFFLINE, clean_environment
from examples.torch_backend import torch_session

HINTS = ("default", "f32")


def measure(
    directory: Path,
    peers: Path | None,
    items: int = 1000,
    calibration: int = tasks.CALIBRATION_ITEMS,
    rounds: int = 5,
    warm_up: int = 1,
) -> dict[str, Any]:
    """Time the exports and compare what they made with fp32 torch; for JSON.

    *peers* is the folder of the competitors' environment; None leaves them out.
    """
    task = tasks.texts(directory, items, calibration)
    calibrated = str(task.calibration)
    model = str(task.model)
    out = {
        name: directory / "exports" / name.replace(" ", "-")
        for name in ("edgessl fp32", "edgessl int8", "optimum fp32", "optimum int8")
    }
    out["edgessl fp32"].parent.mkdir(parents=True, exist_ok=True)
    edge = [sys.executable, "-m", "edgessl", "export", model, "--target", "openvino", "--quiet"]
    commands = {
        "edgessl fp32": [*edge, "--precision", "fp32", "-o", str(out["edgessl fp32"])],
        "edgessl int8": [
            *(*edge, "--precision", "int8", "--calibration", calibrated),
            *("--samples", str(calibration), "-o", str(out["edgessl int8"])),
        ],
    }
    if peers is not None:
        commands["optimum fp32"] = [
            *(str(peers / "bin" / "optimum-cli"), "export", "openvino", "--model", model),
            *("--task", "feature-extraction", "--weight-format", "fp32"),
            str(out["optimum fp32"]),
        ]
        commands["optimum int8"] = peers_environment.command(
            peers, "quantize", model, calibrated, out["optimum int8"]
        )
    runs: dict[str, list[process.Run]] = {name: [] for name in commands}

    def job(name: str) -> Callable[[], object]:
        def once() -> None:
            report.say(f"whole process: {name}")
            shutil.rmtree(out[name], ignore_errors=True)
            runs[name].append(process.run(commands[name], clean_environment(**OFFLINE)))

        return once

    interleave({name: job(name) for name in commands}, rounds=rounds, warm_up=warm_up)
    cosines = _quality(task, out, peers, directory)
    return {
        name: {
            "seconds": [run.seconds for run in done[warm_up:]],
            "peak_mb": [run.peak_mb for run in done[warm_up:]],
            "bytes": sum(path.stat().st_size for path in out[name].rglob("*") if path.is_file()),
            "cosine": cosines[name],
        }
        for name, done in runs.items()
    }


def render(found: dict[str, Any]) -> str:
    """The table of what ``measure`` returned."""
    rows = []
    for name, row in found.items():
        for hint, values in row["cosine"].items():
            cosine = np.array(values)
            again = hint != next(iter(row["cosine"]))
            rows.append(
                [
                    f"{name}, {hint} arithmetic" if len(row["cosine"]) > 1 else name,
                    "" if again else report.spread(row["seconds"], " s"),
                    "" if again else report.spread(row["peak_mb"], " MB", 0),
                    "" if again else f"{row['bytes'] / 1e6:.1f}",
                    f"{cosine.mean():.5f}",
                    f"{cosine.min():.5f}",
                ]
            )
    head = ("", "wall time", "peak memory", "MB", "cosine mean", "lowest")
    title = "### Export of all-MiniLM-L6-v2 to OpenVINO, whole processes, median (range)"
    return f"{title}\n\n{tables.markdown(head, rows)}"


def _quality(
    task: tasks.Task, out: dict[str, Path], peers: Path | None, directory: Path
) -> dict[str, dict[str, list[float]]]:
    """export -> arithmetic -> cosine of every item's vector to fp32 torch.

    Optimum's models run as it opens them (OpenVINO then takes bf16 where the processor has it)
    and in f32; a bundle says itself what it runs in.
    """
    with edgessl.load(out["edgessl fp32"]) as like:
        truth = torch_session(task.model, like).embed(task.items)
    cosines: dict[str, dict[str, list[float]]] = {}
    for name in ("edgessl fp32", "edgessl int8"):
        with edgessl.load(out[name]) as session:
            values = parity.cosine(truth, session.embed(task.items))
            cosines[name] = {"its own": values.tolist()}
    if peers is None:
        return cosines
    texts, vectors = directory / "items.txt", directory / "peer.npy"
    texts.write_text("\n".join(" ".join(text.split()) for text in task.items), encoding="utf-8")
    for name in ("optimum fp32", "optimum int8"):
        cosines[name] = {}
        for hint in HINTS:
            command = peers_environment.command(peers, "embed", out[name], texts, vectors, hint)
            process.run(command, clean_environment(**OFFLINE))
            cosines[name][hint] = parity.cosine(truth, np.load(vectors)).tolist()
    return cosines

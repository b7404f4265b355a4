"""How near each bundle is to fp32 torch, how large it is and how fast it runs beside torch."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgessl
from edgessl import parity, tables, target
from edgessl.gate.latency import interleave
from edgessl.runtimes.session import Session
from examples import data
from examples.figures import report, tasks
from examples.torch_backend import torch_session

TORCH = "torch fp32"
NEIGHBOURS = 20
ALL = tuple((t.key, p) for t in target.TARGETS.values() if not t.needs_gpu for p in t.precisions)
HEAD = ("", "MB", "cosine mean", "1st percentile", "lowest", "one item", "p95", "bulk")


@dataclass(frozen=True)
class Sizes:
    """How much to measure: items to compare and embed in bulk, calibration items, rounds of
    timing, images of the kNN bank and of its queries."""

    items: int = 1000
    calibration: int = tasks.CALIBRATION_ITEMS
    rounds: int = 5
    calls: int = 40
    bank: int = 10_000
    queries: int = 2000
    variants: tuple[tuple[str, str], ...] = ALL


QUICK = Sizes(32, 16, 1, 5, 200, 50, (("onnx", "fp32"), ("openvino", "int8")))


def measure(directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Build every variant of both encoders below *directory* and measure them; for JSON."""
    found = {}
    for make in (tasks.texts, tasks.images):
        task = make(directory, sizes.items, sizes.calibration)
        found[task.name] = _measure(task, directory, sizes)
    return found


def render(found: dict[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    parts = []
    for encoder, facts in found.items():
        rows = []
        for name, row in facts["rows"].items():
            one = np.array(row["one_item_s"]) * 1e3
            bulk = facts["items"] / statistics.median(row["bulk_s"])
            cosines = np.array(row["cosine"])
            cells = [name, f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else "-"]
            cells += [f"{value:.5f}" for value in (cosines.mean(), np.percentile(cosines, 1))]
            cells += [f"{cosines.min():.5f}", f"{np.median(one):.2f} ms"]
            cells += [f"{np.percentile(one, 95):.2f} ms", f"{bulk:.0f}/s"]
            if "knn" in row:
                cells.append(f"{row['knn']:.2%}")
            rows.append(cells)
        head = (*HEAD, "kNN") if "knn" in row else HEAD
        title = f"### {encoder}: fidelity to fp32 torch and speed, {facts['items']} real items"
        parts.append(f"{title}\n\n{tables.markdown(head, rows)}")
    return "\n\n".join(parts)


def _measure(task: tasks.Task, directory: Path, sizes: Sizes) -> dict[str, Any]:
    sessions: dict[str, Session] = {}
    size: dict[str, int] = {TORCH: 0}
    for target_key, precision in sizes.variants:
        name = f"{target_key} {precision}"
        report.say(f"exporting {task.name}: {name}")
        built = edgessl.build(
            task.model,
            target_key,
            directory / "bundles" / f"{task.name}-{target_key}-{precision}",
            precision=precision,
            calibration=str(task.calibration) if precision == "int8" else None,
            overwrite=True,
            force=True,  # a figure outside its bound is a figure to show
        )
        size[name] = sum(entry.size for entry in built.manifest.files.values())
        sessions[name] = edgessl.load(built.path)
    sessions = {TORCH: torch_session(task.model, next(iter(sessions.values()))), **sessions}

    report.say(f"comparing and timing {task.name}")
    truth = sessions[TORCH].embed(task.items)
    cosines = {n: parity.cosine(truth, s.embed(task.items)) for n, s in sessions.items()}
    # every variant sees the same items, in the same order
    one = {name: _one_by_one(session, task.items) for name, session in sessions.items()}
    many = {n: functools.partial(s.embed, task.items) for n, s in sessions.items()}
    latency = interleave(one, rounds=sizes.rounds, calls=sizes.calls, warm_up=5)
    bulk = interleave(many, rounds=sizes.rounds, warm_up=0)
    rows: dict[str, Any] = {
        name: {
            "bytes": size[name],
            "cosine": cosines[name].tolist(),
            "one_item_s": latency[name],
            "bulk_s": bulk[name],
            "runtime": session.describe(),
        }
        for name, session in sessions.items()
    }
    if task.model == tasks.MAE:
        for name, session in sessions.items():
            report.say(f"nearest neighbours: {name}")
            rows[name]["knn"] = nearest_neighbours(session, sizes.bank, sizes.queries)
    for session in sessions.values():
        session.close()
    return {"items": len(task.items), "rows": rows}


def _one_by_one(session: Session, items: Any) -> Callable[[], object]:
    singles = itertools.cycle([items[row : row + 1] for row in range(min(len(items), 100))])
    return lambda: session.embed(next(singles))


def nearest_neighbours(session: Session, bank: int, queries: int) -> float:
    """Share of the first *queries* CIFAR-10 test images whose class the majority of their 20
    nearest (by cosine) among the first *bank* training images has."""
    known = _unit(session.embed(data.cifar10("train", bank)))
    asked = _unit(session.embed(data.cifar10("test", queries)))
    labels = data.cifar10_labels("train", bank)
    nearest = np.argsort(-(asked @ known.T), axis=1)[:, :NEIGHBOURS]
    votes = np.stack([(labels[nearest] == label).sum(axis=1) for label in range(10)], axis=1)
    return float((votes.argmax(axis=1) == data.cifar10_labels("test", queries)).mean())


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit

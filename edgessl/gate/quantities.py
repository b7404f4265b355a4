"""The figures of a run that limits, tables and history speak of, in the units people read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgessl.gate.report import Round, Run, Subject

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

_OF_ROUND: dict[str, Callable[[Round], float | None]] = {
    "throughput": lambda visit: visit.items / (visit.busy_ns / 1e9),
    "cold_start": lambda visit: None if visit.cold_start_ns is None else visit.cold_start_ns / 1e6,
    "memory": lambda visit: visit.memory_mb,
    "device_memory": lambda visit: visit.device_memory_mb,
    "energy": lambda visit: visit.energy_mj,
}
QUANTITIES = (*PERCENTILES, *_OF_ROUND, "size")


def by_round(run: Run, quantity: str) -> dict[int, float]:
    """Round number -> the figure of that round: ms for percentiles of latency and cold start,
    items/s, MB, mJ an item. Rounds in which it was not measured are left out."""
    if quantity in PERCENTILES:
        fraction = PERCENTILES[quantity]
        return {
            visit.number: float(np.quantile(visit.latency_ns, fraction)) / 1e6
            for visit in run.rounds
        }
    found = {visit.number: _OF_ROUND[quantity](visit) for visit in run.rounds}
    return {number: value for number, value in found.items() if value is not None}


def value(run: Run, quantity: str) -> float | None:
    """The figure of a whole run: of all its calls for percentiles, the highest for memory, else the
    median of its rounds. None where it was not measured."""
    if quantity in PERCENTILES:
        return float(np.quantile(run.latencies, PERCENTILES[quantity])) / 1e6
    found = list(by_round(run, quantity).values())
    if not found:
        return None
    return max(found) if quantity.endswith("memory") else float(np.median(found))


def size_mb(subject: Subject) -> float | None:
    """Of a bundle's files, 10**6 bytes; None for what is not a bundle."""
    return None if subject.size_bytes is None else subject.size_bytes / 1e6

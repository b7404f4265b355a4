"""What the reader of a report should know before trusting its figures, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgessl.gate.report import Run

_UNSTEADY = 0.25  # share of the rounds
_STOLEN = 0.01  # share of the CPU time that other virtual machines took


def of(runs: Sequence[Run], environment: Mapping[str, Any]) -> list[str]:
    """Of what was measured, beside what ``environment`` does not know."""
    lines = list(environment.get("unknown", ()))
    for run in runs:
        where, rounds = " / ".join(run.key), len(run.rounds)
        if (unsteady := run.facts.get("unsteady_rounds", 0)) > _UNSTEADY * rounds:
            lines.append(
                f"{where}: not steady after warming up in {unsteady} of {rounds} rounds: something "
                "else is at work on this machine, or its clocks move"
            )
        if overloaded := run.facts.get("overloaded_rounds"):
            lines.append(
                f"{where}: overloaded in {overloaded} of {rounds} rounds: {run.settings['qps']:.1f} "
                "queries a second are more than it can do, so its latencies say nothing"
            )
        lines += _weather(run)
    return list(dict.fromkeys(lines))


def _weather(run: Run) -> list[str]:
    """Of the conditions at the ends of the first and the last round."""
    first, last = run.rounds[0].conditions, run.rounds[-1].conditions
    lines = []
    before, after = first.get("throttled", {}), last.get("throttled", {})
    if after.get("count", 0) > before.get("count", 0) or after.get("flags", 0) & 0xF:
        lines.append("the processor was slowed down while measuring: too hot, or too little power")
    if any(card.get("throttled", 0) & _GPU_SLOWED for card in last.get("gpu", ())):
        lines.append("the GPU was slowed down while measuring: too hot, or too little power")
    stolen = last.get("stolen_s", 0.0) - first.get("stolen_s", 0.0)
    busy = last.get("busy_s", 0.0) - first.get("busy_s", 0.0)
    if stolen > _STOLEN * (busy + stolen):
        share = stolen / (busy + stolen)
        lines.append(f"other virtual machines took {share:.0%} of the CPU time meanwhile")
    return lines


# NVML's clock event reasons: software power cap, hardware slowdown, software and hardware thermal
# slowdown, hardware power brake.
_GPU_SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80

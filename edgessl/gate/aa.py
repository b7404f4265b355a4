"""What the gate would say on this machine, drawn from a comparison of a bundle with itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgessl import tables
from edgessl.errors import RecipeError
from edgessl.gate import quantities
from edgessl.gate.judging import statistics
from edgessl.gate.judging.sequential import rounds_at
from edgessl.gate.report import Report, Run
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS

CONFIDENCE = 0.99
MOST_ROUNDS = 80  # of a gate, some minutes
FEWEST_ROUNDS = 10
SLOWDOWNS = (0.0, 0.05, 0.10)


@dataclass(frozen=True)
class Rate:
    """What came of gates whose subject was really slower by ``slowdown``; shares of them, and the
    median of the rounds that they took."""

    scenario: str
    shape: str
    limit: float
    slowdown: float
    failed: float
    passed: float
    inconclusive: float
    rounds: int


def rates(report: Report, limit: float, gates: int = 500, seed: int = 0) -> list[Rate]:
    """False alarms and misses of gates with a relative limit on p50, by bootstrap of the rounds.

    Args:
        report: of two subjects that are the same bundle.
        limit: such as 0.05. gates: how many are drawn for each figure.

    Raises:
        RecipeError: fewer than ten rounds.
    """
    rng = np.random.default_rng(seed)
    found = []
    for one, other in _pairs(report):
        ours, theirs = (quantities.by_round(run, "p50") for run in (one, other))
        shared = sorted(ours.keys() & theirs.keys())
        if len(shared) < FEWEST_ROUNDS:
            raise RecipeError(
                f"{len(shared)} rounds do not show how much rounds differ: --rounds {FEWEST_ROUNDS} "
                "at least, better 30."
            )
        logs = np.array([math.log(ours[number] / theirs[number]) for number in shared])
        both_ways = (logs, -logs)
        for slowdown in SLOWDOWNS:
            said: Counter[str] = Counter()
            took = []
            for number in range(gates):
                drawn = rng.choice(both_ways[number % 2], MOST_ROUNDS) + math.log1p(slowdown)
                outcome, rounds = _gate(drawn, limit)
                said[outcome] += 1
                took.append(rounds)
            found.append(
                Rate(
                    one.scenario,
                    one.shape,
                    limit,
                    slowdown,
                    failed=said[FAIL] / gates,
                    passed=said[PASS] / gates,
                    inconclusive=said[INCONCLUSIVE] / gates,
                    rounds=int(np.median(took)),
                )
            )
    return found


def _pairs(report: Report) -> Sequence[tuple[Run, Run]]:
    first, second = (subject.name for subject in report.subjects)
    seconds = {(run.scenario, run.shape): run for run in report.runs if run.subject == second}
    return [(run, seconds[run.scenario, run.shape]) for run in report.runs if run.subject == first]


def _gate(differences: npt.NDArray[np.float64], limit: float) -> tuple[str, int]:
    """The looks of ``sequential.until_clear`` on these differences: outcome and rounds."""
    look = 1
    while True:
        confidence = statistics.look_confidence(CONFIDENCE, 1, look)
        rounds = min(rounds_at(look, confidence), len(differences))
        _, (low, high) = statistics.shift_interval(differences[:rounds], confidence)
        if high <= math.log1p(limit):
            return PASS, rounds
        if low > math.log1p(limit):
            return FAIL, rounds
        if rounds == len(differences):
            return INCONCLUSIVE, rounds
        look += 1


def table(found: Sequence[Rate]) -> str:
    """For a person, a row a rate."""
    head = ("the gate here", "", "limit", "really", "fail", "pass", "inconclusive", "rounds")
    rows = [
        (
            rate.scenario,
            rate.shape,
            f"+{100 * rate.limit:g}%",
            f"{rate.slowdown:.0%} slower" if rate.slowdown else "the same",
            f"{rate.failed:.1%}",
            f"{rate.passed:.1%}",
            f"{rate.inconclusive:.1%}",
            str(rate.rounds),
        )
        for rate in found
    ]
    return tables.plain(head, rows, 2)

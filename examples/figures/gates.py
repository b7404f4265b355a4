"""How often the gate cries wolf, and how often it sleeps: by simulation, and on this machine.

Rounds of four subjects are recorded, interleaved, in one go: a bundle, the same bundle again, and
the bundle slowed by 5 % and by 10 %. Gates are then replayed over them, each from another round
on, by the very code that measures in ``edgessl gate``; a gate's time is that of the rounds that it
used. The same is done while another process loads one core half of the time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import tables
from edgessl.gate import bench, budget, gating
from edgessl.gate import report as reports
from edgessl.gate.judging import statistics
from edgessl.gate.judging.claims import Baseline
from edgessl.gate.judging.sequential import until_clear
from edgessl.gate.plan import Plan
from edgessl.gate.report import Report, Round
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS
from examples.figures import int8, report, tasks

SHAPE = "1x16"
BASE, AGAIN = "bundle", "again"
SLOWED = Path(__file__).with_name("slowed.py")
# A process that wants a core for half of the time, in stretches of half a second on the average.
BURN = """
import random, time
while True:
    ends = time.monotonic() + random.expovariate(2)
    while time.monotonic() < ends: pass
    time.sleep(random.expovariate(2))
"""
Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """``rounds`` that are recorded in each weather; ``gates`` that are replayed; ``live`` gates
    that are really run; ``simulated`` intervals of each kind."""

    rounds: int = 320
    gates: int = 200
    live: int = 20
    simulated: int = 4000


QUICK = Sizes(rounds=12, gates=4, live=1, simulated=50)

# what is compared with the bundle, limit, seconds
CASES = (
    (AGAIN, 0.05, 60),
    (AGAIN, 0.025, 180),
    ("slower_10", 0.05, 60),
    ("slower_5", 0.025, 180),
)


def measure(directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Coverage by simulation, and the gates' verdicts; for JSON."""
    report.say("simulating intervals of p99")
    found: dict[str, Any] = {"coverage": coverage(sizes.simulated)}
    task = tasks.texts(directory, 1000)
    bundle = int8.bundles(task, directory, (("openvino", "int8"),))[
        "edgessl openvino int8"
    ].path.parent
    os.environ["EDGESSL_SLOWED_BUNDLE"] = str(bundle.resolve())
    for weather, load in (("calm", contextlib.nullcontext), ("loaded", loaded)):
        path = directory / f"gate-rounds-{weather}.json"
        with load():
            recorded, seconds = recording(path, bundle, sizes.rounds, weather)
        found[weather] = {
            "rounds": sizes.rounds,
            "p50_ms": {run.subject: np.median(run.latencies) / 1e6 for run in recorded.runs},
            "seconds": seconds,
            "gates": [case(recorded, seconds, *each, sizes.gates) for each in CASES],
        }
    found["live"] = live(directory, bundle, sizes.live)
    return found


# --- simulation


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    return 1 + rng.pareto(1.5, shape)


def _bimodal(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    slow = rng.random(shape) > 0.97
    both: Samples = np.where(slow, rng.normal(5, 0.5, shape), rng.normal(1, 0.03, shape))
    return both


def coverage(count: int) -> list[dict[str, Any]]:
    """How often the 95 % interval of p99 holds the truth: 20 rounds of 200 calls, alike or with a
    process's own luck of 5 %; beside it the interval that takes all calls for independent."""
    rows = []
    for name, draw in (("heavy-tailed", _heavy_tailed), ("bimodal", _bimodal)):
        for luck in (0.0, 0.05):
            rng = np.random.default_rng(0)
            drawn = functools.partial(_rounds, draw, luck, rng)
            truth = np.quantile(drawn(20_000), 0.99)
            ours = naive = 0
            for _ in range(count):
                rounds = drawn(20)
                low, high = statistics.percentile_interval(list(rounds), 0.99, 0.95)
                ours += bool(low <= truth <= high)
                calls = rounds.reshape(-1, 1)  # as if each call were a round of its own
                low, high = statistics.percentile_interval(list(calls), 0.99, 0.95)
                naive += bool(low <= truth <= high)
            rows.append(
                {
                    "latencies": name,
                    "luck": luck,
                    "gate": ours / count,
                    "calls as independent": naive / count,
                }
            )
    return rows


def _rounds(
    draw: Callable[[np.random.Generator, tuple[int, int]], Samples],
    luck: float,
    rng: np.random.Generator,
    count: int,
) -> Samples:
    return draw(rng, (count, 200)) * np.exp(rng.normal(0, luck, (count, 1)))


# --- on this machine


@contextlib.contextmanager
def loaded() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", BURN]) as burner:
        try:
            yield
        finally:
            burner.kill()


def recording(path: Path, bundle: Path, rounds: int, weather: str) -> tuple[Report, list[float]]:
    """The four subjects' rounds, and the seconds that each round took; kept in *path*."""
    if path.exists():
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["rounds"] == rounds:
            return reports.loads(json.dumps(data["report"])), data["seconds"]
    subjects = {BASE: str(bundle), AGAIN: str(bundle)}
    subjects |= {name: f"{SLOWED}:{name}" for name in ("slower_5", "slower_10")}
    plan = Plan(subjects, shapes=(SHAPE,), rounds=rounds, peak=False, energy=False)
    ends = [time.monotonic()]

    def told(_: Report) -> None:
        ends.append(time.monotonic())
        if len(ends) % 20 == 0:
            report.say(f"{weather}: {len(ends)} of {rounds} rounds")

    found = bench.measure(plan, each=told)
    seconds = np.diff(ends).tolist()
    text = json.dumps({"rounds": rounds, "report": json.loads(found.dumps()), "seconds": seconds})
    path.write_text(text, encoding="utf-8")
    return found, seconds


class Replay:
    """Gives recorded rounds as ``bench.measure`` would, from round *start* on and round again at
    the end; ``now`` is the time that measuring the two of them took."""

    def __init__(self, recorded: Report, seconds: list[float], names: Mapping[str, str]) -> None:
        self.runs = {run.subject: run for run in recorded.runs}
        self.recorded, self.seconds, self.names = recorded, seconds, names
        self.start, self.now = 0, 0.0

    def __call__(self, plan: Plan) -> Report:
        numbers = range(plan.first_round, plan.first_round + plan.rounds)
        places = [(self.start + number) % len(self.seconds) for number in numbers]
        self.now += (
            sum(self.seconds[place] for place in places) * len(plan.subjects) / len(self.runs)
        )
        runs = []
        for name in plan.subjects:
            run = self.runs[self.names[name]]
            rounds = zip(numbers, places, strict=True)
            taken = tuple(replace(run.rounds[place], number=number) for number, place in rounds)
            runs.append(replace(run, subject=name, rounds=taken))
        known = (self.recorded.subject(self.names[name]) for name in plan.subjects)
        subjects = (replace(one, name=name) for one, name in zip(known, plan.subjects, strict=True))
        return Report(self.recorded.environment, tuple(subjects), tuple(runs))


def case(
    recorded: Report, seconds: list[float], subject: str, limit: float, limit_s: float, gates: int
) -> dict[str, Any]:
    """Verdicts of *gates* gates on *subject*, and those of fixed thresholds on the same samples."""
    rules = budget.Budgets("", (budget.Budget("p50", (budget.Limit("relative", "p50", limit),)),))
    replay = Replay(recorded, seconds, {"new": subject, "old": BASE})
    plan = Plan({"new": "", "old": ""}, shapes=(SHAPE,))
    rows = []
    for number in range(gates):
        replay.start, replay.now = number * len(seconds) // gates, 0.0
        judgement, seen = until_clear(
            rules, Baseline("old"), [plan], replay, limit_s, clock=lambda: replay.now
        )
        new, old = (run.rounds for run in seen.runs)
        # the baseline of another job: measured half of the recording away
        away = replace(plan, first_round=len(seconds) // 2, rounds=len(old))
        before = replay(away).runs[1].rounds
        rows.append(
            {
                "outcome": judgement.outcome,
                "rounds": len(new),
                "seconds": judgement.seconds,
                "fixed": _changed(new, old, np.median) > limit,
                "median": _changed(new, before, np.median) > limit,
                "mean": _changed(new, before, np.mean) > limit,
            }
        )
    return {"subject": subject, "limit": limit, "limit_s": limit_s, "rows": rows}


def _changed(
    new: tuple[Round, ...], old: tuple[Round, ...], statistic: Callable[[Any], Any]
) -> float:
    left, right = (
        statistic([sample for visit in rounds for sample in visit.latency_ns])
        for rounds in (new, old)
    )
    return float(left / right - 1)


def live(directory: Path, bundle: Path, gates: int) -> list[dict[str, Any]]:
    """Gates that are really run: the bundle against itself, limit 5 %, a minute each."""
    rules = directory / "gate-budgets.toml"
    rules.write_text(f'[[budget]]\nshape = "{SHAPE}"\nrelative = {{ p50 = 0.05 }}\n')
    rows = []
    for number in range(gates):
        report.say(f"live gate {number + 1} of {gates}")
        began = time.monotonic()
        found = gating.gate(rules, [str(bundle)], baseline=[str(bundle)], max_minutes=1)
        spent = time.monotonic() - began
        rows.append({"outcome": found.judgement.outcome, "seconds": spent})
    return rows


# --- tables


def render(found: Mapping[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    rows = [
        [
            row["latencies"],
            f"{row['luck']:.0%}",
            f"{row['gate']:.1%}",
            f"{row['calls as independent']:.1%}",
        ]
        for row in found["coverage"]
    ]
    head = ("latencies", "processes differ by", "gate", "all calls taken as independent")
    parts = ["### How often the 95 % interval of p99 holds the truth (simulation)"]
    parts.append(tables.markdown(head, rows))
    for weather in ("calm", "loaded"):
        measured = found[weather]
        parts.append(f"### Gates, {weather}: {measured['rounds']} rounds")
        parts.append(_gates(measured["gates"]))
    outcomes = Counter(row["outcome"] for row in found["live"])
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    parts.append(
        f"Really run, the bundle against itself, limit 5 %: {said}; "
        f"{np.median([row['seconds'] for row in found['live']]):.0f} s (median)."
    )
    return "\n\n".join(parts)


def _gates(gates: list[dict[str, Any]]) -> str:
    rows = []
    for one in gates:
        count = len(one["rows"])
        said = Counter(row["outcome"] for row in one["rows"])
        spent = np.array([row["seconds"] for row in one["rows"]])
        fixed = [sum(row[rule] for row in one["rows"]) / count for rule in RULES]
        rows.append(
            [
                one["subject"],
                f"+{one['limit']:.1%}",
                *(f"{said[outcome] / count:.1%}" for outcome in (FAIL, PASS, INCONCLUSIVE)),
                f"{np.median(spent):.0f} s",
                f"{spent.max():.0f} s",
                *(f"{share:.1%}" for share in fixed),
            ]
        )
    head = (
        "subject",
        "limit",
        "fail",
        "pass",
        "inconclusive",
        "median time",
        "longest",
        *(f"{name}: fail" for name in RULES.values()),
    )
    return tables.markdown(head, rows)


RULES = {
    "fixed": "fixed threshold, same rounds",
    "median": "compare-fail median, other job",
    "mean": "compare-fail mean, other job",
}

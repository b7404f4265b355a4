"""Measure: rounds of fresh processes, short blocks interleaved, raw samples in a report.

What luck a process has (where its memory lies, which core it begins on) is drawn anew every
round; what the machine does meanwhile hits all subjects of a round alike.

    python -m edgessl.gate.bench PLAN.json REPORT.json     on another device
"""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgessl import console, interrupts, text_output
from edgessl.errors import EdgesslError, RecipeError, first_line, nearest
from edgessl.gate import conditions, subjects
from edgessl.gate.measuring import meters, notes, peak, scenarios, workload
from edgessl.gate.measuring.pools import Pools
from edgessl.gate.measuring.process import started
from edgessl.gate.measuring.rounds import Cell, Job, Key, play
from edgessl.gate.plan import SCENARIOS, Plan
from edgessl.gate.report import Report, Round, Run
from edgessl.gate.subjects import Thing
from edgessl.progress import Steps
from edgessl.spec import TextSpec


def measure(
    plan: Plan, report: Steps | None = None, each: Callable[[Report], None] | None = None
) -> Report:
    """Carry out *plan* on this machine.

    Args:
        report: is told how many rounds are done.
        each: is given the report so far after every round.

    Raises:
        RecipeError: a plan that cannot be carried out; says what to change.
        BundleError: a subject that is no bundle, or a damaged one.
        EdgesslError: a subject that cannot be opened, or fails; says which.
    """
    things = subjects.look(plan.subjects)
    cells = _cells(plan, things)
    steps = report or Steps(quiet=True)
    corpus = _corpus(plan, cells, _bundle(things))
    on_gpu = subjects.on_gpu(things, plan.device)
    meter, lacking = meters.find(on_gpu) if plan.energy else (None, [])
    rounds: dict[Key, list[Round]] = {}
    environment: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgessl-bench-") as folder, ExitStack() as stack:
        if meter is not None:
            stack.callback(meter.close)
        pools = Pools(Path(folder), _bundle(things), corpus, plan.seed)
        job = Job(plan, things, cells, pools, meter)
        steps("measuring")
        for done in range(plan.rounds):
            steps.count(done, plan.rounds, "rounds")
            for mode in dict.fromkeys(scenarios.MODES[scenario] for scenario, _ in cells):
                for key, visit in play(job, plan.first_round + done, mode).items():
                    rounds.setdefault(key, []).append(visit)
            environment = environment or conditions.environment(job.libraries, plan.cpus, on_gpu)
            if each is not None:
                each(_report(job, rounds, environment, lacking))
        if plan.peak:
            steps("measuring this machine's peak")
            lacking += _add_peaks(job, rounds)
    return _report(job, rounds, environment, lacking)


def _add_peaks(job: Job, rounds: Mapping[Key, list[Round]]) -> list[str]:
    """Put ``flops_per_item``, ``peak_flops`` and ``peak_share`` into the facts; what is lacking."""
    found: dict[tuple[str, str], float] = {}
    lacking = []
    for key, visits in rounds.items():
        facts, thing = job.facts[key], job.things[key[0]]
        if thing.manifest is None:
            continue
        needed = operations(job, thing, key[2])
        ran, precision = facts["ran"], thing.manifest.precision
        if needed is None:
            lacking.append(f"share of peak: what an item of {key[0]!r} needs is not known")
            continue
        facts["flops_per_item"] = needed
        if not peak.can(ran["runtime"], ran["device"]):
            lacking.append("share of peak: measured on CPUs only")
            continue
        kind = (ran["runtime"], precision)
        if kind not in found:
            with started("peak", job.plan.cpus) as worker:
                found[kind] = worker.ask("peak", runtime=kind[0], precision=kind[1])
        rate = sum(v.items for v in visits) / sum(v.busy_ns for v in visits) * 1e9
        facts |= {"peak_flops": found[kind], "peak_share": rate * needed / found[kind]}
    return list(dict.fromkeys(lacking))


def operations(job: Job, thing: Thing, shape: str) -> float | None:
    """Floating-point operations of an item of *shape*; None where that is not known."""
    assert thing.manifest is not None
    if "keep_patches" in job.plan.options:
        return None
    try:
        config = json.loads((Path(thing.subject.path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    tokens = job.pools.made[thing.reads, shape].tokens
    return peak.operations(thing.manifest.compute, config, tokens)


def _cells(plan: Plan, things: Mapping[str, Thing]) -> list[Cell]:
    """Every scenario with every shape; refuses what makes no sense before anything runs."""
    for scenario in plan.scenarios:
        if scenario not in SCENARIOS:
            raise RecipeError(
                f"there is no scenario {scenario!r}.{nearest(scenario, SCENARIOS)} "
                f"Scenarios: {', '.join(SCENARIOS)}."
            )
    for name, value in (("seconds", plan.seconds), ("qps", plan.qps)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RecipeError(f"{name} must be a number above 0, not {value!r}.")
    if plan.rounds < 1:
        raise RecipeError(f"rounds must be at least 1, not {plan.rounds}.")
    _check_cpus(plan.cpus)
    first = _bundle(things)
    task: Any = first.subject.task if first else None
    cells = [
        (scenario, shape)
        for scenario in dict.fromkeys(plan.scenarios)
        for shape in dict.fromkeys(plan.shapes or [workload.usual(scenario, task, plan.data)])
    ]
    shapes = {shape for _, shape in cells}
    if workload.CORPUS in shapes and plan.data is None:
        raise RecipeError("shape corpus: name the data whose items they are (--data FILE).")
    specs = [thing.manifest.encoder.preprocessing for thing in things.values() if thing.manifest]
    limits = [spec.max_length for spec in specs if isinstance(spec, TextSpec)]
    longest = plan.options.get("max_length") or min(limits, default=None)
    for shape in shapes:
        workload.parse(shape, task, longest)
    return cells


def _corpus(plan: Plan, cells: Sequence[Cell], bundle: Thing | None) -> list[Any]:
    if plan.data is None or all(shape != workload.CORPUS for _, shape in cells):
        return []
    task: Any = bundle.subject.task if bundle else "text"
    return workload.corpus(plan.data, plan.column, task, plan.seed)


def _bundle(things: Mapping[str, Thing]) -> Thing | None:
    return next((thing for thing in things.values() if thing.manifest is not None), None)


def _check_cpus(cpus: tuple[int, ...]) -> None:
    if not cpus:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise RecipeError("cpus: this system cannot tie a process to cores.")
    own = os.sched_getaffinity(0)
    if strange := sorted(set(cpus) - own):
        allowed = ", ".join(map(str, sorted(own)))
        raise RecipeError(f"cpus: this process has no core {strange[0]}, only {allowed}.")


def _report(
    job: Job, rounds: Mapping[Key, list[Round]], environment: dict[str, Any], lacking: list[str]
) -> Report:
    runs = [
        Run(*key, rounds=tuple(rounds[key]), settings=_settings(job, key), facts=job.facts[key])
        for cell in job.cells
        for name in job.things
        for key in [(name, *cell)]
    ]
    return Report(
        environment=environment,
        subjects=tuple(thing.subject for thing in job.things.values()),
        runs=tuple(runs),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=commit(),
        notes=(*lacking, *notes.of(runs, environment)),
    )


def _settings(job: Job, key: Key) -> dict[str, Any]:
    """What was asked for, where it was."""
    plan, (_, scenario, shape) = job.plan, key
    asked = {
        "mode": scenarios.MODES[scenario],
        "device": plan.device,
        "threads": plan.threads,
        "streams": plan.streams,
        "cpus": list(plan.cpus) or None,
        "data": Path(plan.data).name if shape == workload.CORPUS and plan.data else None,
        "qps": job.qps.get(shape) if scenario == "server" else None,
        **plan.options,
    }
    return {name: value for name, value in asked.items() if value is not None}


def commit() -> str:
    """Of the repository that this runs in, ``""`` where it is none."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def main(arguments: Sequence[str]) -> int:
    """Carry out the plan in one file into a report in another; the exit code."""
    try:
        with interrupts.remembered():
            _into_file(*_paths(arguments))
    except EdgesslError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        return console.INTERRUPTED
    return 0


def _paths(arguments: Sequence[str]) -> tuple[Path, Path]:
    if len(arguments) != 2:
        raise RecipeError("usage: python -m edgessl.gate.bench PLAN.json REPORT.json")
    return Path(arguments[0]), Path(arguments[1])


def _into_file(source: Path, target: Path) -> None:
    try:
        plan = Plan.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RecipeError(f"plan {str(source)!r} cannot be read: {first_line(err)}.") from err
    text_output.check(target, overwrite=True)

    def told(report: Report) -> None:
        done = len(report.runs[0].rounds)
        print(f"{done} of {plan.rounds} rounds", file=sys.stderr, flush=True)

    text_output.write(target, measure(plan, each=told).dumps())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

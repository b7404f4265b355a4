"""One round: a fresh process of every subject, all open and warm, then short blocks in turn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgessl.gate import conditions
from edgessl.gate.measuring import meters, scenarios, workload
from edgessl.gate.measuring.meters import Meter
from edgessl.gate.measuring.pools import Pools
from edgessl.gate.measuring.process import OPEN_S, Process, started
from edgessl.gate.plan import Plan
from edgessl.gate.report import Round
from edgessl.gate.subjects import Thing

BLOCK_NS = 60_000_000
_LOAD = 0.7  # of what one stream can do: arrivals in the server scenario, where none are given

Cell = tuple[str, str]  # scenario, shape
Key = tuple[str, str, str]  # subject, scenario, shape


@dataclass
class Job:
    """A plan while it is carried out.

    ``facts``: of each run. ``libraries``: that any subject loaded. ``qps``: of the server
    scenario, by shape.
    """

    plan: Plan
    things: Mapping[str, Thing]
    cells: list[Cell]
    pools: Pools
    meter: Meter | None = None
    facts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)
    qps: dict[str, float] = field(default_factory=dict)


@dataclass
class _Visit:
    """What a process has given for one scenario and shape."""

    latency_ns: list[int] = field(default_factory=list)
    items: int = 0
    busy_ns: int = 0
    energy_mj: float = 0.0
    with_lead: int = 0  # items that the energy was for

    def add(self, block: Mapping[str, Any], energy_mj: float) -> None:
        self.latency_ns += block["latency_ns"]
        self.items += block["items"]
        self.busy_ns += block["busy_ns"]
        self.energy_mj += energy_mj
        self.with_lead += block["items"] + block["lead"]


def play(job: Job, number: int, mode: str) -> dict[Key, Round]:
    """Round *number* of the scenarios whose sessions are opened in *mode*."""
    cells = [cell for cell in job.cells if scenarios.MODES[cell[0]] == mode]
    names = list(job.things)
    shift = number % len(names)
    with ExitStack() as stack:
        workers: dict[str, Process] = {}
        cold_ns: dict[str, int] = {}
        for name in names[shift:] + names[:shift]:
            workers[name] = stack.enter_context(started(name, job.plan.cpus))
            ran = _open(job, workers[name], mode)
            cold_ns[name] = workers[name].age_ns()
            for cell in cells:
                job.facts.setdefault((name, *cell), {})["ran"] = ran
        visits = {cell: _cell(job, workers, cell, number) for cell in cells}
        weather = conditions.now()
        rounds = {}
        for name, worker in workers.items():
            device_memory = meters.device_memory_mb(worker.pid)
            ended = worker.ask("finish")
            job.libraries.update(ended["libraries"])
            for cell in cells:
                visit = visits[cell][name]
                rounds[(name, *cell)] = Round(
                    number,
                    tuple(visit.latency_ns),
                    visit.items,
                    visit.busy_ns,
                    cold_start_ns=cold_ns[name],
                    memory_mb=ended["memory_mb"],
                    device_memory_mb=device_memory,
                    energy_mj=visit.energy_mj / visit.with_lead if job.meter else None,
                    conditions=weather,
                )
    return rounds


def _open(job: Job, worker: Process, mode: str) -> dict[str, Any]:
    """Open the subject and get its first vector; what really runs."""
    plan = job.plan
    settings = {
        "device": plan.device,
        "mode": mode,
        "threads": plan.threads,
        "streams": plan.streams,
    }
    path = job.things[worker.name].subject.path
    found: dict[str, Any] = worker.ask(
        "open",
        OPEN_S,
        subject=path,
        first=str(job.pools.first()),
        settings=settings,
        options=plan.options,
    )
    return found


def _cell(job: Job, workers: Mapping[str, Process], cell: Cell, number: int) -> dict[str, _Visit]:
    """All subjects in one scenario with items of one shape."""
    scenario, shape = cell
    parsed = workload.parse(shape, job.pools.task)
    start = int(np.random.default_rng([job.plan.seed, number]).integers(1 << 30))
    for worker in workers.values():
        pool = job.pools.of(job.things[worker.name], shape, workers)
        worker.ask(
            "take",
            cell=cell,
            path=str(pool.path),
            size=workload.per_query(scenario, parsed, pool.items),
            start=start,
            ragged=parsed.tokens is None and job.pools.task in ("text", "audio"),
        )
    usual = []
    for name, worker in workers.items():
        found = worker.ask("warm_up", cell=cell)
        usual.append(found["usual_ns"])
        facts = job.facts[(name, *cell)]
        facts["unsteady_rounds"] = facts.get("unsteady_rounds", 0) + (not found["stable"])
    if scenario == "server":
        job.qps.setdefault(shape, job.plan.qps or _LOAD * 1e9 / max(usual))
    return _in_turn(job, workers, cell, number)


def _in_turn(
    job: Job, workers: Mapping[str, Process], cell: Cell, number: int
) -> dict[str, _Visit]:
    """Blocks A B B A A B B A ... until each subject has been measured for long enough."""
    server = cell[0] == "server"  # one block: its queue must not begin anew all the time
    wanted = 1 if server else round(job.plan.seconds * 1e9)
    length = max(BLOCK_NS, job.meter.resolution_ns) if job.meter else BLOCK_NS
    span = -(-wanted // max(1, round(wanted / length)))
    visits = {name: _Visit() for name in workers}
    names = list(workers)
    while left := [name for name in names if visits[name].busy_ns < wanted]:
        for name in left:
            before = job.meter.millijoules() if job.meter else 0.0
            if server:
                block = _served(job, workers[name], cell, number)
            else:
                block = workers[name].ask("block", cell=cell, span_ns=span)
            after = job.meter.millijoules() if job.meter else 0.0
            visits[name].add(block, after - before)
            if block["overloaded"]:
                facts = job.facts[(name, *cell)]
                facts["overloaded_rounds"] = facts.get("overloaded_rounds", 0) + 1
        names.reverse()
    return visits


def _served(job: Job, worker: Process, cell: Cell, number: int) -> Any:
    ran = job.facts[(worker.name, *cell)]["ran"]
    return worker.ask(
        "serve",
        cell=cell,
        qps=job.qps[cell[1]],
        seconds=job.plan.seconds,
        streams=int(ran.get("streams") or job.plan.streams or 1),
        seed=[job.plan.seed, number],
    )

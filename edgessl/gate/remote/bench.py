"""``edgessl.gate.bench.measure``, but on another device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgessl import bundle, target
from edgessl.errors import EdgesslError
from edgessl.gate import report as reports
from edgessl.gate import subjects
from edgessl.gate.bench import commit
from edgessl.gate.plan import Plan
from edgessl.gate.remote import jobs, trees
from edgessl.gate.remote.device.jobs import REPORT
from edgessl.gate.remote.devices import Device, find, find_all
from edgessl.gate.remote.fleet import LOST_AFTER_S, at_once, linked
from edgessl.gate.remote.link import Link, Progress
from edgessl.gate.report import Report


def measure(
    where: str | Device,
    plan: Plan,
    report: Progress,
    *,
    devices: Path | None = None,
    lost_after_s: float = LOST_AFTER_S,
) -> Report:
    """Carry out *plan* on another device.

    Args:
        where: ``ssh://[user@]host[:port]``, or a name in *devices* (None: devices.toml here).
        lost_after_s: for how long a device that is lost meanwhile is tried again.

    Returns:
        what ``edgessl.gate.bench.measure`` would return there. ``device`` of its environment is
        the name in devices.toml; its notes tell of reboots.

    Raises:
        DeviceError: the device cannot be reached, was lost, or has no room; says what to do.
        EdgesslError: as ``edgessl.gate.bench.measure``, with the device's name.
    """
    with opened(where, report, devices=devices, lost_after_s=lost_after_s) as on_device:
        return on_device(plan)


@contextmanager
def opened(
    where: str | Device,
    report: Progress,
    *,
    devices: Path | None = None,
    lost_after_s: float = LOST_AFTER_S,
) -> Iterator[Callable[[Plan], Report]]:
    """For several plans: a function as ``measure``, over one connection."""
    device = where if isinstance(where, Device) else find(where, devices)
    with linked(device, report, lost_after_s) as link:
        yield lambda plan: _measure(link, plan)


def measure_all(
    where: Sequence[str],
    plan: Plan,
    report: Progress,
    *,
    devices: Path | None = None,
    lost_after_s: float = LOST_AFTER_S,
) -> dict[str, Report | EdgesslError]:
    """Several devices at the same time; what happens to one does not stop the others.

    Returns:
        by what is in *where*: the report, or why there is none.

    Raises:
        RecipeError: a name that is not in *devices*, or one given twice.
    """
    found = find_all(where, devices)
    return at_once(found, lambda link: _measure(link, plan), report, lost_after_s)


def _measure(link: Link, plan: Plan) -> Report:
    sent = {name: _send(link, path, name) for name, path in plan.subjects.items()}
    there = replace(
        plan,
        subjects=sent,
        data=None if plan.data is None else _send(link, plan.data, "data"),
        cpus=plan.cpus or link.device.cpus,
    )
    python = _environment(link, plan.subjects)
    link.report(f"measuring on {link.called}")
    text, notes = jobs.run(
        link,
        [python, "-m", "edgessl.gate.bench", "plan.json", REPORT],
        files={"plan.json": there.dumps()},
        env={"PYTHONPATH": link.code},
        power_mode=link.device.power_mode,
        reports=True,
    )
    found = reports.loads(text, f"report of {link.called}")
    name = {"device": link.device.name} if link.device.name else {}
    return replace(
        found,
        environment={**found.environment, **name},
        subjects=tuple(replace(s, path=plan.subjects[s.name]) for s in found.subjects),
        commit=commit(),
        notes=(*found.notes, *notes),
    )


def _send(link: Link, path: str, name: str) -> str:
    """A bundle, ``FILE.py:FACTORY`` or data: the same, as it is to be called there."""
    factory = ""
    if subjects.is_callable(path):
        path, _, factory = path.rpartition(":")
    elif name != "data":
        bundle.read(Path(path))  # before anything is copied
    return trees.send(trees.of(Path(path)), link, name) + (factory and f":{factory}")


def _environment(link: Link, things: Mapping[str, str]) -> str:
    """The Python there that has what the bundles need; makes its environment at the first time."""
    device = link.device
    if not device.install:
        return link.python
    manifests = [bundle.read(Path(p)) for p in things.values() if not subjects.is_callable(p)]
    extras = device.extras
    if extras is None:
        extras = tuple(sorted({target.get(found.target).extra for found in manifests}))
    request: dict[str, Any] = {
        "needs": link.wheel.needs,
        "wheel": f"{link.code}/{link.wheel.name}",
        "extras": extras,
        "packages": device.packages,
        "pip_args": device.pip_args,
        "wheelhouse": None,
    }
    if device.wheelhouse:
        request["wheelhouse"] = trees.send(trees.of(Path(device.wheelhouse)), link, "wheelhouse")
    found = link.ask("ready", request)
    if not found["ready"]:
        jobs.run(link, link.argv("environment"), given=json.dumps(request))
    return str(found["python"])

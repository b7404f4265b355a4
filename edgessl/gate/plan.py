"""What is measured, as plain data: it goes to another device as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCENARIOS = ("single-stream", "multi-stream", "offline", "server")


@dataclass(frozen=True)
class Plan:
    """One measurement. ``edgessl.gate.bench.measure`` carries it out.

    ``subjects``: name -> bundle directory, or ``FILE.py:FACTORY``; all are interleaved.
    ``shapes``: ``"1x32"`` (items a query x tokens of each), ``"8"`` (items a query), or
    ``"corpus"``: the items of ``data``. ``rounds``: fresh processes of each subject;
    ``seconds``: of measuring in each, for each scenario and shape. ``first_round``: number of the
    first round, where earlier ones were measured already. ``qps``: arrivals a second in the server
    scenario; None: 0.7 of what the single stream reaches. ``cpus``: cores to stay on.
    ``peak``: also measure this machine's matrix-multiply peak.
    """

    subjects: Mapping[str, str]
    scenarios: tuple[str, ...] = ("single-stream",)
    shapes: tuple[str, ...] = ()
    data: str | None = None
    column: str | None = None
    rounds: int = 10
    seconds: float = 0.5
    first_round: int = 0
    qps: float | None = None
    device: str | None = None
    threads: int | None = None
    streams: int | None = None
    cpus: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)  # InputOptions of every call
    seed: int = 0
    peak: bool = True
    energy: bool = True

    def dumps(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def loads(text: str) -> Plan:
        data = json.loads(text)
        for name in ("scenarios", "shapes", "cpus"):
            data[name] = tuple(data[name])
        return Plan(**data)

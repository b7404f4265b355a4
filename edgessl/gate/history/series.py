"""Figures of one kind over time, measured under the same conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Point:
    """One report's figure. ``low``, ``high``: the range of its rounds."""

    report: int  # id in the store
    created: str
    commit: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """From point number ``at`` on the level is another one. ``before``, ``after``: medians."""

    at: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """0.05: 5 % more than before; infinite where it was 0."""
        difference = self.after - self.before
        return difference / abs(self.before) if self.before else math.copysign(math.inf, difference)


@dataclass(frozen=True)
class Series:
    """``metric``: ``p50``, ``throughput``, ... or that of a score. ``unit``: of the values.

    ``machine``: the environment in a few words; ``differs``: from that of the first series of the
    same figures. ``points``: by time.
    """

    subject: str
    metric: str
    unit: str
    higher_is_better: bool
    points: tuple[Point, ...]
    scenario: str = ""
    shape: str = ""
    data: str = ""
    machine: str = ""
    differs: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return (self.subject, self.scenario, self.shape, self.data, self.metric)

    @property
    def title(self) -> str:
        place = " ".join(filter(None, (self.scenario, self.shape, self.data)))
        return ", ".join(filter(None, (self.subject, place, self.metric)))

    def worse(self, change: Change) -> float:
        """How much *change* is for the worse, as a fraction; negative: for the better."""
        return -change.ratio if self.higher_is_better else change.ratio

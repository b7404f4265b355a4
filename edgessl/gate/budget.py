"""The noun ``Budget``: limits for a device, a scenario and a shape, from a budgets.toml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """One bound of one quantity.

    ``kind``: ``absolute`` (``p99_ms`` at most 2.0), ``relative`` (``p99`` at most 0.05, that is 5 %,
    worse than the baseline's) or ``accuracy`` (``min_cosine``; ``max_drop`` of ``metric``).
    """

    kind: str
    name: str
    bound: float
    metric: str = ""

    @property
    def called(self) -> str:
        """As in the file: ``p99_ms``, ``relative.p99``, ``max_drop.sts.spearman``."""
        lead = "relative." if self.kind == "relative" else ""
        return f"{lead}{self.name}{'.' if self.metric else ''}{self.metric}"


@dataclass(frozen=True)
class Budget:
    """Limits, and what they are for: globs, compared without regard to case.

    ``device``: against the environment's ``device`` and ``host``; ``data``: against the data set
    of a score.
    """

    name: str
    limits: tuple[Limit, ...]
    device: str = "*"
    subject: str = "*"
    scenario: str = "*"
    shape: str = "*"
    data: str = "*"


@dataclass(frozen=True)
class Budgets:
    """A whole file. ``confidence``: that no limit of the file is wrongly said to be broken, nor
    wrongly said to be kept; it is shared out among them."""

    path: str
    budgets: tuple[Budget, ...]
    confidence: float = 0.99

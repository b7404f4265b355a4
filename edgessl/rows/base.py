"""What every table looks like, whatever file it is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgessl.errors import RecipeError

TEXT, MEDIA = "text", "media"  # kinds of column that can be used; media: encoded bytes, or a path

MOST_UNUSABLE = 0.1  # of those tried; more than that means a wrong or broken data set
_NAMED = 100


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used; ``weight``: how many lines went with it."""

    where: str
    reason: str
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.where} ({self.reason})"


@dataclass
class Tally:
    """Good and bad items, all counted, of which the first bad ones are named."""

    good: int = 0
    bad: int = 0
    named: list[Bad] = field(default_factory=list)

    def add(self, bad: Bad) -> None:
        self.bad += bad.weight
        if len(self.named) < _NAMED:
            self.named.append(bad)

    @property
    def too_many(self) -> bool:
        return self.bad > MOST_UNUSABLE * (self.good + self.bad)


class Rows(Protocol):
    """Rows that can be read as often as wanted, and are never in memory as a whole."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Name -> ``TEXT``, ``MEDIA``, or what else it holds, in words for a message."""

    def count(self) -> int:
        """How many rows there are, unusable ones among them."""

    def estimate(self) -> int | None:
        """About how many rows there are, found quickly; None where only reading would tell."""

    def take(
        self, names: Sequence[str], wanted: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[tuple[int, list[Any] | Bad]]:
        """Row number and values of the columns *names*, of every row from *start* on, or of those
        *wanted* (ascending)."""


@dataclass(frozen=True)
class Chained:
    """Several files, by name, one after the other; the columns that all of them have."""

    files: Mapping[str, Rows]

    @property
    def columns(self) -> Mapping[str, str]:
        first, *others = self.files.values()
        shared = dict(first.columns)
        for part in others:
            shared = {name: kind for name, kind in shared.items() if part.columns.get(name) == kind}
        return shared

    def count(self) -> int:
        return sum(part.count() for part in self.files.values())

    def estimate(self) -> int | None:
        sizes = [part.estimate() for part in self.files.values()]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def take(
        self, names: Sequence[str], wanted: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[tuple[int, list[Any] | Bad]]:
        before = 0
        for name, part in self.files.items():
            size, here = 0, None
            if wanted is not None:
                size = part.count()
                here = [row - before for row in wanted if before <= row < before + size]
            elif start > before:
                size = part.count()
                if before + size <= start:
                    before += size
                    continue
            found = part.take(names, here, max(start - before, 0)) if here != [] else ()
            for number, values in found:
                if isinstance(values, Bad):
                    values = Bad(f"{name}, {values.where}", values.reason, values.weight)
                yield before + number, values
                size = max(size, number + 1)
            before += size


def unreadable(path: object, reason: object) -> RecipeError:
    return RecipeError(f"data {str(path)!r} cannot be read: {str(reason).rstrip('.')}.")

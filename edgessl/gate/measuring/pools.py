"""The items of each shape, in files that the workers read: made once, the same in every round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgessl.gate.measuring import workload
from edgessl.gate.measuring.process import Process
from edgessl.gate.subjects import Thing
from edgessl.spec import TextSpec

_ANY_TEXT = TextSpec(max_length=1 << 30)  # of callables, whose tokens nobody counts


@dataclass(frozen=True)
class Pool:
    """Items in a file. ``tokens``: of each, where they are texts of a bundle's."""

    path: Path
    items: int
    tokens: tuple[int, ...] = ()


@dataclass
class Pools:
    """``bundle``: the first subject that is one, whose items callables get, too; None without one.
    ``corpus``: items of the plan's data. ``made``: by who reads them, and shape."""

    folder: Path
    bundle: Thing | None
    corpus: Sequence[Any]
    seed: int
    made: dict[tuple[str, str], Pool] = field(default_factory=dict)

    @property
    def task(self) -> Any:
        return self.bundle.subject.task if self.bundle else "text"

    def first(self) -> Path:
        """A file with one item, for a first vector."""
        path = self.folder / "first"
        if not path.exists():
            workload.write(workload.first(self.task, _spec(self.bundle)), path)
        return path

    def of(self, thing: Thing, shape: str, workers: Mapping[str, Process]) -> Pool:
        """The items of *shape* for *thing*; *workers*, by subject, have their bundles open.

        Raises:
            RecipeError: there are no such items.
        """
        reader = thing if thing.manifest else self.bundle
        key = (reader.reads if reader else "", shape)
        if key not in self.made:
            worker = workers[reader.subject.name] if reader else None
            self.made[key] = self._make(reader, worker, shape)
        return self.made[key]

    def _make(self, reader: Thing | None, worker: Process | None, shape: str) -> Pool:
        def count(texts: list[str]) -> list[int]:
            assert worker is not None  # who has no bundle has no tokens in a shape
            found: list[int] = worker.ask("tokens", texts=texts)
            return found

        items = list(self.corpus)
        if shape != workload.CORPUS:
            items = workload.make(workload.parse(shape, self.task), _spec(reader), count, self.seed)
        path = self.folder / f"items-{len(self.made)}"
        workload.write(items, path)
        counted = worker is not None and self.task == "text"
        return Pool(path, len(items), tuple(count(items)) if counted else ())


def _spec(thing: Thing | None) -> Any:
    return thing.manifest.encoder.preprocessing if thing and thing.manifest else _ANY_TEXT

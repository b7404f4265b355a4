"""Which kind of data a path is, and all of it, read as ``edgessl embed`` reads its inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgessl.embed import inputs
from edgessl.embed.inputs import Source
from edgessl.errors import RecipeError
from edgessl.gate.evaluate import arrays, beir
from edgessl.gate.evaluate.columns import Columns, chosen
from edgessl.gate.evaluate.data import LABELLED, PAIRS, PLAIN, Data
from edgessl.rows import media, plain, tables
from edgessl.rows.base import Bad
from edgessl.spec import Task

_PARTS = {
    True: re.compile(r"(^|[/_.-])test([/_.-]|$)", re.I),
    False: re.compile(r"(^|[/_.-])train([/_.-]|$)", re.I),
}
_BLOCK = 1024
Label = Callable[[Any, list[Any]], object]  # of an item's id and its kept values


def read(where: str, task: Task, columns: Columns) -> Data:
    """All of the data at *where*, for encoders of *task*; its notes say as what it was read.

    Raises:
        RecipeError: nothing there, nothing for this task, or a column that is not there or holds
            something else.
        MissingDependency: Parquet without pyarrow.
    """
    path = Path(where)
    plain.check_there(path)
    is_beir = task == "text" and path.is_dir() and beir.is_there(path)
    if is_beir or (path.suffix.lower() == ".npz" and arrays.has_labels(path)):
        for option, name in columns.given.items():
            raise RecipeError(f"{option} {name!r} is for tables, and {where!r} is none.")
        return beir.read(path) if is_beir else arrays.read(path, task)
    parts = _split(path)
    table = _table(path, task)
    if table is None:
        for option in ("--label-column", "--score-column", "--pair"):
            if option in columns.given:
                named = columns.given[option]
                raise RecipeError(f"{option} {named!r} is for tables, and {where!r} is none.")
        return _of_files(path, task, columns)
    found = chosen(table.columns, task, columns, path)
    if found.pair and found.score:
        return _of_pairs(path, found)
    if found.label:
        return _of_table(path, task, found, parts)
    data = _plain(Source((where,), task, found.item, found.id))
    note = (
        "read as items without labels; --label-column, or --pair A,B and --score-column, name some"
    )
    return replace(data, notes=(note,))


def _table(path: Path, task: Task) -> Any:
    """The rows of *path* where it is a table to ``edgessl.embed.inputs``, too."""
    if task == "video":
        return None
    if task != "text" and path.is_dir() and not tables.saved(path):
        if media.in_folder(path, task):
            return None
    table = tables.find(path, every=True)
    return table.rows if table is not None else None


def _of_pairs(path: Path, found: Columns) -> Data:
    assert found.pair is not None and found.score is not None
    left, right = found.pair
    data, kept = _all(Source((str(path),), "text", left, None, (right, found.score)))
    items: list[Any] = []
    scores = []
    bad = [*data.unreadable]
    for row, first, (second, score) in zip(data.ids, data.items, kept, strict=True):
        if not isinstance(second, str) or score is None:
            bad.append(f"row {row} has no {found.score if isinstance(second, str) else right}")
            continue
        items += [first, second]
        scores.append(_float(score, found.score, path))
    note = f"read as pairs: {left}, {right}; how alike they are: {found.score}"
    return Data(
        data.name,
        PAIRS,
        items,
        ids=list(range(len(items))),
        scores=np.array(scores, np.float64),
        unreadable=tuple(bad),
        notes=(note,),
    )


def _float(score: Any, column: str, path: Path) -> float:
    try:
        found = float(score)
    except (TypeError, ValueError):
        found = float("nan")
    if not np.isfinite(found):
        raise RecipeError(
            f"data {str(path)!r}: column {column!r} holds {score!r}, which is no number. Name the "
            "column of scores: --score-column."
        )
    return found


def _of_table(path: Path, task: Task, found: Columns, parts: dict[bool, list[str]]) -> Data:
    assert found.label is not None
    sides: list[tuple[bool | None, list[str]]] = [*parts.items()] or [(None, [str(path)])]
    sources = {
        side: Source(tuple(paths), task, found.item, found.id, (found.label,))
        for side, paths in sides
    }
    data = _labelled(sources, lambda _, kept: kept[0], f"column {found.label!r}", path)
    split = ": split as its files are, into train and test" if parts else ""
    note = f"read as labelled items: {found.item or 'items'}, labels: {found.label}{split}"
    return replace(data, notes=(note, *data.notes))


def _of_files(path: Path, task: Task, columns: Columns) -> Data:
    """Lines of text, an array, or a folder: a class a folder where every file lies in one."""
    source = Source((str(path),), task, columns.item, columns.id)
    if not path.is_dir() or task == "text":
        return _plain(source)
    names = [PurePosixPath(str(name)) for name in _plain(source).ids]
    if not all(len(name.parts) > 1 for name in names):
        return _plain(source)
    tops = {name.parts[0].lower() for name in names}
    split = {"train", "test"} <= tops and all(len(name.parts) > 2 for name in names)
    data = _labelled(
        {None: source}, lambda name, _: PurePosixPath(str(name)).parent.name, "a folder", path
    )
    note = "read as labelled items: a class a folder"
    if split:
        sides = np.array([PurePosixPath(str(name)).parts[0].lower() for name in data.ids])
        data = replace(data, held_out=sides == "test").where(np.isin(sides, ("train", "test")))
        note += ", split into train and test"
    return replace(data, notes=(note, *data.notes))


def _plain(source: Source) -> Data:
    return _all(source)[0]


def _all(source: Source) -> tuple[Data, list[list[Any]]]:
    """Every row, and the values kept of it."""
    items: list[Any] = []
    ids: list[Any] = []
    kept: list[list[Any]] = []
    bad: list[str] = []
    for block in inputs.blocks(source, _BLOCK):
        items += block.items
        ids += block.ids
        kept += block.kept
        bad += [f"row {entry['row']}: {entry['reason']}" for entry in block.rejected]
    name = Path(source.paths[0]).resolve().name
    return Data(name, PLAIN, items, ids, unreadable=tuple(bad)), kept


def _labelled(sources: Mapping[bool | None, Source], label: Label, what: str, path: Path) -> Data:
    """Items of all *sources* (test, train, or None: not split), without those of no label."""
    items: list[Any] = []
    ids: list[Any] = []
    labels: list[str] = []
    held_out: list[bool | None] = []
    bad: list[str] = []
    for side, source in sources.items():
        data, kept = _all(source)
        bad += data.unreadable
        for item, name, values in zip(data.items, data.ids, kept, strict=True):
            said = _label(label(name, values), what, path)
            if said is None:
                bad.append(f"{name} has no label")
                continue
            items.append(item)
            ids.append(name if side is None else f"{'test' if side else 'train'}/{name}")
            labels.append(said)
            held_out.append(side)
    return Data(
        path.resolve().name,
        LABELLED,
        items,
        ids,
        labels=np.array(labels, dtype=str),
        held_out=None if None in sources else np.array(held_out, bool),
        unreadable=tuple(bad),
    )


def _label(value: Any, what: str, path: Path) -> str | None:
    """A class as text; None for a row that has none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int)):  # bool among them
        return str(value).strip() or None
    if value is None or isinstance(value, Bad):
        return None
    raise RecipeError(
        f"data {str(path)!r}: {what} holds {value!r}, which is no class. Name the column of "
        "labels: --label-column."
    )


def _split(path: Path) -> dict[bool, list[str]]:
    """The tables of a folder that are for testing (True) and for training, where both are there."""
    if not path.is_dir():
        return {}
    if (path / "dataset_dict.json").is_file():
        names: Sequence[str] = [p.name for p in sorted(path.iterdir()) if tables.saved(p)]
    else:
        names = [n for n in sorted(tables.visible_files(path)) if n.endswith(tables.SUFFIXES)]
    found = {
        held_out: [str(path / name) for name in names if pattern.search(name)]
        for held_out, pattern in _PARTS.items()
    }
    return found if all(found.values()) else {}

"""What is embedded: every row of the inputs, in order, in blocks that can be read anew."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, nearest
from edgessl.rows import media, plain, tables
from edgessl.rows.base import MEDIA, Bad
from edgessl.rows.encoding import clean_text
from edgessl.spec import Task

STDIN = "-"
_HEAD = 1 << 16  # bytes of a file that go into its fingerprint
Row = tuple[int, Any, Any, list[Any]]  # number, id (None: the number), item or Bad, kept values


@dataclass(frozen=True)
class Source:
    """The inputs as plain data, so that another process can open them again.

    ``paths``: as the user gave them, read one after the other; or ``("-",)``. ``first_row``: number of the
    first row, above 0 where they are appended to earlier ones.
    """

    paths: tuple[str, ...]
    task: Task
    column: str | None = None
    id_column: str | None = None
    keep: tuple[str, ...] = ()
    first_row: int = 0

    @property
    def is_stdin(self) -> bool:
        return self.paths == (STDIN,)


@dataclass(frozen=True)
class Block:
    """``size`` rows from row ``start`` on: the good ones, with ids and kept values, and the bad.

    ``rejected``: ``{"row", "id", "reason"}`` of each row that cannot be embedded.
    ``rows``: the row number of each item.
    """

    number: int
    start: int
    size: int
    items: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    ids: list[int | str] = field(default_factory=list)
    kept: list[list[Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Opened:
    """One path. ``take(start)``: its rows from number *start* on; ``count``: how many there are."""

    take: Callable[[int], Iterator[Row]]
    count: Callable[[], int]
    estimate: Callable[[], int | None]


def open_source(source: Source) -> list[_Opened]:
    """Every path, looked at but not read.

    Raises:
        RecipeError: nothing there, not for this task, or no such column.
        MissingDependency: Parquet without pyarrow.
    """
    if source.is_stdin:
        if source.task != "text":
            raise RecipeError(f"standard input is for texts; this bundle is for {source.task}.")
        source_rows = _lines_of_stdin
        return [_Opened(source_rows, lambda: 0, lambda: None)]
    if STDIN in source.paths:
        raise RecipeError('"-", standard input, cannot stand beside other inputs.')
    return [_open(Path(path), source) for path in source.paths]


def blocks(source: Source, size: int, first: int = 0) -> Iterator[Block]:
    """The rows in blocks of *size*, from block number *first* on; the last one may be smaller.

    A block holds the same rows however the reading began.
    """
    found = _rows(source, first * size)
    number = first
    while rows := list(islice(found, size)):
        yield _block(number, number * size + source.first_row, rows, source.first_row)
        number += 1


def estimate(source: Source) -> int | None:
    """About how many rows there are; None where that is not quickly found."""
    sizes = [opened.estimate() for opened in open_source(source)]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def fingerprint(paths: Iterable[str]) -> list[dict[str, Any]]:
    """What tells whether the inputs have changed: of each its size, time and first bytes."""
    return [
        {"path": absolute(path), **({} if path == STDIN else _state(Path(path)))} for path in paths
    ]


def absolute(path: str) -> str:
    return path if path == STDIN else os.path.abspath(path)


def _state(path: Path) -> dict[str, Any]:
    digest, size, newest = hashlib.blake2b(digest_size=16), 0, 0
    files = sorted(tables.visible_files(path)) if path.is_dir() else [""]
    for name in files:
        try:
            found = os.stat(path / name)
        except OSError:  # a dangling link among images: it will be rejected
            digest.update(f"{name}\0gone\0".encode(errors="surrogateescape"))
            continue
        if name:
            described = f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0"
            digest.update(described.encode(errors="surrogateescape"))
        else:
            if path.is_file():  # a pipe would be used up
                with path.open("rb") as stream:
                    digest.update(stream.read(_HEAD))
        size, newest = size + found.st_size, max(newest, found.st_mtime_ns)
    return {"files": len(files), "bytes": size, "changed": newest, "digest": digest.hexdigest()}


def _rows(source: Source, start: int) -> Iterator[Row]:
    before = 0
    for opened in open_source(source):
        size = 0
        if start > before:
            size = opened.count()
            if before + size <= start:
                before += size
                continue
        for number, name, item, kept in opened.take(max(start - before, 0)):
            yield before + number, name, item, kept
            size = max(size, number + 1)
        before += size


def _block(number: int, start: int, rows: list[Row], first_row: int) -> Block:
    block = Block(number, start, len(rows))
    for row, name, item, kept in rows:
        if isinstance(item, Bad):
            reason = f"{item.where}: {item.reason}" if item.where else item.reason
            block.rejected.append({"row": row + first_row, "id": name, "reason": reason})
            continue
        block.items.append(item)
        block.rows.append(row + first_row)
        block.ids.append(row + first_row if name is None else name)
        block.kept.append(kept)
    return block


def _open(path: Path, source: Source) -> _Opened:
    plain.check_there(path)
    task = source.task
    files = media.in_folder(path, task) if task != "text" and path.is_dir() else []
    # as for calibration: beside images a table is about them
    table = None
    if task != "video" and not (files and not tables.saved(path)):
        table = tables.find(path, every=True)
    if table is not None:
        return _of_table(table, path, source)
    for name, given in (("column", source.column), ("id-column", source.id_column)):
        if given:
            raise RecipeError(f"--{name} {given!r} is for tables, and {str(path)!r} is none.")
    if source.keep:
        raise RecipeError(f"--keep {source.keep[0]!r} is for tables, and {str(path)!r} is none.")
    if task == "text":
        rows = plain.texts(path, lenient=True)

        def lines(start: int) -> Iterator[Row]:
            for number, values in rows.take(["line"], start=start):
                item = values if isinstance(values, Bad) else clean_text(values[0])
                yield number, None, item, []

        return _Opened(lines, rows.count, rows.estimate)
    if path.is_dir():
        if not files:
            raise media.nothing_in(path, task)
        return _Opened(
            lambda start: (
                (n, files[n], _named(path, files[n]), []) for n in range(start, len(files))
            ),
            lambda: len(files),
            lambda: len(files),
        )
    if path.suffix.lower() in (".npy", ".npz"):
        array = media.StreamedArray.open(path, task)
        return _Opened(
            lambda start: ((n, None, a, []) for n, a in enumerate(array.items(start), start)),
            lambda: array.shape[0],
            lambda: array.shape[0],
        )
    raise RecipeError(f"data {str(path)!r}: {media.wanted(task)}.")


def _of_table(table: tables.Table, path: Path, source: Source) -> _Opened:
    columns = table.rows.columns
    (column,) = tables.choose(columns, source.task, source.column, path, "--column", single=True)
    for option, name in (("--id-column", source.id_column), *(("--keep", k) for k in source.keep)):
        if name is not None and name not in columns:
            hint = nearest(name, columns)
            raise RecipeError(
                f"data {str(path)!r} has no column {name!r}, which {option} names.{hint} "
                f"It has: {', '.join(columns)}."
            )
        if name is not None and columns[name] == MEDIA:
            raise RecipeError(f"{option} {name!r}: that column holds files, not plain values.")
    names = list(dict.fromkeys([column, *filter(None, [source.id_column]), *source.keep]))

    def rows(start: int) -> Iterator[Row]:
        for number, values in table.rows.take(names, start=start):
            if isinstance(values, Bad):
                yield number, None, values, []
                continue
            found = dict(zip(names, values, strict=True))
            given = None if source.id_column is None else _id(found[source.id_column])
            item: Any
            if source.task == "text":
                item = clean_text(found[column])
            else:
                item = media.cell(found[column], table.folder)
            if isinstance(given, Bad):
                yield number, None, given, []
                continue
            kept = [_plain(found[name]) for name in source.keep]
            for name, value in zip(source.keep, kept, strict=True):
                if isinstance(value, Bad):
                    item = Bad(f"column {name!r}", value.reason)
            yield number, given, item, kept

    return _Opened(rows, table.rows.count, table.rows.estimate)


def _named(folder: Path, name: str) -> Path | Bad:
    """The file, if its name can be an id."""
    found = clean_text(name)
    return Bad("its name", found.reason) if isinstance(found, Bad) else folder / name


def _id(value: Any) -> int | str | Bad:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        found = clean_text(value)
        return Bad("its id", found.reason) if isinstance(found, Bad) else found
    kind = "null" if value is None else f"{type(value).__name__}, not a text or a whole number"
    return Bad("its id", kind)


def _plain(value: Any) -> Any:
    """A value that JSON has; dates and decimals become texts."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)


def _lines_of_stdin(start: int) -> Iterator[Row]:
    for number, line in enumerate(islice(sys.stdin.buffer, start, None), start):
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        yield number, None, clean_text(text), []

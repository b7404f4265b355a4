"""Rows of Parquet and Arrow files, with pyarrow."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, first_line, require
from edgessl.rows.base import MEDIA, TEXT, Bad, unreadable

_FILE_MAGIC = b"ARROW1"  # what an Arrow file begins with; an Arrow stream does not
_Group = tuple[int, Callable[[list[str]], Iterable[Any]]]  # rows, and its record batches


@dataclass(frozen=True)
class ArrowRows:
    """Read in record batches, and only those that hold a wanted row."""

    path: Path
    columns: Mapping[str, str]
    groups: Callable[[], Iterator[_Group]]

    def count(self) -> int:
        return sum(size for size, _ in self._guarded(self.groups()))

    def estimate(self) -> int | None:
        return self.count()

    def take(
        self, names: Sequence[str], wanted: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[tuple[int, list[Any] | Bad]]:
        rows = range(start, sys.maxsize) if wanted is None else wanted
        return self._guarded(self._take(list(names), rows))

    def _take(
        self, names: list[str], wanted: Sequence[int]
    ) -> Iterator[tuple[int, list[Any] | Bad]]:
        before = 0
        for size, batches in self.groups():
            if _within(wanted, before, before + size):
                start = before
                for batch in batches(names):
                    columns = [batch.column(name) for name in names]
                    end = start + batch.num_rows
                    for number in _within(wanted, start, end):
                        yield number, [column[number - start].as_py() for column in columns]
                    start = end
            before += size

    def _guarded(self, found: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from found
        except RecipeError:
            raise
        except Exception as err:  # pyarrow raises a dozen types of its own and Python's
            raise unreadable(self.path, first_line(err)) from err


def open_rows(path: Path) -> ArrowRows:
    """A Parquet file, or an Arrow file or stream (``datasets`` writes streams).

    Raises:
        MissingDependency: pyarrow is not installed.
        RecipeError: not such a file, or damaged.
    """
    purpose = f"reading {path.name}"
    pyarrow = require("pyarrow", "parquet", purpose)
    try:
        if path.suffix.lower() == ".parquet":
            parquet = require("pyarrow.parquet", "parquet", purpose)
            with parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
            return ArrowRows(path, _columns(pyarrow, schema), lambda: _parquet(parquet, path))
        ipc = require("pyarrow.ipc", "parquet", purpose)
        with pyarrow.memory_map(str(path)) as source, _reader(ipc, source) as reader:
            schema = reader.schema
        return ArrowRows(path, _columns(pyarrow, schema), lambda: _arrow(pyarrow, ipc, path))
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        raise unreadable(path, first_line(err)) from err


def _parquet(parquet: Any, path: Path) -> Iterator[_Group]:
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):

            def batches(names: list[str], group: int = group) -> Iterable[Any]:
                found: Iterable[Any] = file.iter_batches(1024, row_groups=[group], columns=names)
                return found

            yield file.metadata.row_group(group).num_rows, batches


def _arrow(pyarrow: Any, ipc: Any, path: Path) -> Iterator[_Group]:
    with pyarrow.memory_map(str(path)) as source, _reader(ipc, source) as reader:
        stream = not hasattr(reader, "num_record_batches")
        for batch in reader if stream else map(reader.get_batch, range(reader.num_record_batches)):

            def batches(names: list[str], batch: Any = batch) -> Iterable[Any]:
                chosen = batch.select(names)
                chosen.validate(full=True)  # pyarrow trusts the file: bad offsets end the process
                return [chosen]

            yield batch.num_rows, batches


def _reader(ipc: Any, source: Any) -> Any:
    magic = source.read(len(_FILE_MAGIC))
    source.seek(0)
    return ipc.open_file(source) if magic == _FILE_MAGIC else ipc.open_stream(source)


def _within(wanted: Sequence[int], start: int, end: int) -> Sequence[int]:
    return wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]


def _columns(pyarrow: Any, schema: Any) -> dict[str, str]:
    return {
        field.name: _kind(pyarrow.types, field.type)
        for field in schema
        if not field.name.startswith("__")  # pandas keeps its index there
    }


def _kind(types: Any, found: Any) -> str:
    if types.is_dictionary(found):
        found = found.value_type
    if types.is_string(found) or types.is_large_string(found) or str(found) == "string_view":
        return TEXT
    if types.is_binary(found) or types.is_large_binary(found):
        return MEDIA
    if types.is_struct(found) and any(
        field.name == "bytes" and _kind(types, field.type) == MEDIA for field in found
    ):
        return MEDIA  # as ``datasets`` has images and audio: {bytes, path}
    return str(found)

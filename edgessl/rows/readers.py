"""Rows of text, CSV, TSV, JSON Lines and JSON files, streamed with the standard library."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError
from edgessl.rows.base import TEXT, Bad
from edgessl.rows.encoding import opened

LINE = "line"  # the one column of a plain text file
_HEAD = 1000  # rows that decide what a column holds
_CHUNK = 1 << 20  # characters of a JSON list that are read at once
_LARGEST = 64 << 20  # characters that one element of a JSON list may have
_GAP = re.compile(r"[\s,]*")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Streamed:
    """Rows of a file that can only be read from its top."""

    columns: Mapping[str, str]
    read: Callable[[Sequence[str]], Iterator[list[Any] | Bad]]
    lines: Path | None = None  # the file, where most rows are a line of it

    def count(self) -> int:
        return sum(1 for _ in self.read(()))

    def estimate(self) -> int | None:
        if self.lines is None:
            return None
        with self.lines.open("rb") as stream:
            return sum(piece.count(b"\n") for piece in iter(lambda: stream.read(_CHUNK), b""))

    def take(
        self, names: Sequence[str], wanted: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[tuple[int, list[Any] | Bad]]:
        if wanted is None:
            yield from islice(enumerate(self.read(names)), start, None)
            return
        left = iter(wanted)
        following = next(left, None)
        for number, values in enumerate(self.read(names)):
            if following is None:
                return
            if number == following:
                yield number, values
                following = next(left, None)


def text_lines(path: Path, lenient: bool = False) -> Streamed:
    """A UTF-8 file with a text a line.

    *lenient*, here and below: bytes that are not UTF-8 become lone surrogates, which
    ``clean_text`` names, instead of ending the whole file.
    """

    def read(_: Sequence[str]) -> Iterator[list[Any] | Bad]:
        with opened(path, lenient=lenient) as stream:
            for line in stream:
                yield [line.rstrip("\n")]

    return Streamed({LINE: TEXT}, read, path)


def delimited(path: Path, lenient: bool = False) -> tuple[Streamed, tuple[str, ...]]:
    """A CSV or TSV file, and notes about it.

    CSV: quoted as RFC 4180 has it; the separator is the commonest of ``, ; | TAB`` in the first
    line. TSV: a record a line, quotes are part of the text unless they surround all of it. A first
    line with a number in it is no header: the columns are then called 1, 2, ...
    """
    tabs = path.suffix.lower() in (".tsv", ".tab")
    with opened(path, lenient=lenient) as stream:
        counts = Counter(character for character in stream.readline() if character in ",;|\t")
    delimiter = "\t" if tabs or not counts else counts.most_common(1)[0][0]
    if not tabs and not counts:
        delimiter = ","

    def records() -> Iterator[tuple[int, list[str]] | Bad]:
        with opened(path, newline="", lenient=lenient) as stream:
            reader = (
                csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
                if tabs
                else csv.reader(stream, delimiter=delimiter, strict=True)
            )
            while True:
                before = reader.line_num
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as err:
                    # an open quote takes many lines with it: they count
                    lines = reader.line_num - before
                    yield Bad(f"line {before + 1}", str(err), max(lines, 1))
                    continue
                if row:
                    yield before + 1, [_unquoted(cell) for cell in row] if tabs else row

    first = next(records(), None)
    if first is None:
        return Streamed({}, lambda names: iter(())), ()
    if isinstance(first, Bad):
        raise RecipeError(f"data {str(path)!r}: its header cannot be read: {first}.")
    header = [cell.strip() for cell in first[1]]
    headless = _looks_like_data(header)
    notes: tuple[str, ...] = ()
    if headless:
        header = [str(number) for number in range(1, len(header) + 1)]
        notes = (f"{path.name} has no header line; its columns are called {', '.join(header)}",)

    def read(names: Sequence[str]) -> Iterator[list[Any] | Bad]:
        places = [header.index(name) for name in names]
        for record in islice(records(), 0 if headless else 1, None):
            if isinstance(record, Bad):
                yield record
            elif len(record[1]) != len(header):
                have = f"{len(record[1])} fields, the header has {len(header)}"
                yield Bad(f"line {record[0]}", have)
            else:
                yield [record[1][place] for place in places]

    head = [row for row in islice(read(header), _HEAD) if not isinstance(row, Bad)]
    columns = {
        name: _held([row[place].strip() for row in head]) for place, name in enumerate(header)
    }
    return Streamed(columns, read, path), notes


def json_records(path: Path, lenient: bool = False) -> Streamed:
    """A .jsonl file, or a .json file with a list: of objects, or of texts.

    A .json file that holds JSON Lines is read as such.
    """
    with opened(path, lenient=lenient) as stream:
        listed = path.suffix.lower() == ".json" and stream.read(_CHUNK).lstrip()[:1] == "["
    kind = _list_records if listed else _line_records

    def source() -> Iterator[tuple[str, Any]]:
        return kind(path, lenient)

    def read(names: Sequence[str]) -> Iterator[list[Any] | Bad]:
        for where, record in source():
            if isinstance(record, str):
                record = {TEXT: record}
            if isinstance(record, Bad):
                yield record
            elif not isinstance(record, dict):
                yield Bad(where, f"{_called(record)}, not an object")
            elif missing := [name for name in names if name not in record]:
                yield Bad(where, f"has no {missing[0]!r}")
            else:
                yield [record[name] for name in names]

    return Streamed(_kinds(path, source), read, None if listed else path)


def _kinds(path: Path, source: Callable[[], Iterator[tuple[str, Any]]]) -> dict[str, str]:
    """What each key of the first records holds most often."""
    seen: dict[str, Counter[str]] = {}
    first = None
    for _, record in islice(source(), _HEAD):
        first = first if first is not None else record
        if isinstance(record, str):
            record = {TEXT: record}
        for name, value in record.items() if isinstance(record, dict) else ():
            counts = seen.setdefault(str(name), Counter())
            if value is not None:
                counts[_called(value)] += 1
    if not seen and first is not None:
        found = str(first) if isinstance(first, Bad) else f"it holds {_called(first)}"
        raise RecipeError(
            f"data {str(path)!r} is neither a JSON list of texts or objects nor JSON "
            f"Lines with an object a line: {found}."
        )
    return {
        name: max(counts, key=lambda k: counts[k], default="null") for name, counts in seen.items()
    }


def _line_records(path: Path, lenient: bool = False) -> Iterator[tuple[str, Any]]:
    with opened(path, lenient=lenient) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError):
                yield where, Bad(where, "not JSON")


def _list_records(path: Path, lenient: bool = False) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON list, of which only a chunk is in memory."""
    decode = json.JSONDecoder().raw_decode
    with opened(path, lenient=lenient) as stream:
        text, grow, number = stream.read(_CHUNK), _CHUNK, 0
        at = text.index("[") + 1
        while True:
            at = _after_gap(text, at)
            if text[at : at + 1] == "]":
                return
            try:
                value, end = decode(text, at)
            except (ValueError, RecursionError):
                end = len(text)
            if end < len(text):  # else it may go on: 12 at the end of a chunk, 34 in the next
                number += 1
                yield f"item {number}", value
                at, grow = end, _CHUNK
                continue
            chunk = stream.read(grow)
            if not chunk or len(text) - at > _LARGEST:
                raise RecipeError(
                    f"data {str(path)!r} is not a whole JSON list: item {number + 1} "
                    "is damaged, or the end is missing."
                )
            text, at, grow = text[at:] + chunk, 0, 2 * grow


def _after_gap(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at


def _called(value: object) -> str:
    if isinstance(value, str):
        return TEXT
    if isinstance(value, (bool, int, float)):
        return "numbers"
    return "lists" if isinstance(value, list) else "objects" if value is not None else "null"


def _held(cells: list[str]) -> str:
    """What a column of a CSV holds; where there are no rows it may be texts."""
    filled = [cell for cell in cells if cell]
    if cells and not filled:
        return "nothing"
    return "numbers" if filled and all(map(_number, filled)) else TEXT


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _looks_like_data(header: list[str]) -> bool:
    numbered = header in ([str(n + first) for n in range(len(header))] for first in (0, 1))
    return not numbered and any(cell and _number(cell) for cell in header)


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell

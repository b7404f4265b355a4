"""Calibration data: a file or folder -> a seeded sample of texts, images, audio or videos."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgessl.calibrate import draw, media
from edgessl.errors import RecipeError
from edgessl.rows import media as rows_media
from edgessl.rows import plain, readers, tables
from edgessl.rows.base import MOST_UNUSABLE, Bad, Rows
from edgessl.spec import Task

_LOOKED_AT = 1000  # lines that decide whether labels are mixed in
_LABELLED = {  # what is found in nearly every line -> what to do
    r"^__label__\S+\s|\s__label__\S+$": "remove the __label__ words",
    r"\t-?\d{1,2}$|^-?\d{1,2}\t": "call the file .tsv, and the text column is taken alone",
    r",-?\d{1,2}$|^-?\d{1,2},": "call the file .csv, and the text column is taken alone",
}


@dataclass(frozen=True)
class Calibration:
    """``items``: texts; paths of images, .wav files or folders of frames; encoded images or WAV
    files as bytes; or arrays: uint8 ``(H, W, 3)`` or ``(frames, H, W, 3)``, float32 or int16
    ``(samples,)``.

    ``sha256`` is over the content of the chosen items, so it names the data and not the file.

    Attributes:
        available: how many there were to draw from: distinct texts, files, rows.
        column: of the table, several with commas; None where there is no table.
        split: of the dataset; None where it has none.
        skipped: unusable ones that were left out: "name (reason)", the first 100.
        notes: what a user should know, a line each.
    """

    items: list[Any]
    source: str
    sha256: str
    available: int = 0
    column: str | None = None
    split: str | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        facts = {"source": self.source, "samples": len(self.items), "sha256": self.sha256}
        where = {"column": self.column, "split": self.split}
        return facts | {name: value for name, value in where.items() if value is not None}


def load(path: Path, task: Task, samples: int, seed: int, column: str | None = None) -> Calibration:
    """Draw *samples* distinct items from *path*, the same ones for the same *seed*.

    Texts: a UTF-8 file with a text a line; or a column of a table: .csv, .tsv, .jsonl, .json (a
    list), .parquet, .arrow, a folder that ``datasets`` saved, a folder of such files as on the
    hub. Drawn so that their lengths are spread as those of the whole are; of the texts alone does
    it depend which are drawn, not on their order or on repetitions.
    Images: a folder (searched recursively), an .npy/.npz with one uint8 array ``(n, H, W, 3)``,
    or a table. Audio: a folder of .wav files (searched recursively), an array ``(n, samples)``,
    float32 or int16, or a table. Videos: a folder in which each folder that holds images is a
    video, or a uint8 array ``(n, frames, H, W, 3)``.

    Unusable files and malformed rows are left out and replaced, up to ``MOST_UNUSABLE`` (a tenth)
    of those tried. Memory holds the items chosen, beside them 20 bytes of each text, the names of
    the files in a folder, or an .npz whole.

    Args:
        column: of a table; several with commas. None: its only one, one with a usual name (text,
            sentence, image, ...), or numbered ones together (sentence1, sentence2).

    Raises:
        RecipeError: nothing there, not readable, not for this task, too much of it unusable, or
            no way to tell which column.
        MissingDependency: Parquet or Arrow without pyarrow.
    """
    _check(path, samples)
    files = rows_media.in_folder(path, task) if task != "text" and path.is_dir() else []
    # Beside images or recordings a table is about them; only what datasets saved is the data.
    table = None if task == "video" or (files and not tables.saved(path)) else tables.find(path)
    if table is None and column:
        raise RecipeError(
            f"--calibration-column {column!r} is for tables, and {str(path)!r} is none "
            f"({', '.join(tables.SUFFIXES)}, or a folder of them)."
        )
    flag = "--calibration-column"
    names = tables.choose(table.rows.columns, task, column, path, flag) if table else []
    notes: list[str] = []
    if table is None:
        drawn, notes = _without_table(path, task, files, samples, seed)
    elif task == "text":
        drawn = draw.texts(table.rows, names, samples, seed)
    else:
        drawn = media.from_rows(table.rows, names, table.folder, task, samples, seed)
    if table is not None:
        kind = table.rows.columns[names[0]]
        others = [n for n, k in table.rows.columns.items() if k == kind and n not in names]
        if others and not column:
            notes = [f"took the column {','.join(names)}; there are also {', '.join(others)}"]
        notes = [*table.notes, *notes]
    _check_enough(drawn, path, task)
    return Calibration(
        items=drawn.items,
        source=path.name or path.resolve().name,
        sha256=_sha256(drawn.items),
        available=drawn.available,
        column=",".join(names) or None,
        split=table.split if table else None,
        skipped=tuple(map(str, drawn.tally.named)),
        notes=(*notes, *_notes(drawn, task, samples)),
    )


def of(items: list[Any], source: str, available: int) -> Calibration:
    """Items that were not drawn from a file."""
    return Calibration(items, source, _sha256(items), available)


def _check(path: Path, samples: int) -> None:
    if samples < 1:
        raise RecipeError(f"calibration samples must be at least 1, not {samples}.")
    plain.check_there(path)


def _without_table(
    path: Path, task: Task, files: list[str], samples: int, seed: int
) -> tuple[draw.Drawn, list[str]]:
    suffix = path.suffix.lower()
    if task == "text":
        rows = plain.texts(path)
        return draw.texts(rows, [readers.LINE], samples, seed), _labels(rows)
    if path.is_dir():
        if not files:
            raise rows_media.nothing_in(path, task)
        return media.from_folder(path, files, task, samples, seed), []
    if suffix in (".npy", ".npz"):
        return media.from_array(path, task, samples, seed), []
    raise RecipeError(f"calibration data {str(path)!r}: {rows_media.wanted(task)}.")


def _labels(rows: Rows) -> list[str]:
    """A note, where nearly every line of a text file seems to have a label in it."""
    head = [
        values[0].strip()
        for _, values in islice(rows.take([readers.LINE]), _LOOKED_AT)
        if not isinstance(values, Bad)
    ]
    lines = [line for line in head if line]
    for pattern, suffix in _LABELLED.items():
        found = sum(bool(re.search(pattern, line)) for line in lines)
        if len(lines) >= 10 and found >= 0.9 * len(lines):
            return [
                f"{found} of the first {len(lines)} lines have what looks like a label, and it is "
                f"calibrated on as text; {suffix}"
            ]
    return []


def _check_enough(drawn: draw.Drawn, path: Path, task: Task) -> None:
    tally = drawn.tally
    if tally.bad and tally.too_many:
        tried, unit = tally.bad + tally.good, "rows" if task == "text" else rows_media.NAMES[task]
        more = ", ..." if tally.bad > 3 else ""
        raise RecipeError(
            f"calibration data {str(path)!r}: {tally.bad} of {tried} {unit} tried "
            f"({tally.bad / tried:.0%}) cannot be used, more than {MOST_UNUSABLE:.0%}: "
            f"{', '.join(map(str, tally.named[:3]))}{more}. Remove or repair them."
        )
    if not drawn.items:
        raise RecipeError(f"calibration data {str(path)!r} holds no {rows_media.NAMES[task]}.")


def _notes(drawn: draw.Drawn, task: Task, samples: int) -> list[str]:
    notes, tally, count = [], drawn.tally, len(drawn.items)
    if tally.bad:
        named = ", ".join(map(str, tally.named[:3])) + (", ..." if tally.bad > 3 else "")
        unit = "rows" if task == "text" else rows_media.NAMES[task]
        notes.append(
            f"left out {tally.bad} of {tally.bad + tally.good} {unit} tried, which cannot be used: "
            f"{named}"
        )
    if count == 1:
        notes.append(
            f"there is one {rows_media.NAMES[task][:-1]} to calibrate on: what others need beyond its "
            "range is cut off. A few hundred are better"
        )
    elif count < samples:
        notes.append(
            f"there are {count} distinct {rows_media.NAMES[task]}, not {samples}; took them all"
        )
    return notes


def _sha256(items: list[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        for content in media.contents(item):
            digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()

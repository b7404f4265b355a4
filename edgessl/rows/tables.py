"""Which files of a path are a table, which split of a dataset, and which of its columns."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, nearest
from edgessl.rows import arrow_rows, readers
from edgessl.rows.base import MEDIA, TEXT, Chained, Rows, unreadable
from edgessl.spec import Task

# In this order: the first that a folder has is what it is read as.
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".json")
PACKED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")

# Column names that say what they are; the first of these that a table has is taken.
_TEXTS = "text texts sentence sentences content document body review comment tweet".split()
_MEDIA = {
    "image": "image img picture photo file_name filename path file".split(),
    "audio": "audio speech file_name filename path file".split(),
}
_HELD_OUT = re.compile(r"(^|[/_.-])(test|validation|valid|val|dev|eval)([/_.-]|$)", re.I)
_TRAIN = re.compile(r"(^|[/_.-])train([/_.-]|$)", re.I)


@dataclass(frozen=True)
class Table:
    """Rows, the folder that paths in them are relative to, and what to tell the user."""

    rows: Rows
    folder: Path
    split: str | None = None
    notes: tuple[str, ...] = ()


def saved(path: Path) -> bool:
    """Whether ``datasets`` wrote this folder."""
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def find(path: Path, every: bool = False) -> Table | None:
    """The table that *path* is: a file, or a folder as ``datasets`` or the hub lays it out.

    Of several splits the training one; with *every* all of them, and rows that are not UTF-8 are
    kept, to be named one by one.

    Returns:
        None where there is no table.

    Raises:
        RecipeError: not readable, damaged, or a table inside an archive.
        MissingDependency: pyarrow is needed and not installed.
    """
    if path.is_file() and path.suffix.lower() in PACKED:
        tool = PACKED[path.suffix.lower()]
        raise RecipeError(f"data {str(path)!r} is compressed; unpack it: {tool} {path}")
    if not path.is_dir():
        return _open([path], path.parent, every) if path.suffix.lower() in SUFFIXES else None
    if (path / "dataset_dict.json").is_file():
        splits = _listed(path / "dataset_dict.json", "splits")
        if every:
            return _open([file for split in splits for file in _data_files(path / split)], path)
        split = _best(splits) if splits else ""
        if not (path / split / "state.json").is_file():
            raise unreadable(path, f"its split {split!r} is missing")
        found = _saved(path / split)
        others = ", ".join(name for name in splits if name != split)
        notes = (
            (f"took the split {split!r} of {path.name}; it also has {others}",) if others else ()
        )
        return replace(found, split=split, notes=notes + found.notes)
    if (path / "state.json").is_file():
        return _saved(path)
    return _hub(path, every)


def choose(
    columns: Mapping[str, str],
    task: Task,
    asked: str | None,
    path: Path,
    option: str = "--column",
    single: bool = False,
) -> list[str]:
    """Names of the columns to take from a table with *columns* (name -> kind); one if *single*.

    *option* is what messages tell the user to give.

    Raises:
        RecipeError: *asked* is not there or holds something else, or nothing says which to take.
    """
    texts = [name for name, kind in columns.items() if kind == TEXT]
    media = [name for name, kind in columns.items() if kind == MEDIA]
    usable = texts if task == "text" else media + texts
    where, has = f"data {str(path)!r}", ", ".join(columns) or "no columns"
    if asked:
        whole = single or asked in columns
        names = [asked] if whole else [name.strip() for name in asked.split(",")]
        for name in names:
            if name not in columns:
                hint = nearest(name, columns)
                raise RecipeError(f"{where} has no column {name!r}.{hint} It has: {has}.")
            if name not in usable:
                raise RecipeError(
                    f"{where}: column {name!r} holds {columns[name]}, not {_wanted(task)}. Columns "
                    f"that do: {', '.join(usable) or 'none; make one that does'}."
                )
        return names
    if not usable:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "no columns"
        raise RecipeError(f"{where} has no column of {_wanted(task)}. It has: {kinds}.")
    likely = media if media else usable
    if len(likely) == 1:
        return likely
    by_name = {name.lower(): name for name in reversed(likely)}
    for name in _TEXTS if task == "text" else _MEDIA[task]:
        if name in by_name:
            return [by_name[name]]
    series = [] if single else _series(likely)
    if series:
        return series
    several = "" if single else f", or several: {option} {','.join(likely[:2])}"
    raise RecipeError(
        f"{where} has several columns of {_wanted(task)} ({', '.join(likely)}); say which: "
        f"{option} {likely[0]}{several}"
    )


def _wanted(task: Task) -> str:
    if task == "text":
        return "texts"
    return f"{task} files (their bytes, {{bytes, path}} or paths)"


def _series(names: list[str]) -> list[str]:
    """Columns of one name and a number (sentence1, sentence2), where there is one such name."""
    stems: dict[str, list[str]] = {}
    for name in names:
        found = re.fullmatch(r"(.*[^\d_])_?\d", name)
        if found:
            stems.setdefault(found[1], []).append(name)
    several = [group for group in stems.values() if len(group) > 1]
    return several[0] if len(several) == 1 else []


def _best(splits: list[str]) -> str:
    for split in splits:
        if _TRAIN.search(split):
            return split
    return next((split for split in splits if not _HELD_OUT.search(split)), splits[0])


def _saved(path: Path) -> Table:
    """What ``datasets.Dataset.save_to_disk`` wrote."""
    return _open(_data_files(path), path)


def _data_files(path: Path) -> list[Path]:
    if _listed(path / "state.json", "_indices_data_files", required=False):
        raise RecipeError(
            f"data {str(path)!r} was saved with a selection of rows that edgessl does "
            "not apply. Save it again with a newer datasets (2.0 or later)."
        )
    names = [entry["filename"] for entry in _listed(path / "state.json", "_data_files")]
    if not names:
        raise RecipeError(f"data {str(path)!r} has no rows.")
    return [path / name for name in names]


def _listed(path: Path, key: str, required: bool = True) -> list[Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data[key] if required else data.get(key)
        return list(found or [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise unreadable(path, f"no list {key!r} in it") from err


def _hub(path: Path, every: bool) -> Table | None:
    files = sorted(visible_files(path))
    for suffix in SUFFIXES:
        same = [name for name in files if name.lower().endswith(suffix)]
        same = [name for name in same if name.rpartition("/")[2] not in _ABOUT]
        if not same:
            continue
        if every:
            _check_one_kind(path, files)
            return _open([path / name for name in same], path, every)
        train = [name for name in same if _TRAIN.search(name)]
        kept = train or [name for name in same if not _HELD_OUT.search(name)] or same
        table = _open([path / name for name in kept], path)
        notes = []
        if len(kept) < len(same):
            notes.append(
                f"took {_few(kept)} of {path.name} and left out {_few(set(same) - set(kept))}"
            )
        return replace(table, split="train" if train else None, notes=(*notes, *table.notes))
    packed = [name for name in files if Path(name).suffix.lower() in PACKED]
    if packed:
        raise RecipeError(
            f"data {str(path)!r} has nothing to read but compressed files "
            f"({_few(packed)}); unpack them."
        )
    return None


def _check_one_kind(path: Path, files: list[str]) -> None:
    """Where every row counts, a folder of several kinds of table has no clear meaning."""
    data = [name for name in files if name.rpartition("/")[2] not in _ABOUT]
    kinds = sorted({Path(name).suffix.lower() for name in data} & {*SUFFIXES})
    if len(kinds) > 1:
        raise RecipeError(
            f"data {str(path)!r} holds tables of several kinds ({', '.join(kinds)}). Name the "
            "files that are meant."
        )


def _few(names: Any) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def visible_files(folder: Path) -> Iterator[str]:
    """Every file below *folder*, relative to it with ``/``; none that is or lies in a hidden one."""
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(at).relative_to(folder).as_posix()
        for name in files:
            if not name.startswith("."):
                yield name if inside == "." else f"{inside}/{name}"


def _open(files: list[Path], folder: Path, lenient: bool = False) -> Table:
    parts: dict[str, Rows] = {}
    notes: tuple[str, ...] = ()
    for file in files:
        suffix = file.suffix.lower()
        if file.is_file() and not file.stat().st_size:
            continue
        if suffix in (".parquet", ".arrow"):
            rows: Rows = arrow_rows.open_rows(file)
        elif suffix in (".csv", ".tsv", ".tab"):
            rows, about = readers.delimited(file, lenient)
            notes += about
        else:
            rows = readers.json_records(file, lenient)
        parts[file.relative_to(folder).as_posix()] = rows
    if not parts:
        raise RecipeError(f"data {str(files[0])!r} is empty.")
    rows = next(iter(parts.values())) if len(parts) == 1 else Chained(parts)
    return Table(rows, folder, notes=notes)

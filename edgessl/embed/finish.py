"""The end of a job: its parts joined, described, and made ready to be put in their places."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import edgessl
from edgessl.embed import dtypes, parts, vectors, writers
from edgessl.embed.parts import Entry
from edgessl.embed.plan import Plan
from edgessl.embed.writers import Chunk, Whole
from edgessl.errors import RecipeError
from edgessl.staging import fsync


def join(
    folder: Path, asked: Plan, resumed: int, began: float, command: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of the output into the job directory, with a note of where they go.

    Returns:
        What ``job.run`` returns; after this ``parts.publish`` ends the job.

    Raises:
        RecipeError: there is not one vector, or ids that do not go with those that are there.
        OutputError: a part is damaged.
    """
    entries = parts.listed(folder)
    count = sum(entry.rows - entry.rejected for entry in entries)
    there = asked.appended
    if not count and not there:
        raise RecipeError(f"{', '.join(asked.source.paths)} holds no rows to embed.")
    texts, length, kinds = _survey(entries, asked)
    metadata = _metadata(folder, entries, asked, count, texts)

    def chunks() -> Iterator[Chunk]:
        if there:
            for ids, kept, stored in vectors.chunks(asked.output):
                yield Chunk(ids, kept, stored)
        for entry in entries:
            part = parts.read(entry)
            yield Chunk(part.ids, part.kept, part.vectors)

    done = folder / parts.DONE
    parts.remove_tree(done)
    done.mkdir()
    keep = {name: writers.kind_of(kinds[name]) for name in asked.source.keep}
    whole = Whole(metadata["rows"], metadata, chunks, texts, length, keep)
    places = writers.write(whole, done, asked.output)
    rejected = sum(entry.rejected for entry in entries)
    if _write_rejected(entries, asked, done / "rejected"):
        places = {"rejected": writers.rejected_beside(asked.output), **places}
    for path in [*done.iterdir(), done]:
        fsync(str(path))
    facts = summary(asked, metadata, began)
    facts |= {"embedded": count, "rejected": rejected, "resumed": resumed}
    fresh = sum(entry.rows for entry in entries) - resumed
    facts["rows_per_second"] = round(fresh / max(facts["seconds"], 1e-3), 1)
    facts["rejected_path"] = str(writers.rejected_beside(asked.output)) if rejected else None
    unused = set(writers.beside(asked.output)) - set(places.values())
    parts.write_json(
        folder / parts.PUBLISH,
        {
            "command": command,
            "summary": facts,
            "files": {name: path.name for name, path in places.items()},
            "remove": sorted(path.name for path in unused),
        },
    )
    return facts


def summary(asked: Plan, metadata: dict[str, Any], began: float) -> dict[str, Any]:
    """What a job tells of a file with *metadata*; of one that added nothing to it."""
    return {
        "path": str(asked.output),
        "rows": metadata["rows"],
        "embedded": 0,
        "rejected": 0,
        "resumed": 0,
        "rejected_path": None,
        "seconds": round(time.monotonic() - began, 3),
        "rows_per_second": 0.0,
        **{name: metadata[name] for name in ("variant", "dtype", "dimensions", "recall")},
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The summary for a person."""
    added = "" if found["embedded"] == found["rows"] else f", {found['embedded']:,} of them new"
    yield (
        f"vectors  {found['path']}  ({found['rows']:,} x {found['dimensions']} "
        f"{found['dtype']}{added})"
    )
    speed = f", {found['rows_per_second']:,.0f} rows/s" if found["rows_per_second"] else ""
    again = f", after {found['resumed']:,} rows of an earlier run" if found["resumed"] else ""
    yield f"time     {found['seconds']:.1f} s{speed}{again}"
    yield f"variant  {found['variant']}"
    recall = found["recall"]
    if recall and recall["recall_at_10"] is not None:
        bits = recall.get("recall_at_10_bits")
        also = f" ({bits:.4f} with the queries in bits, too)" if bits is not None else ""
        yield (
            f"recall   {recall['recall_at_10']:.4f} of the 10 nearest in float32 are found{also}; "
            f"{recall['queries']} queries among {recall['vectors']:,} of these vectors"
        )
    if found["rejected"]:
        yield f"rejected {found['rejected']:,} rows, listed in {found['rejected_path']}"


def check_rejected(folder: Path, asked: Plan, rows: int, rejected: int) -> None:
    """Raise a ``RecipeError`` where too large a share of the *rows* so far has no vector."""
    if rejected <= asked.max_rejected * rows:
        return
    path = writers.rejected_beside(asked.output)
    entries = parts.listed(folder)
    temporary = folder / "rejected"
    _write_rejected(entries, asked, temporary)
    os.replace(temporary, path)
    first: list[str] = []
    for entry in entries:
        if entry.rejected and len(first) < 3:
            first += [f"row {bad['row']} ({bad['reason']})" for bad in parts.read(entry).rejected]
    more = ", ..." if rejected > 3 else ""
    raise RecipeError(
        f"{rejected:,} of {rows:,} rows ({rejected / rows:.1%}) cannot be embedded, more than "
        f"--max-rejected {asked.max_rejected:g}: {', '.join(first[:3])}{more}. {path} lists them. "
        "Repair them, or allow more: the same command with a larger --max-rejected goes on."
    )


def check_ids(asked: Plan, ids: list[int | str]) -> None:
    """Raise a ``RecipeError`` where *ids* are texts, to be added to numbers."""
    there = asked.appended
    numbers = there is not None and there["rows"] and there["ids"] == "int64"
    if numbers and any(isinstance(name, str) for name in ids):
        raise RecipeError(
            f"the ids in {asked.output} are numbers, these are texts: give --id-column a column of "
            "whole numbers, or name another output."
        )


def _survey(entries: list[Entry], asked: Plan) -> tuple[bool, int, dict[str, set[str]]]:
    """Whether ids are texts, the longest one's characters, and the kinds of the kept columns."""
    texts, length = False, 0
    kinds: dict[str, set[str]] = {name: set() for name in asked.source.keep}
    there = asked.appended

    def look(ids: list[int | str], kept: list[list[Any]]) -> None:
        nonlocal texts, length
        texts = texts or any(isinstance(name, str) for name in ids)
        length = max(length, max((len(str(name)) for name in ids), default=0))
        for place, name in enumerate(kinds):
            kinds[name] |= writers.kinds_in([row[place] for row in kept])

    for entry in entries:
        part = parts.read(entry)
        look(part.ids, part.kept)
    if there is None:
        return texts, length, kinds
    for ids, kept, _ in vectors.chunks(asked.output):
        look(ids, kept)
    return texts or there["ids"] == "text", length, kinds


def _metadata(
    folder: Path, entries: list[Entry], asked: Plan, count: int, texts: bool
) -> dict[str, Any]:
    there = asked.appended or {"rows": 0, "rows_read": 0, "rejected": 0, "inputs": []}
    scales = None
    if asked.dtype == "int8":
        scales = parts.scales(folder, np.zeros((1, asked.dimensions), np.float32)).tolist()
    recall: dict[str, Any] | None = None
    if asked.dtype != "float32":
        found = parts.sampled(entries, asked.dimensions)
        recall = dtypes.recall(
            found, asked.dtype, None if scales is None else np.array(scales, np.float32)
        )
    return {
        "format": vectors.FORMAT,
        **asked.space,
        "task": asked.manifest.encoder.task,
        "source": asked.manifest.provenance.source,
        "edgessl": edgessl.__version__,
        "rows": there["rows"] + count,
        "rows_read": there["rows_read"] + sum(entry.rows for entry in entries),
        "rejected": there["rejected"] + sum(entry.rejected for entry in entries),
        "ids": "text" if texts else "int64",
        "scales": scales,
        "recall": recall,
        "inputs": [*there["inputs"], *asked.marks()],
    }


def _write_rejected(entries: list[Entry], asked: Plan, path: Path) -> bool:
    """List all rows without a vector, those of earlier jobs first. False: there are none."""
    before = writers.rejected_beside(asked.output)
    wrote = False
    with path.open("wb") as stream:
        if asked.appended and asked.appended["rejected"] and before.is_file():
            with before.open("rb") as old:
                lines = (line for line in old if _row_of(line) < asked.source.first_row)
                for line in lines:
                    stream.write(line)
                    wrote = True
        for entry in entries:
            if not entry.rejected:
                continue
            for bad in parts.read(entry).rejected:
                stream.write(f"{json.dumps(bad, ensure_ascii=False)}\n".encode(errors="replace"))
                wrote = True
    if not wrote:
        path.unlink()
    return wrote


def _row_of(line: bytes) -> int:
    return int(json.loads(line)["row"])

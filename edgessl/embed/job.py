"""The job of ``edgessl embed``: rows in, parts, one file of vectors out.

``pending``, ``embedded`` and ``parts.write`` are the three steps of a block, each with plain data
in and out: ``ray_engine`` calls the second in processes of its own.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgessl
from edgessl import interrupts
from edgessl.embed import dtypes, finish, inputs, parts, plan
from edgessl.embed.inputs import Block
from edgessl.embed.parts import Part
from edgessl.embed.plan import Plan
from edgessl.errors import EdgesslError, OutputError, RecipeError
from edgessl.progress import Steps
from edgessl.write_errors import explain, is_about_writing

if TYPE_CHECKING:
    from edgessl.embed.ray_engine import Cluster
    from edgessl.runtimes.session import Session

FIRST_VERDICT = 1000  # rows after which the share of rejected ones is first looked at
Scales = Callable[[dtypes.Vectors], dtypes.Vectors]
Embedded = tuple[Block, dtypes.Vectors, dict[int, str]]


def run(
    bundle: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    restart: bool = False,
    report: Steps | None = None,
    cluster: Cluster | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Embed every row of *paths* with *bundle* into *output*, or go on with a job that stopped.

    Args:
        bundle: a bundle's directory.
        paths: files or folders, as docs/embed.md says; ``["-"]``: lines of standard input.
        output: a .parquet, .npz, .npy or .jsonl.
        restart: forget what a stopped job has done.
        cluster: embed on a Ray cluster; None: in this process.
        **options: those of ``edgessl.embed.plan.make``; ``device``, ``threads`` and ``streams`` of
            ``edgessl.load``; fields of ``edgessl.runtimes.options.InputOptions``.

    Returns:
        ``path``; ``rows`` of it; ``embedded`` and ``rejected`` by this job, ``resumed`` of them
        done by an earlier run; ``rejected_path``; ``seconds``, ``rows_per_second`` of this run;
        ``variant``, ``dtype``, ``dimensions``, ``recall``.

    Raises:
        RecipeError: inputs, options, a changed input, too many rows that cannot be embedded, or
            vectors of another variant to append to.
        OutputError: *output* exists, is being written by another process, or cannot be written.
        BundleError, MissingDependency, Unsupported: as ``edgessl.load``.
    """
    steps = report or Steps(quiet=True)
    began = time.monotonic()
    # a link is kept, and what it points to is written
    target = Path(os.path.realpath(output) if os.path.islink(output) else output)
    command = plan.command(bundle, paths, options)
    with parts.claimed(target) as (folder, finished):
        if finished is not None and finished["command"] == command:
            return dict(finished["summary"])
        asked = plan.make(bundle, paths, target, command["inputs"], **options)
        if asked.is_done:
            return finish.summary(asked, asked.appended or {}, began)
        identity = asked.identity()
        try:
            resumed = _begin(folder, asked, identity, restart)
            if resumed:
                steps(f"going on after {resumed:,} rows that are done")
            interrupts.leaves(lambda: safe(folder))
            _embed(folder, asked, steps, cluster)
            steps("joining the parts")
            if changes := plan.differences(asked.again().identity(), identity):
                raise RecipeError(
                    f"the input changed while it was read: {'; '.join(changes)}. Begin anew with "
                    "--restart."
                )
            summary = finish.join(folder, asked, resumed, began, command)
            parts.publish(folder)
            interrupts.leaves(None)
            return summary
        except OSError as err:
            if not is_about_writing(err, folder):
                raise
            raise OutputError(explain(err, folder, target, safe(folder))) from err
        finally:
            if asked.source.is_stdin:  # what came from there cannot be read again
                parts.clear(folder)


def pending(asked: Plan, done: Collection[int]) -> Iterator[Block]:
    """The blocks of rows that are not *done*, in order."""
    first = next(number for number in range(len(done) + 1) if number not in done)
    for block in inputs.blocks(asked.source, asked.block_rows, first):
        if block.number not in done:
            yield block


def open_session(asked: Plan) -> Session:
    return edgessl.load(asked.bundle, mode="throughput", **asked.options)


def embedded(session: Session, blocks: Iterable[Block]) -> Iterator[Embedded]:
    """Embed a stream of blocks: for each, in their order, the block without its items, its vectors
    ``(n, d)`` and, by the place of an item that was refused, why."""
    waiting: deque[tuple[int, Block]] = deque()  # with the index of its first item over all blocks
    refused: dict[int, str] = {}

    def feed() -> Iterator[list[Any]]:
        count = 0
        for block in blocks:
            waiting.append((count, replace(block, items=[])))
            count += len(block.items)
            yield block.items

    def refuse(index: int, error: EdgesslError) -> None:
        # an index into this run would mean nothing later: the row's number stands beside it
        refused[index] = re.sub(rf"^(\w+) {index}\b", r"\1", str(error))

    for vectors in session.embed_blocks(feed(), refuse):
        first, block = waiting.popleft()
        own = {
            row: refused.pop(first + row) for row in range(len(vectors)) if first + row in refused
        }
        yield block, vectors, own


def make_part(
    asked: Plan, block: Block, vectors: dtypes.Vectors, refused: dict[int, str], scales: Scales
) -> Part:
    """The part of *block*: *vectors* of its items as they are stored, without the *refused* ones.

    A vector that is not finite is refused, too: no file of vectors has any.
    """
    finite = np.isfinite(vectors).all(axis=1)
    reasons = {row: "the encoder gave no finite vector" for row in np.flatnonzero(~finite).tolist()}
    reasons |= refused
    good = [row for row in range(len(vectors)) if row not in reasons]
    rejected = block.rejected + [
        {
            "row": block.rows[row],
            "id": None if block.ids[row] == block.rows[row] else block.ids[row],
            "reason": reason,
        }
        for row, reason in reasons.items()
    ]
    kept = vectors[good]
    if len(kept):
        steps = scales(kept) if asked.dtype == "int8" else None
        stored = dtypes.encode(kept, asked.dtype, steps)
    else:
        width = dtypes.width(asked.dtype, asked.dimensions)
        stored = np.empty((0, width), dtypes.stored(asked.dtype))
    exact = asked.dtype == "float32"
    return Part(
        number=block.number,
        rows=block.size,
        ids=[block.ids[row] for row in good],
        kept=[block.kept[row] for row in good],
        rejected=sorted(rejected, key=lambda entry: int(entry["row"])),
        vectors=stored,
        sample=kept[:0] if exact else parts.sample(block.number, kept),
    )


def safe(folder: Path) -> str:
    """What a stopped job leaves, for a message."""
    rows = sum(entry.rows for entry in parts.listed(folder)) if folder.is_dir() else 0
    if not rows:
        return "nothing was written"
    return f"{rows:,} rows are safe in {folder.name}, and the same command goes on"


def _begin(folder: Path, asked: Plan, identity: dict[str, Any], restart: bool) -> int:
    """Make the job directory ready: rows that are done already.

    Raises:
        RecipeError: a stopped job was asked for something else.
    """
    there = parts.read_json(folder / parts.JOB) if not restart else None
    if there is None or asked.source.is_stdin:
        parts.clear(folder)
        if asked.appended and asked.appended["scales"]:
            parts.set_scales(folder, np.array(asked.appended["scales"], np.float32))
        parts.write_json(folder / parts.JOB, {"identity": identity})
        return 0
    rows = sum(entry.rows for entry in parts.listed(folder))
    if changes := plan.differences(identity, there["identity"]):
        raise RecipeError(
            f"a job for {asked.output} was stopped after {rows:,} rows, and it differs: "
            f"{'; '.join(changes)}. Give its own command to go on with it, or --restart to begin "
            "anew."
        )
    return rows


def _embed(folder: Path, asked: Plan, steps: Steps, cluster: Cluster | None) -> None:
    entries = parts.listed(folder)
    rows = sum(entry.rows for entry in entries)
    rejected = sum(entry.rejected for entry in entries)
    done = {entry.number for entry in entries}
    waiting = pending(asked, done)
    first = next(waiting, None)
    if first is not None:
        steps(f"opening {asked.bundle}")
        total = inputs.estimate(asked.source)
        with _results(asked, done, chain([first], waiting), cluster) as results:
            steps("embedding")
            steps.count(rows, total, "rows")
            looked = False
            for block, vectors, refused in results:
                part = make_part(asked, block, vectors, refused, lambda v: parts.scales(folder, v))
                finish.check_ids(asked, part.ids)
                parts.write(folder, part)
                rows, rejected = rows + part.rows, rejected + len(part.rejected)
                steps.count(rows, max(total, rows) if total is not None else None, "rows")
                if rows >= FIRST_VERDICT and not looked:
                    finish.check_rejected(folder, asked, rows, rejected)
                    looked = True
    finish.check_rejected(folder, asked, rows, rejected)


@contextmanager
def _results(
    asked: Plan, done: Collection[int], blocks: Iterable[Block], cluster: Cluster | None
) -> Iterator[Iterator[Embedded]]:
    """*blocks*, which are those not *done*, embedded: here, or on a cluster."""
    if cluster is None:
        with open_session(asked) as session:
            yield embedded(session, blocks)
        return
    from edgessl.embed import ray_engine

    with ray_engine.results(asked, done, cluster) as results:
        yield results

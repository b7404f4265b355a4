"""The job directory, ``.OUT.job``: what a stopped job has done, and nothing half done.

Every block of rows is a part file, ``part-NUMBER-ROWS-REJECTED.npz``, written under another name,
flushed to the disk and renamed: it is there whole or not at all. ``job.json`` says what the parts
were made of. When all are there they are joined into ``done/``, and ``publish.json`` lists where
its files go: from then on the job is finished, whoever moves them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.embed import dtypes
from edgessl.errors import OutputError
from edgessl.staging import fsync, lock_directory

_PART = re.compile(r"part-(\d{8})-(\d+)-(\d+)\.npz")
_TRASH = "trash"
JOB, SCALES, DONE, PUBLISH = "job.json", "scales.npy", "done", "publish.json"
_SMALLEST_SAMPLE = 32


@dataclass(frozen=True)
class Part:
    """One block, embedded. ``vectors``: as stored; ``sample``: some of them in float32.

    ``ids``, ``kept``: of each vector. ``rejected``: rows without one.
    """

    number: int
    rows: int
    ids: list[int | str]
    kept: list[list[Any]]
    rejected: list[dict[str, Any]]
    vectors: npt.NDArray[Any]
    sample: dtypes.Vectors


@dataclass(frozen=True)
class Entry:
    """A part by its file's name."""

    number: int
    rows: int
    rejected: int
    path: Path


def write(folder: Path, part: Part) -> None:
    """Write *part* into the job directory *folder*; may be called from any process."""
    name = f"part-{part.number:08}-{part.rows}-{len(part.rejected)}.npz"
    meta = {"ids": part.ids, "kept": part.kept, "rejected": part.rejected}
    text = json.dumps(meta).encode()  # in ASCII: a file name may be half a surrogate pair
    with _replacing(folder / name) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            vectors=part.vectors,
            sample=part.sample,
            meta=np.frombuffer(text, np.uint8),
        )


def read(entry: Entry) -> Part:
    """Raises ``OutputError`` where the disk has lost it."""
    try:
        with (
            entry.path.open("rb") as stream,
            np.load(stream, allow_pickle=False) as archive,
        ):
            meta = json.loads(archive["meta"].tobytes())
            vectors, sample = archive["vectors"], archive["sample"]
    except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
        if isinstance(err, OSError) and err.errno:
            raise
        raise OutputError(
            f"{entry.path} is damaged. Remove it, and the same command makes it again."
        ) from err
    return Part(entry.number, entry.rows, vectors=vectors, sample=sample, **meta)


def listed(folder: Path) -> list[Entry]:
    """The parts that are done, by number."""
    found = {}
    for path in folder.iterdir():
        name = _PART.fullmatch(path.name)
        if name:
            number, rows, rejected = map(int, name.groups())
            found[number] = Entry(number, rows, rejected, path)
    return [found[number] for number in sorted(found)]


def scales(folder: Path, vectors: dtypes.Vectors) -> dtypes.Vectors:
    """The int8 scales of this job: fitted to the first *vectors* that it gets, then kept."""
    path = folder / SCALES
    if path.is_file():
        kept: dtypes.Vectors = np.load(path, allow_pickle=False)
        return kept
    fitted = dtypes.fit_scales(vectors)
    set_scales(folder, fitted)
    return fitted


def set_scales(folder: Path, fitted: dtypes.Vectors) -> None:
    with _replacing(folder / SCALES) as temporary, temporary.open("wb") as stream:
        np.save(stream, fitted)


def sample(number: int, vectors: dtypes.Vectors) -> dtypes.Vectors:
    """Vectors of part *number* for measuring recall, in an order in which every prefix is random.

    So many that equal shares of all parts, ``dtypes.SAMPLE`` in all, can be taken at the end.
    """
    order = np.random.default_rng(number).permutation(len(vectors))
    size = max(dtypes.SAMPLE // (number + 1) + 1, _SMALLEST_SAMPLE)
    chosen: dtypes.Vectors = vectors[order[:size]]
    return chosen


def sampled(entries: list[Entry], dimensions: int) -> dtypes.Vectors:
    """About ``dtypes.SAMPLE`` vectors, equally many of each part or of parts evenly spaced."""
    share = max(dtypes.SAMPLE // max(len(entries), 1), _SMALLEST_SAMPLE)
    step = max(len(entries) * share // dtypes.SAMPLE, 1)
    found = [read(entry).sample[:share] for entry in entries[::step]]
    return np.concatenate([np.empty((0, dimensions), np.float32), *found])


def location(output: Path) -> Path:
    return output.with_name(f".{output.name}.job")


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """The job directory of *output*, locked; removed at the end where it holds no work.

    What a finished job has not moved to its place is moved there first; its facts are the second
    value.

    Raises:
        OutputError: another process works on *output*, or the directory cannot be written.
    """
    folder = location(output)
    finished = None
    with contextlib.ExitStack() as stack:
        _lock(folder, output, stack)
        while (facts := publish(folder)) is not None:
            finished = facts
            stack.close()
            _lock(folder, output, stack)
        _sweep(folder)
        own = folder.stat()
        try:
            yield folder, finished
        finally:
            # once published it may be another process's
            mine = folder.is_dir() and os.path.samestat(own, folder.stat())
            if mine and not listed(folder) and not (folder / PUBLISH).is_file():
                discard(folder)


def _lock(folder: Path, output: Path, stack: contextlib.ExitStack) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_directory(folder)
    except FileExistsError as err:
        raise OutputError(f"{folder} is in the way: remove it.") from err
    except OSError as err:
        if folder.is_dir() and os.access(folder, os.W_OK):
            return  # a file system without locks (NFS)
        raise OutputError(
            f"cannot write {output}: {err.strerror or err} ({err.filename or folder}). Name an "
            "output in a directory that can be written."
        ) from err
    if lock is None:
        raise OutputError(f"another process is writing {output}. Wait for it, or stop it.")
    stack.callback(os.close, lock)


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left half done."""
    for path in folder.glob("*.tmp-*"):
        path.unlink(missing_ok=True)
    for path in folder.parent.glob(f"{folder.name}-{_TRASH}-*"):
        shutil.rmtree(path, ignore_errors=True)


def clear(folder: Path) -> None:
    """Empty the job directory, the description of the job last."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name == JOB):
        remove_tree(path) if path.is_dir() else path.unlink()


def remove_tree(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)


def discard(folder: Path) -> None:
    """Remove the job directory: renamed first, so that no half of it can pass for a job."""
    trash = folder.with_name(f"{folder.name}-{_TRASH}-{secrets.token_hex(4)}")
    os.rename(folder, trash)
    fsync(str(folder.parent))
    shutil.rmtree(trash, ignore_errors=True)


def write_json(path: Path, data: Any) -> None:
    with _replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote; None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise OutputError(f"{path} is damaged; --restart begins anew.") from err


def publish(folder: Path) -> dict[str, Any] | None:
    """Move a finished job's files to their places and remove it: its facts; None: not finished.

    Stopped at any point, the next call goes on.
    """
    facts: dict[str, Any] | None = read_json(folder / PUBLISH)
    if facts is None:
        return None
    for place in facts["remove"]:
        (folder.parent / place).unlink(missing_ok=True)
    for name, place in facts["files"].items():  # the vectors themselves come last
        if (folder / DONE / name).exists():
            os.replace(folder / DONE / name, folder.parent / place)
    fsync(str(folder.parent))
    discard(folder)
    return facts


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes *path*, flushed, when the block ends well."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        fsync(str(temporary))
        os.replace(temporary, path)
        fsync(str(path.parent))
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise

"""Files of vectors, read back: whole as float32, or in chunks as they are stored."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.embed import dtypes
from edgessl.errors import RecipeError, first_line, require

ID, VECTOR, METADATA = "id", "vector", "metadata.json"
FORMAT = 1
_CHUNK = 4096  # vectors that are read at once

Ids = npt.NDArray[Any]
Rows = tuple[list[int | str], list[list[Any]], npt.NDArray[Any]]


def read(path: str | os.PathLike[str]) -> tuple[Ids, dtypes.Vectors, dict[str, Any]]:
    """What ``edgessl embed`` wrote: ids, vectors and metadata.

    Args:
        path: a .parquet, .npz, .npy or .jsonl.

    Returns:
        ids ``(n,)``, int64 or, where they are texts, objects; vectors ``(n, dimensions)`` float32,
        decoded from what they are stored as (``metadata["dtype"]``); the metadata, see
        docs/embed.md.

    Raises:
        RecipeError: no such file, not one that edgessl wrote, or damaged.
        MissingDependency: Parquet without pyarrow.
    """
    file = Path(path)
    found = metadata(file)
    dimensions = found["dimensions"]
    vectors = np.empty((found["rows"], dimensions), np.float32)
    scales = None if found["scales"] is None else np.array(found["scales"], np.float32)
    ids: list[int | str] = []
    for names, _, stored in chunks(file):
        decoded = dtypes.decode(stored, found["dtype"], dimensions, scales)
        vectors[len(ids) : len(ids) + len(names)] = decoded
        ids += names
    if len(ids) != found["rows"]:
        raise RecipeError(f"{path}: {len(ids)} vectors, its metadata says {found['rows']}.")
    return np.array(ids, np.int64 if found["ids"] == "int64" else object), vectors, found


def metadata(path: Path) -> dict[str, Any]:
    """What the file says about itself: variant, dtype, dimensions, ...

    Raises:
        RecipeError: no such file, or not one that edgessl wrote.
    """
    if not path.is_file():
        raise RecipeError(f"no vectors at {str(path)!r}: there is no such file.")
    try:
        found = json.loads(_METADATA[path.suffix.lower()](path))
        if found["format"] != FORMAT:
            raise RecipeError(
                f"{path}: format {found['format']} of vectors, this edgessl reads {FORMAT}. Use "
                "the edgessl that wrote it."
            )
    except RecipeError:
        raise
    except ImportError:
        raise
    except Exception as err:  # json, zipfile and pyarrow raise a dozen unrelated types
        raise RecipeError(
            f"{path} is not a file of vectors that edgessl wrote ({first_line(err)})."
        ) from err
    return dict(found)


def chunks(path: Path) -> Iterator[Rows]:
    """(ids, kept values, vectors as stored) of some thousand rows at a time.

    Raises:
        RecipeError: the file is damaged.
    """
    found = metadata(path)
    try:
        yield from _CHUNKS[path.suffix.lower()](path, found)
    except (RecipeError, ImportError):
        raise
    except Exception as err:  # see metadata
        raise RecipeError(f"{path} is damaged ({first_line(err)}).") from err


def metadata_beside(path: Path) -> Path:
    """Where the metadata of an .npy or .jsonl is."""
    return path.with_name(f"{path.name}.json")


def ids_beside(path: Path, texts: bool) -> Path:
    """Where the ids of an .npy are: int64, or a JSON text a line."""
    return path.with_name(f"{path.stem}.ids{'.jsonl' if texts else '.npy'}")


def _in_archive(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(METADATA)


def _in_schema(path: Path) -> bytes:
    parquet = require("pyarrow.parquet", "parquet", f"reading {path.name}")
    found: bytes = parquet.read_schema(path).metadata[b"edgessl"]
    return found


def _beside(path: Path) -> bytes:
    return metadata_beside(path).read_bytes()


_METADATA = {
    ".parquet": _in_schema,
    ".npz": _in_archive,
    ".npy": _beside,
    ".jsonl": _beside,
}


def _npy(path: Path, found: dict[str, Any]) -> Iterator[Rows]:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    texts = found["ids"] != "int64"
    beside = ids_beside(path, texts)
    lines = beside.open(encoding="utf-8") if texts else None
    numbers = None if texts else np.load(beside, mmap_mode="r", allow_pickle=False)
    count = len(vectors)
    if count != found["rows"] or (numbers is not None and len(numbers) != count):
        raise RecipeError(f"{path} and the files beside it do not belong together.")
    try:
        for start in range(0, count, _CHUNK):
            stored = np.array(vectors[start : start + _CHUNK])
            if lines is not None:
                ids = [json.loads(next(lines)) for _ in range(len(stored))]
            else:
                ids = numbers[start : start + _CHUNK].tolist()  # type: ignore[index]
            yield ids, [[] for _ in ids], stored
    finally:
        if lines is not None:
            lines.close()


def _npz(path: Path, found: dict[str, Any]) -> Iterator[Rows]:
    with zipfile.ZipFile(path) as archive:
        with archive.open("vectors.npy") as vectors, archive.open("ids.npy") as ids:
            (count, width), kind = _header(vectors)
            _, id_kind = _header(ids)
            for start in range(0, count, _CHUNK):
                size = min(_CHUNK, count - start)
                stored = np.frombuffer(vectors.read(size * width * kind.itemsize), kind)
                names = np.frombuffer(ids.read(size * id_kind.itemsize), id_kind).tolist()
                yield names, [[] for _ in names], stored.reshape(size, width)


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype


def _jsonl(path: Path, found: dict[str, Any]) -> Iterator[Rows]:
    kind = dtypes.stored(found["dtype"])
    with path.open(encoding="utf-8") as stream:
        while lines := [line for _, line in zip(range(_CHUNK), stream, strict=False)]:
            records = [json.loads(line) for line in lines]
            kept = [[record[name] for name in found["keep"]] for record in records]
            vectors = np.array([record[VECTOR] for record in records]).astype(kind)
            yield [record[ID] for record in records], kept, vectors


def _parquet(path: Path, found: dict[str, Any]) -> Iterator[Rows]:
    parquet = require("pyarrow.parquet", "parquet", f"reading {path.name}")
    width = dtypes.width(found["dtype"], found["dimensions"])
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_CHUNK):
            names = batch.column(ID).to_pylist()
            columns = [batch.column(name).to_pylist() for name in found["keep"]]
            kept = [list(values) for values in zip(*columns, strict=True)] or [[] for _ in names]
            flat = batch.column(VECTOR).flatten().to_numpy(zero_copy_only=False)
            yield names, kept, flat.reshape(len(names), width)


_CHUNKS = {".parquet": _parquet, ".npz": _npz, ".npy": _npy, ".jsonl": _jsonl}

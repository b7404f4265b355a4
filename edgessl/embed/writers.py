"""Parts joined into one file of vectors, by the output's ending; never all of them in memory."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgessl.embed import dtypes
from edgessl.embed.vectors import ID, METADATA, VECTOR, ids_beside, metadata_beside
from edgessl.errors import RecipeError, nearest, require

_GROUP = 32 << 20  # bytes of vectors in a Parquet row group
_DATE = (1980, 1, 1, 0, 0, 0)  # of the members of an archive: the same job gives the same bytes


@dataclass(frozen=True)
class Chunk:
    """Consecutive vectors, as stored, with their ids and kept values (a list for each vector)."""

    ids: list[int | str]
    kept: list[list[Any]]
    vectors: npt.NDArray[Any]


@dataclass(frozen=True)
class Whole:
    """All that goes into a file. ``chunks()`` gives it from the start, as often as it is called.

    ``id_texts``: ids are texts, of at most ``id_length`` characters; else int64. ``keep``: name ->
    kind (``kind_of``) of the columns carried along.
    """

    rows: int
    metadata: dict[str, Any]
    chunks: Callable[[], Iterator[Chunk]]
    id_texts: bool
    id_length: int
    keep: dict[str, str]

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtypes.stored(self.metadata["dtype"])

    @property
    def width(self) -> int:
        return dtypes.width(self.metadata["dtype"], self.metadata["dimensions"])

    def ids(self, chunk: Chunk) -> list[Any]:
        return [str(name) for name in chunk.ids] if self.id_texts else chunk.ids


def write(whole: Whole, folder: Path, output: Path) -> dict[str, Path]:
    """Write the files of *output* into *folder*: name there -> place, the vectors last."""
    return WRITERS[suffix(output)](whole, folder, output)


def suffix(output: Path) -> str:
    """The output's ending, if vectors can be written so.

    Raises:
        RecipeError: another ending.
        MissingDependency: Parquet without pyarrow.
    """
    ending = output.suffix.lower()
    if ending not in WRITERS:
        near = nearest(ending, WRITERS) if ending else ""
        raise RecipeError(f"output {str(output)!r} must end in {', '.join(WRITERS)}.{near}")
    if ending == ".parquet":
        require("pyarrow", "parquet", "writing Parquet")
    return ending


def beside(output: Path) -> list[Path]:
    """Every file that may belong to *output*."""
    found = [rejected_beside(output)]
    if suffix(output) in (".npy", ".jsonl"):
        found.append(metadata_beside(output))
    if suffix(output) == ".npy":
        found += [ids_beside(output, texts) for texts in (False, True)]
    return found


def rejected_beside(output: Path) -> Path:
    """Where the rows without a vector are listed."""
    return output.with_name(f"{output.name}.rejected.jsonl")


def kind_of(kinds: set[str]) -> str:
    """One kind for a column in which values of all *kinds* were seen."""
    kinds = kinds - {"null"}
    if len(kinds) <= 1:
        return next(iter(kinds), "text")
    return "float" if kinds == {"int", "float"} else "text"


def kinds_in(values: list[Any]) -> set[str]:
    names = {bool: "bool", int: "int", float: "float", type(None): "null"}
    found = {names.get(type(value), "text") for value in values}
    large = any(type(v) is int and not -(2**63) <= v < 2**63 for v in values)
    return found | {"text"} if large else found


def _npy(whole: Whole, folder: Path, output: Path) -> dict[str, Path]:
    with (folder / "vectors").open("wb") as stream:
        _array(stream, whole)
    with (folder / "ids").open("wb") as stream:
        if whole.id_texts:
            for chunk in whole.chunks():
                lines = (json.dumps(name, ensure_ascii=False) for name in whole.ids(chunk))
                stream.write("".join(f"{line}\n" for line in lines).encode())
        else:
            _header(stream, (whole.rows,), np.dtype("<i8"))
            for chunk in whole.chunks():
                stream.write(np.array(chunk.ids, "<i8").tobytes())
    _sidecar(whole, folder)
    ids = ids_beside(output, whole.id_texts)
    return {"ids": ids, "metadata": metadata_beside(output), "vectors": output}


def _npz(whole: Whole, folder: Path, output: Path) -> dict[str, Path]:
    with zipfile.ZipFile(folder / "vectors", "w", zipfile.ZIP_STORED) as archive:
        with _member(archive, "vectors.npy") as stream:
            _array(stream, whole)
        kind = np.dtype(f"<U{max(whole.id_length, 1)}" if whole.id_texts else "<i8")
        with _member(archive, "ids.npy") as stream:
            _header(stream, (whole.rows,), kind)
            for chunk in whole.chunks():
                stream.write(np.array(whole.ids(chunk), kind).tobytes())
        with _member(archive, METADATA) as stream:
            stream.write(_text(whole.metadata))
    return {"vectors": output}


def _jsonl(whole: Whole, folder: Path, output: Path) -> dict[str, Path]:
    digits = {"float32": "%.9g", "float16": "%.5g"}.get(whole.metadata["dtype"], "%d")
    shape = f"[{', '.join([digits] * whole.width)}]"
    with (folder / "vectors").open("w", encoding="utf-8", newline="\n") as stream:
        for chunk in whole.chunks():
            rows = zip(chunk.ids, chunk.kept, chunk.vectors.tolist(), strict=True)
            for name, kept, vector in rows:
                carried = dict(zip(whole.keep, kept, strict=True))
                head = json.dumps({ID: name, **carried}, ensure_ascii=False)
                stream.write(f'{head[:-1]}, "{VECTOR}": {shape % tuple(vector)}}}\n')
    _sidecar(whole, folder)
    return {"metadata": metadata_beside(output), "vectors": output}


def _parquet(whole: Whole, folder: Path, output: Path) -> dict[str, Path]:
    pyarrow = require("pyarrow", "parquet", "writing Parquet")
    parquet = require("pyarrow.parquet", "parquet", "writing Parquet")
    plain = {
        "text": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
    }
    number = pyarrow.from_numpy_dtype(whole.dtype)
    fields = [(ID, plain["text"] if whole.id_texts else plain["int"])]
    fields += [(name, plain[kind]) for name, kind in whole.keep.items()]
    fields.append((VECTOR, pyarrow.list_(number, whole.width)))
    schema = pyarrow.schema(fields, {"edgessl": _text(whole.metadata)})
    kinds = list(whole.keep.values())
    with (
        (folder / "vectors").open("wb") as stream,
        # dictionaries and statistics of floats would cost time and save nothing
        parquet.ParquetWriter(
            stream, schema, compression="zstd", use_dictionary=False, write_statistics=[ID]
        ) as writer,
    ):
        size = max(_GROUP // (whole.width * whole.dtype.itemsize), 1)
        waiting: list[Any] = []
        for chunk in whole.chunks():
            columns = [pyarrow.array(whole.ids(chunk), schema.field(ID).type)]
            for place, kind in enumerate(kinds):
                values = [_as(kind, kept[place]) for kept in chunk.kept]
                columns.append(pyarrow.array(values, plain[kind]))
            flat = pyarrow.array(np.ascontiguousarray(chunk.vectors).reshape(-1))
            columns.append(pyarrow.FixedSizeListArray.from_arrays(flat, whole.width))
            waiting.append(pyarrow.record_batch(columns, schema=schema))
            if sum(batch.num_rows for batch in waiting) >= size:
                writer.write_table(pyarrow.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pyarrow.Table.from_batches(waiting))
    return {"vectors": output}


WRITERS: dict[str, Callable[[Whole, Path, Path], dict[str, Path]]] = {
    ".parquet": _parquet,
    ".npz": _npz,
    ".npy": _npy,
    ".jsonl": _jsonl,
}


def _as(kind: str, value: Any) -> Any:
    if value is None or kind in ("bool", "int"):
        return value
    if kind == "float":
        return float(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _array(stream: IO[bytes], whole: Whole) -> None:
    _header(stream, (whole.rows, whole.width), whole.dtype)
    for chunk in whole.chunks():
        stream.write(np.ascontiguousarray(chunk.vectors).data)


def _header(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    described = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": described, "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    stream.write(buffer.getvalue())


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(name, _DATE), "w", force_zip64=True)


def _sidecar(whole: Whole, folder: Path) -> None:
    (folder / "metadata").write_bytes(_text(whole.metadata))


def _text(metadata: dict[str, Any]) -> bytes:
    return json.dumps(metadata, ensure_ascii=False, indent=1).encode()

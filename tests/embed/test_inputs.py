"""Rows of every kind of input: all of them, in order, from any row on."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edgessl.embed import inputs
from edgessl.embed.inputs import Source
from edgessl.errors import RecipeError

TEXTS = ["plain", "", "  spaces kept ", "Zürich 🙂", "a, b; c", 'say "no"'] + [
    f"text number {number}" for number in range(31)
]


def write_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["id", "text"])
        writer.writerows((f"r{n}", text) for n, text in enumerate(TEXTS))


def write_all(folder: Path) -> list[Path]:
    """The same texts in every kind of file."""
    (folder / "t.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    write_csv(folder / "t.csv")
    records = [{"id": f"r{n}", "text": text} for n, text in enumerate(TEXTS)]
    lines = "\n".join(json.dumps(record) for record in records)
    (folder / "t.jsonl").write_text(lines)
    (folder / "t.json").write_text(json.dumps(records, indent=1))
    table = pa.table({"id": [f"r{n}" for n in range(len(TEXTS))], "text": TEXTS})
    pq.write_table(table, folder / "t.parquet", row_group_size=7)
    with pa.ipc.new_stream(str(folder / "t.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    hub = folder / "hub" / "data"
    hub.mkdir(parents=True)
    pq.write_table(table.slice(0, 20), hub / "test-00000-of-00001.parquet", row_group_size=7)
    pq.write_table(table.slice(20), hub / "train-00000-of-00001.parquet")
    return [*(path for path in folder.iterdir() if path.is_file()), folder / "hub"]


def source(path: Path, task: Any = "text", **options: Any) -> Source:
    return Source((str(path),), task, **options)


def test_every_format_gives_every_row_from_any_row_on(tmp_path: Path) -> None:
    for path in write_all(tmp_path):
        column = None if path.suffix == ".txt" else "text"
        asked = source(path, column=column, id_column=None if column is None else "id")
        whole = list(inputs.blocks(asked, 10))
        assert [item for block in whole for item in block.items] == TEXTS, path
        assert [block.size for block in whole] == [10, 10, 10, 7]
        ids = [name for block in whole for name in block.ids]
        assert ids == [f"r{n}" if column else n for n in range(len(TEXTS))]
        for first in range(5):
            assert list(inputs.blocks(asked, 10, first)) == whole[first:], (path, first)
        assert (inputs.estimate(asked) or 37) in (37, 36, 38)  # a header, a last newline


def test_parquet_skips_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path)
    read: list[list[int]] = []
    real = pq.ParquetFile.iter_batches

    def noting(self: Any, *arguments: Any, row_groups: list[int], **options: Any) -> Any:
        read.append(row_groups)
        return real(self, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noting)
    list(inputs.blocks(source(tmp_path / "t.parquet", column="text"), 10, 2))
    assert read == [[2], [3], [4], [5]]  # of groups of 7 rows, from row 20 on


def test_several_inputs_are_one(tmp_path: Path) -> None:
    write_all(tmp_path)
    names = ("t.csv", "hub", "t.jsonl")
    asked = Source(tuple(str(tmp_path / name) for name in names), "text", column="text")

    whole = list(inputs.blocks(asked, 8))

    assert [item for block in whole for item in block.items] == TEXTS * 3
    assert [row for block in whole for row in block.rows] == list(range(3 * len(TEXTS)))
    for first in range(15):
        assert list(inputs.blocks(asked, 8, first)) == whole[first:]


def test_bad_rows_keep_their_numbers(tmp_path: Path) -> None:
    lines = [b'{"id": 0, "text": "a"}', b"{", b'{"id": null, "text": "b"}', b'{"id": 3}',
             b'{"id": 4, "text": ["x"]}', b'{"id": 5, "text": "caf\xe9"}', b'{"id": 6, "text": null}',
             b'{"id": 7.5, "text": "c"}', b'{"id": 8, "text": "\\ud800"}', b'{"id": 9, "text": "d"}']  # fmt: skip
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines))

    (block,) = inputs.blocks(source(tmp_path / "t.jsonl", id_column="id"), 100)

    assert (block.items, block.ids, block.rows) == (["a", "d"], [0, 9], [0, 9])
    assert [(bad["row"], bad["id"], bad["reason"]) for bad in block.rejected] == [
        (1, None, "line 2: not JSON"),
        (2, None, "its id: null"),
        (3, None, "line 4: has no 'text'"),
        (4, 4, "list, not a text"),
        (5, 5, "not UTF-8"),
        (6, 6, "null"),
        (7, None, "its id: float, not a text or a whole number"),
        (8, 8, "half a surrogate pair"),
    ]


def test_utf16_is_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\n", encoding="utf-16")
    with pytest.raises(RecipeError, match="not UTF-8 text .*iconv -f UTF-16"):
        list(inputs.blocks(source(tmp_path / "t.txt"), 10))


def test_which_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sentence1,sentence2\na,b\n")
    with pytest.raises(RecipeError, match="say which: --column sentence1$"):
        inputs.open_source(source(tmp_path / "t.csv"))
    (block,) = inputs.blocks(source(tmp_path / "t.csv", column="sentence2"), 9)
    assert block.items == ["b"]


def test_a_folder_of_several_kinds_of_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    with pytest.raises(RecipeError, match=r"several kinds \(.csv, .jsonl\). Name the files"):
        inputs.open_source(source(tmp_path))


def pictures(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), np.uint8)


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_arrays_item_by_item(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"images.{'npy' if kind == 'npy' else 'npz'}"
    array = pictures(23)
    {"npy": np.save, "npz": np.savez, "compressed": np.savez_compressed}[kind](path, array)
    asked = source(path, "image")

    for first in range(4):
        found = [item for block in inputs.blocks(asked, 7, first) for item in block.items]
        assert np.array_equal(np.array(found), array[7 * first :])
    assert inputs.estimate(asked) == 23
    path.write_bytes(path.read_bytes()[: -(60 if kind == "npy" else 400)])
    with pytest.raises(RecipeError, match="cannot be read"):
        list(inputs.blocks(asked, 7))


def test_arrays_are_not_read_into_memory(tmp_path: Path) -> None:
    array = np.zeros((60, 300, 300, 3), np.uint8)
    np.savez_compressed(tmp_path / "images.npz", array)
    tracemalloc.start()
    for _ in inputs.blocks(source(tmp_path / "images.npz", "image"), 4):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.nbytes > 1.5e7 and peak < 5e6


def test_wrong_arrays_are_explained(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((2, 4, 4, 3), np.float32))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(pictures(3)))
    for name, says in (
        ("floats", r"float32 \(2, 4, 4, 3\); it should be uint8 .*\* 255"),
        ("fortran", "Fortran order: np.ascontiguousarray"),
    ):
        with pytest.raises(RecipeError, match=says):
            inputs.open_source(source(tmp_path / f"{name}.npy", "image"))


def test_folders_of_images_are_named_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for name in ("b.png", "cats/a.png", "a.png"):
        (tmp_path / name).write_bytes(png(pictures(1)[0]))
    (tmp_path / "note.txt").write_text("x")
    broken = os.fsencode(tmp_path) + b"/z\xff.png"
    Path(os.fsdecode(broken)).write_bytes(b"")

    (block,) = inputs.blocks(source(tmp_path, "image"), 10)

    assert block.ids == ["a.png", "b.png", "cats/a.png"]
    assert block.items == [tmp_path / str(name) for name in block.ids]
    assert [bad["reason"] for bad in block.rejected] == ["its name: not UTF-8"]


def test_tables_of_images(tmp_path: Path) -> None:
    files = [png(pixels) for pixels in pictures(3)]
    (tmp_path / "far.png").write_bytes(files[2])
    rows = [{"bytes": files[0], "path": None}, {"bytes": None, "path": None}]
    rows.append({"bytes": None, "path": "far.png"})
    pq.write_table(pa.table({"image": rows, "name": ["a", "b", "c"]}), tmp_path / "t.parquet")

    asked = source(tmp_path / "t.parquet", "image", id_column="name", keep=("name",))
    (block,) = inputs.blocks(asked, 10)

    assert block.items == [files[0], tmp_path / "far.png"]
    assert (block.ids, block.kept) == (["a", "c"], [["a"], ["c"]])
    assert block.rejected == [{"row": 1, "id": "b", "reason": "empty"}]
    with pytest.raises(RecipeError, match="--keep 'image': that column holds files"):
        inputs.open_source(source(tmp_path / "t.parquet", "image", keep=("image",)))


def test_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(pictures(1)[0]))
    before = inputs.fingerprint([str(tmp_path)])
    assert inputs.fingerprint([str(tmp_path)]) == before
    (tmp_path / "b.png").write_bytes(png(pictures(2)[1]))
    assert inputs.fingerprint([str(tmp_path)]) != before


def test_a_pipe_is_refused_and_not_drained(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    inputs.fingerprint([str(tmp_path / "pipe")])
    with pytest.raises(RecipeError, match="is a pipe or a device"):
        inputs.open_source(source(tmp_path / "pipe"))

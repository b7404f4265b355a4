"""Parquet and Arrow as pyarrow writes them, and folders as ``datasets`` 5.2 lays them out."""

from __future__ import annotations

import io
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edgessl.calibrate import data
from edgessl.errors import MissingDependency, RecipeError

TEXTS = [f"text number {number}" for number in range(40)]


def png(number: int, size: int = 5) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def reviews(texts: list[str] = TEXTS) -> pa.Table:
    return pa.table({"text": texts, "label": [n % 2 for n in range(len(texts))]})


def photos(count: int) -> pa.Table:
    """An image column as ``datasets.Image`` stores it."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": png(number), "path": None} for number in range(count)]
    return pa.table({"image": pa.array(rows, kind), "label": list(range(count))})


def save_to_disk(table: pa.Table, folder: Path, shards: int = 1) -> None:
    """What ``Dataset.save_to_disk`` writes: Arrow streams, state.json, dataset_info.json."""
    folder.mkdir(parents=True)
    names = [f"data-{shard:05}-of-{shards:05}.arrow" for shard in range(shards)]
    step = -(-len(table) // shards)
    for shard, name in enumerate(names):
        part = table.slice(shard * step, step)
        with pa.ipc.new_stream(str(folder / name), part.schema) as writer:
            writer.write_table(part, max_chunksize=7)
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0ded7e7491131dd5",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    info = {"citation": "", "description": "", "features": {}, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_of_every_kind_of_string(tmp_path: Path, kind: Any) -> None:
    column = pa.array([*TEXTS, None, "  ", TEXTS[0]]).cast(kind)
    pq.write_table(pa.table({"review": column}), tmp_path / "t.parquet", row_group_size=9)
    found = data.load(tmp_path / "t.parquet", "text", 100, seed=0)
    assert sorted(found.items) == sorted(TEXTS) and found.column == "review"
    some = data.load(tmp_path / "t.parquet", "text", 6, seed=0)
    assert len(some.items) == 6 and {*some.items} < {*TEXTS}


def test_the_same_texts_in_any_file_are_the_same_sample(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    pq.write_table(reviews(TEXTS[::-1]), tmp_path / "t.parquet", row_group_size=7)
    save_to_disk(reviews(), tmp_path / "saved", shards=3)
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), reviews().schema) as writer:
        writer.write_table(reviews(), max_chunksize=11)
    names = ("t.txt", "t.parquet", "saved", "t.arrow")
    found = [data.load(tmp_path / name, "text", 10, seed=4) for name in names]
    assert len({calibration.sha256 for calibration in found}) == 1
    assert all(calibration.items == found[0].items for calibration in found)


def test_a_dataset_dict(tmp_path: Path) -> None:
    save_to_disk(reviews(), tmp_path / "saved" / "train")
    save_to_disk(reviews(["unseen"]), tmp_path / "saved" / "test")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    found = data.load(tmp_path / "saved", "text", 100, seed=0)
    assert sorted(found.items) == sorted(TEXTS) and found.split == "train"
    assert found.to_json() == {
        "source": "saved", "samples": 40, "sha256": found.sha256, "column": "text", "split": "train"
    }  # fmt: skip
    assert found.notes[0] == "took the split 'train' of saved; it also has test"
    only = data.load(tmp_path / "saved" / "test", "text", 100, seed=0)
    assert only.items == ["unseen"] and only.split is None


def test_what_else_lies_in_a_saved_dataset_is_not_read(tmp_path: Path) -> None:
    save_to_disk(reviews(), tmp_path / "saved")
    with pa.ipc.new_stream(str(tmp_path / "saved" / "cache-1.arrow"), reviews().schema) as writer:
        writer.write_table(reviews(["of a map()"]))
    assert "of a map()" not in data.load(tmp_path / "saved", "text", 100, seed=0).items


def test_parquet_files_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(reviews(TEXTS[:10]), tmp_path / "data" / "train-00000-of-00002.parquet")
    pq.write_table(reviews(TEXTS[10:]), tmp_path / "data" / "train-00001-of-00002.parquet")
    pq.write_table(reviews(["unseen"]), tmp_path / "data" / "test-00000-of-00001.parquet")
    found = data.load(tmp_path, "text", 100, seed=0)
    assert sorted(found.items) == sorted(TEXTS) and found.split == "train"


def test_image_columns(tmp_path: Path) -> None:
    pq.write_table(photos(30), tmp_path / "t.parquet", row_group_size=4)
    save_to_disk(photos(30), tmp_path / "saved", shards=2)
    for name in ("t.parquet", "saved"):
        found = data.load(tmp_path / name, "image", 12, seed=0)
        assert len({*found.items}) == 12 and {*found.items} < {png(number) for number in range(30)}
        assert found.column == "image" and found.available == 30
        assert data.load(tmp_path / name, "image", 12, seed=0) == found
        assert {*data.load(tmp_path / name, "image", 12, seed=1).items} != {*found.items}


def test_image_columns_with_paths_bad_ones_and_repetitions(tmp_path: Path) -> None:
    (tmp_path / "far.png").write_bytes(png(77))
    rows: list[dict[str, Any]] = [
        {"bytes": png(number), "path": f"{number}.png"} for number in range(40)
    ]
    rows[3] = {"bytes": None, "path": "far.png"}
    rows[4] = {"bytes": png(4)[:50], "path": "4.png"}
    rows[5] = {"bytes": None, "path": None}
    rows[6:20] = [rows[6]] * 14
    table = pa.table({"img": rows, "caption": ["a caption"] * 40})
    pq.write_table(table, tmp_path / "t.parquet")
    found = data.load(tmp_path / "t.parquet", "image", 20, seed=0)
    assert len(found.items) == 20
    everything = data.load(tmp_path / "t.parquet", "image", 300, seed=0)
    expected = {png(number) for number in (0, 1, 2, 6, *range(20, 40))} | {tmp_path / "far.png"}
    assert {*everything.items} == expected and len(everything.items) == 25
    assert [name.partition(" (")[0] for name in sorted(everything.skipped)] == ["row 5", "row 6"]
    assert "row 6 (empty)" in everything.skipped


def test_a_plain_binary_column_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [png(number) for number in range(5)]}), tmp_path / "t.parquet")
    assert len(data.load(tmp_path / "t.parquet", "image", 300, seed=0).items) == 5


def test_an_audio_column(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
            file.writeframes(np.full(800, number, "<i2").tobytes())
        rows.append({"bytes": buffer.getvalue(), "path": f"{number}.wav"})
    pq.write_table(pa.table({"speech": rows}), tmp_path / "t.parquet")
    found = data.load(tmp_path / "t.parquet", "audio", 300, seed=0)
    assert {*found.items} == {row["bytes"] for row in rows} and found.column == "speech"
    pq.write_table(pa.table({"audio": [b"fLaC" + bytes(40)]}), tmp_path / "t.parquet")
    with pytest.raises(
        RecipeError, match=r"1 of 1 recordings tried \(100%\).*row 1 \(not a WAV fi"
    ):
        data.load(tmp_path / "t.parquet", "audio", 300, seed=0)


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"text": [["a", "b"]]}, None, r"no column of texts. It has: text \(list<"),
        ({"translation": [{"en": "a"}]}, None, r"translation \(struct<en: string>\)"),
        ({"text": ["a"], "label": [1]}, "label", "column 'label' holds int64, not texts. Col"),
        ({"text": ["a"], "__index_level_0__": ["i"]}, "txt", "no column 'txt'. Did you mean 'text'"),
        ({"a": ["a"], "b": ["b"]}, None, r"several columns of texts \(a, b\)"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_taken(
    tmp_path: Path, columns: dict[str, list[Any]], asked: str | None, message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(RecipeError, match=message):
        data.load(tmp_path / "t.parquet", "text", 5, seed=0, column=asked)


def test_damaged_files(tmp_path: Path) -> None:
    pq.write_table(reviews(), tmp_path / "t.parquet")
    save_to_disk(reviews(), tmp_path / "saved")
    for path in (tmp_path / "t.parquet", tmp_path / "saved" / "data-00000-of-00001.arrow"):
        content = path.read_bytes()
        for kept in (5, len(content) // 2):
            path.write_bytes(content[:kept])
            with pytest.raises(RecipeError, match="cannot be read"):
                data.load(path, "text", 5, seed=0)
    (tmp_path / "saved" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(RecipeError, match="cannot be read"):
        data.load(tmp_path / "saved", "text", 5, seed=0)
    (tmp_path / "saved" / "state.json").write_text("[]")
    with pytest.raises(
        RecipeError, match="state.json' cannot be read: no list '_indices_data_files' in it"
    ):
        data.load(tmp_path / "saved", "text", 5, seed=0)


def test_damaged_offsets_of_an_arrow_file(tmp_path: Path) -> None:
    """pyarrow does not check them where it maps the file: reading on would end the process."""
    save_to_disk(pa.table({"text": ["abc", "de", "fghi"]}), tmp_path / "saved")
    path = tmp_path / "saved" / "data-00000-of-00001.arrow"
    offsets, broken = (np.array(o, "<i4").tobytes() for o in ([0, 3, 5, 9], [0, 3, -5, 9]))
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, broken))
    with pytest.raises(
        RecipeError, match="data-00000-of-00001.arrow' cannot be read: ArrowInvalid"
    ):
        data.load(tmp_path / "saved", "text", 5, seed=0)


def test_damaged_pages_of_a_parquet_file(tmp_path: Path) -> None:
    pq.write_table(reviews(), tmp_path / "t.parquet", compression="zstd")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[20:60] = bytes(40)
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(RecipeError, match="t.parquet' cannot be read"):
        data.load(tmp_path / "t.parquet", "text", 5, seed=0)


def test_a_dataset_dict_without_its_split(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(RecipeError, match="cannot be read: its split 'train' is missing"):
        data.load(tmp_path, "text", 5, seed=0)


def test_a_selection_of_rows_by_an_old_datasets(tmp_path: Path) -> None:
    save_to_disk(reviews(), tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match="a selection of rows that edgessl does not apply"):
        data.load(tmp_path / "saved", "text", 5, seed=0)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(reviews(), tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingDependency, match=r"reading t.parquet needs pyarrow.*edgessl\[parquet"
    ):
        data.load(tmp_path / "t.parquet", "text", 5, seed=0)

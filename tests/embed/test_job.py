"""Jobs: what comes out, adding to it, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from edgessl.embed import job, vectors
from edgessl.errors import OutputError, RecipeError, Unsupported
from tests.fake_session import (
    DIMENSIONS,
    NOT_FINITE,
    REFUSED,
    TEXTS,
    FakeSession,
    expected,
    save_bundle,
)

Run = Callable[..., dict[str, Any]]
OUTPUTS = ("out.npy", "out.npz", "out.parquet", "out.jsonl")


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_row_in_order(output: str, texts: list[str], run: Run, place: Path) -> None:
    found = run("texts.txt", output)

    ids, read, metadata = vectors.read(place / output)
    assert ids.tolist() == list(range(47)) and ids.dtype == np.int64
    assert np.array_equal(read, expected(texts)) and read.dtype == np.float32
    assert metadata["variant"] == "0123456789abcdef" and metadata["pooling"] == "mean"
    assert (metadata["rows"], metadata["rows_read"], metadata["dimensions"]) == (47, 47, 12)
    assert found["path"] == output and found["rows"] == found["embedded"] == 47
    assert found["recall"] is None  # float32 is exact
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_the_formats_are_what_other_tools_read(texts: list[str], run: Run, place: Path) -> None:
    for output in OUTPUTS:
        run("texts.txt", output)

    assert np.array_equal(np.load("out.npy", mmap_mode="r"), expected(texts))
    assert np.load("out.ids.npy").tolist() == list(range(47))
    with np.load("out.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["vectors"], expected(texts))
        assert json.loads(archive["metadata.json"])["variant"] == "0123456789abcdef"
    table = pq.read_table("out.parquet")
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[12]"
    assert np.array_equal(np.stack(table["vector"].to_numpy()), expected(texts))
    lines = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert np.array_equal(np.array([line["vector"] for line in lines], np.float32), expected(texts))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("dtype", ["float16", "int8", "binary"])
def test_smaller_dtypes(output: str, dtype: str, texts: list[str], run: Run, place: Path) -> None:
    found = run("texts.txt", output, dtype=dtype)

    _, read, metadata = vectors.read(place / output)
    assert (metadata["dtype"], found["dtype"]) == (dtype, dtype)
    exact = expected(texts)
    if dtype == "float16":
        assert np.array_equal(read, exact.astype(np.float16).astype(np.float32))
    elif dtype == "int8":
        scales = np.abs(exact[:10]).max(axis=0) / 127  # of the first block
        inside = np.abs(exact) <= 127 * scales
        assert np.array_equal(np.float32(metadata["scales"]), scales.astype(np.float32))
        assert (np.abs(read - exact) <= 0.5001 * scales)[inside].all() and inside.mean() > 0.7
    else:
        assert np.array_equal(read > 0, exact > 0)
        assert np.allclose(np.linalg.norm(read, axis=1), 1)
    assert found["recall"]["vectors"] == 47
    assert 0 < found["recall"]["recall_at_10"] <= 1


def test_ids_and_kept_columns(run: Run, place: Path) -> None:
    records = [
        {"key": f"k{n}", "text": text, "n": n if n % 2 else n + 0.5, "tags": ["a", n]}
        for n, text in enumerate(TEXTS)
    ]
    (place / "t.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    options = {"column": "text", "id_column": "key"}

    run("t.jsonl", "out.parquet", keep=["n", "tags"], **options)
    run("t.jsonl", "out.jsonl", keep=["n", "tags"], **options)
    run("t.jsonl", "out.npy", **options)
    run("t.jsonl", "out.npz", **options)

    for output in OUTPUTS:
        ids, read, _ = vectors.read(place / output)
        assert ids.tolist() == [f"k{n}" for n in range(47)]
        assert np.array_equal(read, expected(TEXTS))
    table = pq.read_table("out.parquet").to_pydict()
    assert table["n"] == [record["n"] for record in records]
    assert table["tags"] == [json.dumps(record["tags"]) for record in records]
    line = json.loads((place / "out.jsonl").read_text().splitlines()[5])
    assert (line["id"], line["n"], line["tags"]) == ("k5", 5, ["a", 5])
    with pytest.raises(RecipeError, match="--keep needs an output that has columns"):
        run("t.jsonl", "other.npz", keep=["n"], **options)
    with pytest.raises(RecipeError, match="no column 'kee', which --id-column names.*'key'"):
        run("t.jsonl", "other.npz", id_column="kee", column="text")


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_appending(output: str, dtype: str, texts: list[str], run: Run, place: Path) -> None:
    more = [f"another text {number}" for number in range(13)]
    (place / "more.txt").write_text("\n".join([*more, REFUSED, ""]))
    run("texts.txt", output, dtype=dtype)
    scales = vectors.metadata(place / output)["scales"]

    found = run("more.txt", output, append=True, max_rejected=0.5)

    ids, read, metadata = vectors.read(place / output)
    assert ids.tolist() == list(range(60))
    assert (found["embedded"], found["rows"], found["rejected"]) == (13, 60, 1)
    assert metadata["scales"] == scales and metadata["rows_read"] == 61
    step = 0 if scales is None else np.float32(scales)
    near = np.abs(read - expected(texts + more)) <= 0.5001 * step
    assert near.mean() > 0.7 if scales else near.all()
    assert [input["name"] for input in metadata["inputs"]] == ["texts.txt", "more.txt"]
    (rejected,) = (place / f"{output}.rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["row"] == 60
    before = tree(place)
    again = run("more.txt", output, append=True)  # as after a kill at the very end
    assert again["embedded"] == 0 and tree(place) == before


def test_appending_where_there_is_nothing_makes_it(texts: list[str], run: Run) -> None:
    assert run("texts.txt", "out.npz", append=True)["rows"] == 47


def test_what_cannot_be_appended(texts: list[str], run: Run, place: Path) -> None:
    run("texts.txt", "out.npz")
    before = (place / "out.npz").read_bytes()
    (place / "more.csv").write_text("id,text\na,b\n")
    (place / "bundle").rename(place / "old")
    save_bundle(place / "bundle", variant="f" * 16, source="another")

    with pytest.raises(RecipeError) as caught:
        run("more.csv", "out.npz", append=True, column="text")
    message = str(caught.value)
    assert "variant 0123456789abcdef (fake, onnx fp32)" in message
    assert "variant ffffffffffffffff (another, onnx fp32)" in message
    (place / "bundle").rename(place / "other")
    (place / "old").rename(place / "bundle")
    for options, says in (
        ({"dtype": "float16"}, "dtype was 'float32', now 'float16'"),
        ({"max_length": 9}, "options was {}, now {'max_length': 9}"),
        ({"id_column": "id"}, "ids in out.npz are numbers, these are texts"),
        ({"overwrite": True}, "--append or --overwrite, not both"),
    ):
        with pytest.raises(RecipeError, match=says):
            run("more.csv", "out.npz", **{"append": True, "column": "text", **options})
    assert (place / "out.npz").read_bytes() == before
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_what_is_there_is_not_lost(texts: list[str], run: Run, place: Path) -> None:
    run("texts.txt", "out.npy")
    with pytest.raises(OutputError, match="out.npy exists; pass --overwrite .*, --append"):
        run("texts.txt", "out.npy")
    run("texts.txt", "out.npy", overwrite=True, dtype="binary")
    assert vectors.metadata(place / "out.npy")["dtype"] == "binary"
    np.save(place / "mine.npy", np.zeros(3))
    (place / "mine.parquet").write_bytes(b"PAR1")
    (place / "folder.npz").mkdir()
    for name in ("mine.npy", "mine.parquet", "folder.npz"):
        with pytest.raises(OutputError, match=f"{name} exists and"):
            run("texts.txt", name, overwrite=True)


def test_a_link_is_kept(texts: list[str], run: Run, place: Path) -> None:
    (place / "real").mkdir()
    (place / "out.npz").symlink_to("real/vectors.npz")

    run("texts.txt", "out.npz")

    assert (place / "out.npz").is_symlink() and (place / "real/vectors.npz").is_file()


def test_overwriting_takes_away_what_belonged_to_the_old(run: Run, place: Path) -> None:
    (place / "a.csv").write_text("id,text\nx,one\ny,two\n" + "z,\n" * 100)
    (place / "b.txt").write_text(f"one\n{REFUSED}\n" + "two\n" * 100)

    run("b.txt", "out.npy")
    assert sorted(os.listdir(place)) == [
        "a.csv", "b.txt", "bundle", "out.ids.npy", "out.npy", "out.npy.json",
        "out.npy.rejected.jsonl",
    ]  # fmt: skip
    run("a.csv", "out.npy", overwrite=True, column="text", id_column="id")

    assert sorted(os.listdir(place)) == [
        "a.csv", "b.txt", "bundle", "out.ids.jsonl", "out.npy", "out.npy.json"
    ]  # fmt: skip


def test_rows_that_cannot_be_embedded(run: Run, place: Path) -> None:
    lines = [b"text %d" % number for number in range(600)]
    lines[7], lines[99], lines[300] = b"caf\xe9", REFUSED.encode(), NOT_FINITE.encode()
    (place / "t.txt").write_bytes(b"\n".join(lines))

    found = run("t.txt", "out.parquet")

    ids, read, _ = vectors.read(place / "out.parquet")
    good = [n for n in range(600) if n not in (7, 99, 300)]
    assert ids.tolist() == good and found["rejected"] == 3 and found["rows"] == 597
    assert np.array_equal(read, expected([f"text {n}" for n in good]))
    listed = (place / "out.parquet.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in listed] == [
        {"row": 7, "id": None, "reason": "not UTF-8"},
        {"row": 99, "id": None, "reason": "text is not wanted."},
        {"row": 300, "id": None, "reason": "the encoder gave no finite vector"},
    ]


def test_too_many_of_them(run: Run, session: FakeSession, place: Path) -> None:
    lines = [REFUSED if number % 50 == 0 else f"text {number}" for number in range(3000)]
    (place / "t.txt").write_text("\n".join(lines))

    with pytest.raises(RecipeError) as caught:
        run("t.txt", "out.npz", block_rows=100)

    assert "20 of 1,000 rows (2.0%) cannot be embedded, more than --max-rejected 0.01" in str(
        caught.value
    )
    assert "row 0 (text is not wanted.), row 50 (" in str(caught.value)
    assert len((place / "out.npz.rejected.jsonl").read_text().splitlines()) == 20
    assert not (place / "out.npz").exists()
    session.blocks.clear()
    found = run("t.txt", "out.npz", block_rows=100, max_rejected=0.02)
    assert len(session.blocks) == 20  # it went on
    assert (found["rejected"], found["rows"]) == (60, 2940)


def test_a_second_process_is_refused(texts: list[str], run: Run, place: Path) -> None:
    folder = place / ".out.npy.job"
    folder.mkdir()
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    with pytest.raises(OutputError, match="another process is writing out.npy"):
        run("texts.txt", "out.npy")
    os.close(held)

    assert run("texts.txt", "out.npy")["rows"] == 47


def test_wrong_use(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "texts.txt").write_text("")
    (place / "t.txt").write_text("a")
    for arguments, options, says in (
        (("t.txt", "out.txt"), {}, r"out.txt' must end in .parquet, .npz"),
        (("t.txt", "out"), {}, "must end in"),
        (("gone.txt", "out.npy"), {}, "data 'gone.txt': no such file"),
        (("texts.txt", "out.npy"), {}, "texts.txt holds no rows"),
        (("t.txt", "out.npy"), {"dtype": "int4"}, "--dtype 'int4' is none of .*'int8'"),
        (("t.txt", "out.npy"), {"column": "text"}, "--column 'text' is for tables"),
        (("t.txt", "-", "out.npy"), {}, "cannot stand beside other inputs"),
        (("t.txt", "out.npy"), {"promt": "x"}, "no option 'promt'.*'prompt'"),
    ):
        with pytest.raises(RecipeError, match=says):
            run(*arguments, **options)
    assert sorted(os.listdir(place)) == ["bundle", "t.txt", "texts.txt"]


def test_a_bundle_without_pooling(run: Run, place: Path) -> None:
    (place / "t.txt").write_text("a")
    manifest = json.loads((place / "bundle/manifest.json").read_text())
    assert manifest["encoder"]["outputs"][0]["shape"][-1] == DIMENSIONS
    save_bundle(place / "images", task="image")
    with pytest.raises(RecipeError, match="t.txt': an image encoder needs a folder of images"):
        job.run("images", ["t.txt"], "out.npy")
    with pytest.raises(RecipeError, match="standard input is for texts; this bundle is for image"):
        job.run("images", ["-"], "out.npy")
    from dataclasses import replace

    from edgessl import bundle

    found = bundle.read(place / "bundle")
    bare = replace(found, encoder=replace(found.encoder, outputs=()))
    (place / "bundle/manifest.json").write_text(bare.dumps())
    with pytest.raises(Unsupported, match="this bundle has no pooling"):
        run("t.txt", "out.npy")

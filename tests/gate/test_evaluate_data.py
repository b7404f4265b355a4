"""What a path is read as, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.errors import RecipeError
from edgessl.gate.evaluate import reading
from edgessl.gate.evaluate.columns import Columns
from edgessl.gate.evaluate.data import LABELLED, PAIRS, PLAIN, RETRIEVAL, Data
from edgessl.spec import Task


def table(path: Path, *rows: Sequence[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return str(path)


def read(path: str | Path, task: Task = "text", **columns: Any) -> Data:
    return reading.read(str(path), task, Columns(**columns))


def labels(data: Data) -> list[str]:
    assert data.labels is not None
    found: list[str] = data.labels.tolist()
    return found


def test_two_texts_and_a_number_are_pairs(tmp_path: Path) -> None:
    rows = [("left", "right", "score"), ("a", "b", 4.5), ("c", "", 1)]
    data = read(table(tmp_path / "sts.csv", *rows))

    assert data.kind == PAIRS and data.items == ["a", "b", "c", ""]
    assert data.scores is not None and data.scores.tolist() == [4.5, 1]
    assert data.notes == ("read as pairs: left, right; how alike they are: score",)


def test_pairs_by_name_among_other_columns(tmp_path: Path) -> None:
    rows = [("id", "a", "b", "note", "how"), (1, "x", "y", "z", 0.5)]
    data = read(table(tmp_path / "sts.csv", *rows), pair=("a", "b"), score="how")

    assert data.items == ["x", "y"]
    with pytest.raises(RecipeError, match="Give --score-column NAME. It has: id, a"):
        read(tmp_path / "sts.csv", pair=("a", "b"))


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (("sentence1", "sentence2", "label"), PAIRS),
        (("premise", "hypothesis", "similarity"), PAIRS),
        (("title", "text", "label"), LABELLED),
        (("text", "label", "id"), LABELLED),
        (("title", "text", "id"), PLAIN),
    ],
)
def test_what_a_table_is_by_its_columns(
    header: tuple[str, str, str], kind: str, tmp_path: Path
) -> None:
    path = table(tmp_path / "t.csv", header, ("x", "y", 1), ("z", "y", 0))

    assert read(path).kind == kind


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    path = table(tmp_path / "sts.csv", ("a", "b", "how"), ("x", "y", "much"), ("x", "y", "little"))

    with pytest.raises(RecipeError, match="column 'how' holds 'much', which is no number"):
        read(path, pair=("a", "b"), score="how")


def test_pairs_without_a_second_text_are_counted(tmp_path: Path) -> None:
    lines = [{"a": "x", "b": "y", "score": 1}, {"a": "x", "b": None, "score": 1}]
    lines += [{"a": "x", "b": "y", "score": None}, {"a": None, "b": "y", "score": 2}]
    path = tmp_path / "sts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))

    data = read(path)

    assert data.size == 1 and len(data.unreadable) == 3


def test_texts_and_labels(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ("text", "label"), ("x", 1), ("y", 0), ("z", ""))
    data = read(path)

    assert data.kind == LABELLED and data.items == ["x", "y"] and labels(data) == ["1", "0"]
    assert data.held_out is None and data.unreadable == ("2 has no label",)


def test_labels_of_another_name(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ("body", "about", "stars"), ("x", "u", 5), ("y", "v", 1))

    assert labels(read(path, item="body", label="stars")) == ["5", "1"]
    with pytest.raises(RecipeError, match="no column 'star', which --label-column names. Did you"):
        read(path, label="star")


def test_a_column_that_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "x", "label": 0.37}\n{"text": "y", "label": 1.0}\n')

    with pytest.raises(RecipeError, match="column 'label' holds 0.37, which is no class"):
        read(path)


def test_files_for_training_and_for_testing(tmp_path: Path) -> None:
    for name, rows in (("train", ["a", "b"]), ("test", ["c"]), ("validation", ["d"])):
        table(tmp_path / f"{name}.csv", ("text", "label"), *((row, row) for row in rows))

    data = read(tmp_path)

    held_out = [] if data.held_out is None else data.held_out.tolist()
    assert dict(zip(data.items, held_out, strict=True)) == {"a": False, "b": False, "c": True}


def test_texts_alone(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x\ny\n")

    assert read(tmp_path / "t.txt").items == ["x", "y"]
    assert read(tmp_path / "t.txt").kind == PLAIN
    data = read(
        table(tmp_path / "t.csv", ("id", "text"), ("p", "x"), ("q", "y")), item="text", id="id"
    )
    assert data.kind == PLAIN and data.ids == ["p", "q"]


@pytest.mark.parametrize("option", ["label", "score"])
def test_columns_of_what_is_no_table(option: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x\ny\n")

    with pytest.raises(RecipeError, match=f"--{option}-column 'c' is for tables"):
        read(tmp_path / "t.txt", "text", **{option: "c"})


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_a_class_a_folder(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / name)
    data = read(tmp_path, "image")
    assert data.kind == LABELLED and labels(data) == ["cat", "cat", "dog"]

    picture(tmp_path / "top.png")
    assert read(tmp_path, "image").kind == PLAIN


def test_folders_of_classes_for_training_and_for_testing(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "val/cat/3.png"):
        picture(tmp_path / name)

    data = read(tmp_path, "image")

    assert labels(data) == ["cat", "cat", "dog"]
    assert data.held_out is not None and data.held_out.tolist() == [True, False, False]


IMAGES = np.arange(5 * 48, dtype=np.uint8).reshape(5, 4, 4, 3)


def test_arrays_of_images_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.arange(5)[:, None])
    data = read(tmp_path / "a.npz", "image")
    assert labels(data) == list("01234") and (data.items[3] == IMAGES[3]).all()
    assert data.held_out is None

    parts: dict[str, Any] = {
        "x_train": IMAGES,
        "y_train": np.arange(5),
        "x_test": IMAGES[:2],
        "y_test": np.arange(2),
    }
    np.savez(tmp_path / "b.npz", **parts)
    data = read(tmp_path / "b.npz", "image")
    assert data.held_out is not None and data.held_out.sum() == 2 and len(data.items) == 7


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": IMAGES, "y": np.arange(4)}, "no labels, or not as many"),
        ({"x": IMAGES, "y": IMAGES}, "two arrays of items"),
        ({"x": IMAGES, "y": np.linspace(0, 1, 5)}, "the labels are float64"),
        ({"x_train": IMAGES, "y_train": np.arange(5)}, "it has train arrays"),
        ({"x": IMAGES / 255, "y": np.arange(5)}, "Of 0 to 1, convert it"),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)

    with pytest.raises(RecipeError, match=said):
        read(tmp_path / "a.npz", "image")


def beir(folder: Path, **changed: str) -> Path:
    corpus = [
        {"_id": "d1", "title": "A title", "text": "and text"},
        {"_id": "d2", "text": " other "},
    ]
    queries = [{"_id": "q1", "text": "one"}, {"_id": "q2", "text": ""}, {"_id": "q3", "text": "?"}]
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td9\t1\nq2\td2\t1\nq8\td2\t1\n"
    content = {
        "corpus.jsonl": "\n".join(map(json.dumps, corpus)),
        "queries.jsonl": "\n".join(map(json.dumps, queries)),
        "qrels/test.tsv": qrels,
        "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq3\td1\t1\n",
        **changed,
    }
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_folder_in_beirs_layout(tmp_path: Path) -> None:
    data = read(beir(tmp_path))

    assert data.kind == RETRIEVAL and data.queries == data.size == 2
    assert data.ids == ["q1", "q2", "d1", "d2"]
    assert data.items == ["one", "", "A title and text", "other"]
    assert data.qrels == {"q1": {"d1": 2, "d9": 1}, "q2": {"d2": 1}}
    said = " ".join(data.notes)
    for part in ("1 queries that test.tsv", "1 documents that test.tsv", "1 queries are empty"):
        assert part in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\nx\td1\t1\n"}, "0 of 3 queries are judged"),
        ({"queries.jsonl": ""}, "0 of 0 queries"),
        ({"corpus.jsonl": ""}, "0 documents"),
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\tmuch\n"}, "and a whole number"),
        ({"qrels/test.tsv": "q1 d1 1\n"}, "1 columns; it should have three"),
        ({"corpus.jsonl": '{"_id": "d", "text": "x"}\n' * 2}, "the id 'd' is there twice"),
    ],
)
def test_parts_that_do_not_belong_together(
    changed: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        read(beir(tmp_path, **changed))


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    (beir(tmp_path) / "corpus.jsonl").unlink()

    with pytest.raises(RecipeError, match="has no corpus.jsonl; BEIR's layout is"):
        read(tmp_path)


def test_drawn_units(tmp_path: Path) -> None:
    rows = [("a", "b", "score"), *((f"a{n}", f"b{n}", n) for n in range(20))]
    pairs = read(table(tmp_path / "sts.csv", *rows)).drawn(5, seed=1)
    assert pairs.scores is not None
    assert pairs.items == [f"{side}{n:g}" for n in pairs.scores for side in "ab"]
    assert "5 of 20 pairs drawn, seed 1" in pairs.notes

    search = read(beir(tmp_path / "beir")).drawn(1, seed=0)
    assert search.queries == 1 and search.ids[1:] == ["d1", "d2"]
    assert search.drawn(9, seed=0) is search


def test_a_digest_is_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    rows = [("text", "label"), ("x", 1), ("y", 0)]
    one = read(table(tmp_path / "a.csv", *rows))
    (tmp_path / "b.jsonl").write_text('{"text": "x", "label": 1}\n{"text": "y", "label": 0}\n')
    other = read(table(tmp_path / "c.csv", *rows[:2], ("y", 1)))

    assert one.sha256() == read(tmp_path / "b.jsonl").sha256() != other.sha256()
    for name in ("p/cat/1.png", "q/cat/9.png", "r/dog/1.png"):
        picture(tmp_path / name)
    p, q, r = (read(tmp_path / name, "image").sha256() for name in "pqr")
    assert p == q != r

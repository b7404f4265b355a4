"""Calibration data: which items are drawn, what names them, and what is refused."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.calibrate import data, draw
from edgessl.errors import RecipeError
from edgessl.spec import Task

LINES = [f"text number {number}" for number in range(50)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def test_seed_decides_the_sample(texts: Path) -> None:
    first = data.load(texts, "text", 10, seed=1)
    assert first == data.load(texts, "text", 10, seed=1)
    other = data.load(texts, "text", 10, seed=2)
    assert set(first.items) != set(other.items) and first.sha256 != other.sha256
    assert len(set(first.items)) == 10 and set(first.items) <= set(LINES)
    assert first.items != sorted(first.items, key=LINES.index)  # a sample, not the first lines
    assert first.to_json() == {"source": "texts.txt", "samples": 10, "sha256": first.sha256}


def test_more_samples_than_texts(texts: Path) -> None:
    assert sorted(data.load(texts, "text", 1000, seed=0).items) == sorted(LINES)


def test_texts_are_stripped_distinct_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("  one \r\n\r\ntwo\n\t\none\n\u3000\nZürich 🙂\n".encode())
    assert sorted(data.load(path, "text", 9, seed=0).items) == ["Zürich 🙂", "one", "two"]


def test_sha256_names_the_content_and_not_the_file(texts: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.log"
    copy.write_text("\r\n\n".join(f" {line}" for line in LINES), encoding="utf-8")
    first, second = (data.load(path, "text", 7, seed=3) for path in (texts, copy))
    assert (first.items, first.sha256) == (second.items, second.sha256)
    assert second.source == "elsewhere.log"


def test_sha256_keeps_the_borders_of_items(tmp_path: Path) -> None:
    found = set()
    for content in ("ab\nc", "a\nbc", "abc"):
        path = tmp_path / "texts.txt"
        path.write_text(content)
        found.add(data.load(path, "text", 9, seed=0).sha256)
    assert len(found) == 3


def test_sha256_by_its_definition(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("é")
    content = "é".encode()
    expected = hashlib.sha256(len(content).to_bytes(8, "little") + content).hexdigest()
    assert data.load(path, "text", 1, seed=0).sha256 == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no texts"),
        (b"\n  \n\t\n", "holds no texts"),
        (b"fine\n\xff\xfe\n", r"not UTF-8 text \(byte 5\)"),
    ],
)
def test_bad_text_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        data.load(path, "text", 5, seed=0)


@pytest.mark.parametrize("samples", [0, -1])
def test_too_few_samples(texts: Path, samples: int) -> None:
    with pytest.raises(RecipeError, match=f"at least 1, not {samples}"):
        data.load(texts, "text", samples, seed=0)


@pytest.mark.parametrize("task", ["text", "image"])
def test_nothing_there(tmp_path: Path, task: Task) -> None:
    with pytest.raises(RecipeError, match="nowhere.*no such file or folder"):
        data.load(tmp_path / "nowhere", task, 5, seed=0)


def test_wrong_kind_for_the_task(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder; a text encoder needs a text file"):
        data.load(tmp_path, "text", 5, seed=0)
    with pytest.raises(RecipeError, match="an image encoder needs a folder of images"):
        data.load(texts, "image", 5, seed=0)
    with pytest.raises(RecipeError, match="holds no images"):
        data.load(tmp_path, "image", 5, seed=0)


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)),
    samples=st.integers(1, 20),
    seed=st.integers(-5, 5),
    shuffle=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=60)
def test_what_is_drawn_from_texts(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    samples: int,
    seed: int,
    shuffle: Any,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path, other = folder / "drawn.txt", folder / "other.txt"
    path.write_text("\n".join(texts), encoding="utf-8", newline="")
    again = texts * 2
    shuffle.shuffle(again)
    other.write_text("\n".join(again), encoding="utf-8", newline="")
    distinct = {text.lstrip("\ufeff" if not n else "").strip() for n, text in enumerate(texts)}
    distinct -= {""}
    if texts[:1] and texts[0][:1] == "\ufeff":
        return  # a byte order mark is part of a text only where it is not the file's first
    if not distinct:
        with pytest.raises(RecipeError, match="holds no texts"):
            data.load(path, "text", samples, seed)
        return
    found = data.load(path, "text", samples, seed)
    assert len(found.items) == len(set(found.items)) == min(samples, len(distinct))
    assert set(found.items) <= distinct and found.available == len(distinct)
    # neither the order of the lines nor how often one is there changes anything
    if again[0][:1] != "\ufeff":
        same = data.load(other, "text", samples, seed)
        assert (same.items, same.sha256) == (found.items, found.sha256)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=200),
    samples=st.integers(1, 60),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_lengths_are_spread_as_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], samples: int, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "lengths.txt"
    texts = [f"{n:03}" + "x" * length for n, length in enumerate(lengths)]
    path.write_text("\n".join(texts), encoding="utf-8")
    found = data.load(path, "text", samples, seed).items
    for limit in range(1, 45):
        ideal = len(found) * np.mean([len(text) <= limit for text in texts])
        assert abs(sum(len(text) <= limit for text in found) - ideal) <= 1


def test_every_text_is_as_likely_as_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"{number:02}" for number in range(40)), encoding="utf-8")
    drawn = [int(text) for seed in range(400) for text in data.load(path, "text", 8, seed).items]
    counts = np.bincount(drawn, minlength=40)
    assert counts.sum() == 3200 and counts.min() > 40 and counts.max() < 130  # 80 each, +- 8


def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("w") as stream:
        for number in range(8000):
            stream.write(f"{number} " + "word " * 500 + "\n")
    tracemalloc.start()
    found = data.load(path, "text", 10, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.items) == 10 and path.stat().st_size > 2e7 and peak < 3e6


def test_too_few_texts_are_all_taken_and_noted(texts: Path) -> None:
    assert data.load(texts, "text", 50, seed=0).notes == ()
    assert data.load(texts, "text", 51, seed=0).notes == (
        "there are 50 distinct texts, not 51; took them all",
    )


def test_a_single_text_is_taken_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("alone\nalone\n")
    found = data.load(tmp_path / "one.txt", "text", 300, seed=0)
    assert found.items == ["alone"]
    assert len(found.notes) == 1 and "one text to calibrate on" in found.notes[0]


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("first\n", encoding="utf-8-sig")
    assert data.load(tmp_path / "texts.txt", "text", 9, seed=0).items == ["first"]


def test_utf16_says_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("first\n", encoding="utf-16")
    with pytest.raises(RecipeError, match="iconv -f UTF-16 -t UTF-8 texts.txt"):
        data.load(tmp_path / "texts.txt", "text", 9, seed=0)


def test_where_a_byte_is_not_utf8_far_into_a_file(tmp_path: Path) -> None:
    content = b"a good line\n" * 5000
    (tmp_path / "texts.txt").write_bytes(content + b"caf\xe9\n" + content)
    with pytest.raises(RecipeError, match=rf"not UTF-8 text \(byte {len(content) + 3}\)"):
        data.load(tmp_path / "texts.txt", "text", 9, seed=0)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("it was number {}\t1", "call the file .tsv"),
        ("1\tit was number {}", "call the file .tsv"),
        ("it was number {},0", "call the file .csv"),
        ("__label__bad it was number {}", "remove the __label__ words"),
        ("it was number {}", None),
        ("number {}, or 12 of them", None),
    ],
)
def test_labels_in_a_text_file_are_noticed(tmp_path: Path, line: str, advice: str | None) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(line.format(f"n{number}") for number in range(40)))
    notes = data.load(path, "text", 10, seed=0).notes
    assert len(notes) == (advice is not None)
    if advice:
        assert advice in notes[0] and "40 of the first 40 lines" in notes[0]


def test_a_file_called_tsv_as_the_note_advises(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(f"it was {number}\t1" for number in range(40)))
    found = data.load(path, "text", 100, seed=0)
    assert sorted(found.items) == sorted(f"it was {number}" for number in range(40))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("texts.txt.gz", "compressed; unpack it: gunzip"),
        ("texts.zip", "unpack it: unzip"),
        ("images.npy", "a text encoder needs a text file"),
        ("scan.PNG", "is a .png; a text encoder needs"),
    ],
)
def test_no_text_files(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(RecipeError, match=advice):
        data.load(tmp_path / name, "text", 5, seed=0)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError, match="reads it twice"):
        data.load(tmp_path / "pipe", "text", 5, seed=0)


def test_column_of_what_is_no_table(texts: Path) -> None:
    with pytest.raises(RecipeError, match="--calibration-column 'text' is for tables"):
        data.load(texts, "text", 5, seed=0, column="text")


def test_a_file_that_changes_between_the_two_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\n")
    spread = draw._spread

    def change(tickets: Any, lengths: Any, samples: int) -> list[int]:
        path.write_text("three\nfour\n")
        return spread(tickets, lengths, samples)

    monkeypatch.setattr(draw, "_spread", change)
    with pytest.raises(RecipeError, match="changed while it was read"):
        data.load(path, "text", 5, seed=0)

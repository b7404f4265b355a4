"""Items: shapes, texts of exactly so many tokens, and those of a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import RecipeError
from edgessl.gate.measuring import workload
from edgessl.gate.measuring.workload import Shape
from edgessl.spec import AudioSpec, ImageSpec, Task, TextSpec, VideoSpec


def count(texts: list[str]) -> list[int]:
    """A tokenizer with two special tokens, for which long words are two."""
    return [2 + sum(1 + (len(word) > 4) for word in text.split()) for text in texts]


@pytest.mark.parametrize(
    ("shape", "task", "parsed"),
    [
        ("8x32", "text", Shape(8, 32)),
        ("1x256", "text", Shape(1, 256)),
        ("16", "text", Shape(16)),
        ("8", "image", Shape(8)),
        ("8", None, Shape(8)),
        ("corpus", "audio", Shape(0)),
    ],
)
def test_shapes(shape: str, task: Task | None, parsed: Shape) -> None:
    assert workload.parse(shape, task, 256) == parsed


@pytest.mark.parametrize(
    ("shape", "task", "message"),
    [
        ("0x5", "text", "at least one item"),
        ("5x0", "text", "at least one token"),
        ("0", "image", "at least one item"),
        ("1x257", "text", "takes at most 256 tokens"),
        ("1x32", "image", "BxL is for texts, this is image. Say 1."),
        ("4x32", None, "here is none. Say 4."),
        ("-1", "text", "is neither BxL"),
        ("1x2x3", "text", "is neither BxL"),
        ("1,32", "text", "is neither BxL"),
        ("", "text", "is neither BxL"),
    ],
)
def test_shapes_that_make_no_sense(shape: str, task: Task | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        workload.parse(shape, task, 256)


def test_usual_shapes() -> None:
    assert workload.usual("single-stream", "text", None) == "1x32"
    assert workload.usual("server", "text", None) == "1x32"
    assert workload.usual("multi-stream", "image", None) == "8"
    assert workload.usual("offline", "text", None) == "256"
    assert workload.usual("offline", "text", "texts.txt") == "corpus"
    assert workload.usual("multi-stream", None, None) == "8"  # nobody counts tokens


def test_items_of_a_query() -> None:
    assert workload.per_query("offline", Shape(0), 300) == 300
    assert workload.per_query("multi-stream", Shape(0), 300) == 8
    assert workload.per_query("multi-stream", Shape(0), 5) == 5
    assert workload.per_query("server", Shape(0), 300) == 1
    assert workload.per_query("offline", Shape(12, 7), 300) == 12


@pytest.mark.parametrize("tokens", [3, 4, 32])
def test_texts_of_exactly_so_many_tokens(tokens: int) -> None:
    items = workload.make(Shape(8, tokens), TextSpec(256), count, seed=3)
    assert len(items) % 8 == 0 and len(items) >= 64
    assert set(count(items)) == {tokens}
    assert len(set(items)) > 30 if tokens == 3 else len(set(items)) == len(items)
    assert items == workload.make(Shape(8, tokens), TextSpec(256), count, seed=3)
    assert items != workload.make(Shape(8, tokens), TextSpec(256), count, seed=4)


def test_one_query_may_be_larger_than_the_pool() -> None:
    assert len(workload.make(Shape(100, 5), TextSpec(256), count, seed=0)) == 100


@pytest.mark.parametrize("tokens", [1, 2])
def test_texts_that_cannot_be(tokens: int) -> None:
    with pytest.raises(RecipeError, match=f"of exactly {tokens} tokens .* --data FILE"):
        workload.make(Shape(1, tokens), TextSpec(256), count, seed=0)


def test_a_tokenizer_that_joins_words() -> None:
    """Counts that do not add up are an error, not texts of another length."""
    with pytest.raises(RecipeError, match="of exactly 9 tokens"):
        workload.make(
            Shape(1, 9), TextSpec(256), lambda texts: [2 + len(t) // 900 for t in texts], seed=0
        )


def test_ragged_texts() -> None:
    lengths = count(workload.make(Shape(256), TextSpec(256), count, seed=0))
    assert len(lengths) == 256 and len(set(lengths)) > 20 and min(lengths) >= 5


def test_images_recordings_and_clips() -> None:
    images = workload.make(Shape(1), ImageSpec(24, 32), count, seed=0)
    assert len(images) == 64 and {i.shape for i in images} == {(24, 32, 3)}
    assert images[0].dtype == np.uint8 and not np.array_equal(images[0], images[1])
    (clip, *_) = workload.make(Shape(1), VideoSpec(4, 8, 8), count, seed=0)
    assert clip.shape == (4, 8, 8, 3)
    (sound, *_) = workload.make(Shape(1), AudioSpec(100, 250, ((10, 5),)), count, seed=0)
    assert sound.shape == (250,) and sound.dtype == np.float32


def test_a_corpus_is_drawn_once_and_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"text {n}\n" for n in range(50)))
    everything = workload.corpus(str(path), None, "text", seed=1)
    assert sorted(everything) == sorted(f"text {n}" for n in range(50))
    assert everything == workload.corpus(str(path), None, "text", seed=1)
    assert everything != workload.corpus(str(path), None, "text", seed=2)
    monkeypatch.setitem(workload.MOST, "text", 10)
    drawn = [workload.corpus(str(path), None, "text", seed) for seed in range(200)]
    assert {len(set(texts)) for texts in drawn} == {10}
    numbers = [int(text.split()[1]) for texts in drawn for text in texts]
    assert np.mean(numbers) == pytest.approx(24.5, abs=1.5)  # no part of the file is preferred


def test_a_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("body,stars\ngood,5\nbad,1\n")
    assert sorted(workload.corpus(str(path), "body", "text", 0)) == ["bad", "good"]
    with pytest.raises(RecipeError, match="no column 'bdy'"):
        workload.corpus(str(path), "bdy", "text", 0)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for name in ("empty.txt", "absent.txt"):
        with pytest.raises(RecipeError, match=name):
            workload.corpus(str(tmp_path / name), None, "text", 0)


def test_items_are_written_for_workers(tmp_path: Path) -> None:
    workload.write(["a", np.zeros(2)], tmp_path / "items")
    text, array = pickle.loads((tmp_path / "items").read_bytes())
    assert text == "a" and array.shape == (2,)

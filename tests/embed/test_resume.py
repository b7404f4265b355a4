"""Jobs that were stopped: going on does nothing twice, and a change is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.embed import job, parts, vectors
from edgessl.errors import OutputError, RecipeError
from tests.fake_session import FakeSession, expected, save_bundle

Run = Callable[..., dict[str, Any]]


class Stop(BaseException):
    pass


def stopped_after(session: FakeSession, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs end after so many parts, until the patch is undone."""
    write, count = parts.write, 0

    def stopping(folder: Path, part: parts.Part) -> None:
        nonlocal count
        write(folder, part)
        count += 1
        if count == blocks:
            raise Stop

    monkeypatch.setattr(parts, "write", stopping)


@pytest.fixture
def stopped(
    texts: list[str], run: Run, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """``run`` after a job for out.npz was stopped with 30 of 47 rows done."""
    with monkeypatch.context() as patch:
        stopped_after(session, 3, patch)
        with pytest.raises(Stop):
            run("texts.txt", "out.npz", dtype="int8")
    session.blocks.clear()
    return run


def test_going_on_does_nothing_twice(
    stopped: Run, session: FakeSession, texts: list[str], place: Path
) -> None:
    assert job.safe(place / ".out.npz.job").startswith("30 rows are safe in .out.npz.job")

    found = stopped("texts.txt", "out.npz", dtype="int8")

    assert session.blocks == [10, 7]
    assert (found["resumed"], found["rows"], found["embedded"]) == (30, 47, 47)
    stopped("texts.txt", "whole.npz", dtype="int8")
    assert (place / "out.npz").read_bytes() == (place / "whole.npz").read_bytes()
    assert not [name for name in os.listdir(place) if name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda place: (place / "texts.txt").write_text("a\n" * 50), "texts.txt has changed"),
        (lambda place: os.utime(place / "texts.txt", (1, 1)), "texts.txt has changed"),
        (lambda place: {"dtype": "float16"}, "dtype was 'int8', now 'float16'"),
        (lambda place: {"prompt": "q: "}, "options was {}, now {'prompt': 'q: '}"),
        (lambda place: {"block_rows": 5}, "rows a part was 10, now 5"),
    ],
)
def test_a_change_is_refused_until_restarted(
    change: Callable[[Path], Any], says: str, stopped: Run, place: Path
) -> None:
    changed = change(place)
    options = {"dtype": "int8", **(changed if isinstance(changed, dict) else {})}

    with pytest.raises(RecipeError) as caught:
        stopped("texts.txt", "out.npz", **options)

    assert says in str(caught.value) and "after 30 rows" in str(caught.value)
    assert "--restart" in str(caught.value)
    found = stopped("texts.txt", "out.npz", restart=True, **options)
    assert found["resumed"] == 0 and found["rows"] >= 47


def test_another_bundle_or_more_inputs_are_refused(stopped: Run, place: Path) -> None:
    with pytest.raises(RecipeError, match="the inputs were .*texts.txt, now .*,"):
        stopped("texts.txt", "texts.txt", "out.npz", dtype="int8")
    (place / "bundle").rename(place / "moved")
    save_bundle(place / "bundle", variant="f" * 16)
    with pytest.raises(RecipeError, match="variant was '0123456789abcdef', now 'ffff"):
        stopped("texts.txt", "out.npz", dtype="int8")
    found = job.run("moved", ["texts.txt"], "out.npz", dtype="int8", block_rows=10)
    assert found["resumed"] == 30  # where the bundle lies does not matter


def test_speed_options_may_change(stopped: Run) -> None:
    found = stopped("texts.txt", "out.npz", dtype="int8", threads=1, batch_tokens=64)

    assert found["resumed"] == 30


def test_parts_in_any_order_with_holes(
    texts: list[str], run: Run, session: FakeSession, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stopped_after(session, 5, patch)
        with pytest.raises(Stop):
            run("texts.txt", "out.npy")
    for entry in parts.listed(place / ".out.npy.job"):
        if entry.number in (0, 3):
            entry.path.unlink()
    session.blocks.clear()

    run("texts.txt", "out.npy")

    assert session.blocks == [10, 10]
    assert np.array_equal(vectors.read(place / "out.npy")[1], expected(texts))


def test_a_damaged_part_is_named(stopped: Run, place: Path) -> None:
    (part,) = (place / ".out.npz.job").glob("part-00000001-*")
    part.write_bytes(part.read_bytes()[:100])

    with pytest.raises(OutputError, match="part-00000001-10-0.npz is damaged. Remove it"):
        stopped("texts.txt", "out.npz", dtype="int8")

    part.unlink()
    assert stopped("texts.txt", "out.npz", dtype="int8")["rows"] == 47


def test_an_input_that_changes_meanwhile(
    texts: list[str], run: Run, session: FakeSession, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = parts.write

    def changing(folder: Path, part: parts.Part) -> None:
        write(folder, part)
        (place / "texts.txt").write_text("other\n" * 47)

    monkeypatch.setattr(parts, "write", changing)
    with pytest.raises(RecipeError, match="changed while it was read: .*texts.txt has changed"):
        run("texts.txt", "out.npy")
    assert not (place / "out.npy").exists()

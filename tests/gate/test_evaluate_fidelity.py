"""Fidelity against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from edgessl.errors import RecipeError
from edgessl.gate.evaluate import fidelity, spaces
from edgessl.gate.evaluate.data import PLAIN, RETRIEVAL, Data
from edgessl.gate.evaluate.spaces import Space

RNG = np.random.default_rng(1)
ROWS = RNG.normal(size=(60, 8)).astype(np.float32)
NEAR = (ROWS + RNG.normal(0, 0.3, ROWS.shape)).astype(np.float32)


def data(size: int, queries: int = 0) -> Data:
    names = [f"item {number}" for number in range(size)]
    return Data("data", RETRIEVAL if queries else PLAIN, names, names, queries=queries)


def brute_neighbours(queries: Any, index: Any, k: int, own: bool = True) -> list[set[int]]:
    near = 1 - distance.cdist(queries, index, "cosine")
    if own:
        np.fill_diagonal(near, -9)
    return [set(np.argsort(-row)[:k].tolist()) for row in near]


def overlap(sides: list[list[set[int]]], k: int) -> float:
    return float(np.mean([len(a & b) / k for a, b in zip(*sides, strict=True)]))


def test_cosines() -> None:
    found = spaces.cosines(Space.of(NEAR), Space.of(ROWS))

    wanted = [1 - distance.cosine(a, b) for a, b in zip(NEAR, ROWS, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    measured = [
        kind(data(60), Space.of(NEAR), Space.of(ROWS), 10)
        for kind in (fidelity.cosine_mean, fidelity.cosine_p1, fidelity.cosine_min)
    ]
    assert [m.value for m in measured] == pytest.approx(
        [np.mean(wanted), np.quantile(wanted, 0.01), min(wanted)], abs=1e-6
    )
    assert measured[2].facts["id"] == f"item {int(np.argmin(wanted))}"


def test_identical_vectors_are_exactly_1_and_lost_ones_minus_1() -> None:
    lost = ROWS.copy()
    lost[3, 2], lost[4] = np.nan, np.inf
    found = spaces.cosines(Space.of(lost), Space.of(ROWS))

    assert found[[3, 4]].tolist() == [-1, -1]
    assert (np.delete(found, [3, 4]) == 1).all()
    assert spaces.cosines(Space.of(0 * ROWS), Space.of(ROWS)).max() == 0


@pytest.mark.parametrize("block", [1 << 22, 100])
def test_neighbours_in_both_spaces(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "_BLOCK", block)
    found = fidelity.neighbours(data(60), Space.of(NEAR), Space.of(ROWS), 5)

    sides = [brute_neighbours(rows, rows, 5) for rows in (NEAR, ROWS)]
    assert found.value == pytest.approx(overlap(sides, 5))
    assert 0.2 < found.value < 0.9


def test_queries_in_the_old_index() -> None:
    found = fidelity.index_recall(data(60), Space.of(NEAR), Space.of(ROWS), 5)

    mixed = brute_neighbours(NEAR, ROWS, 5)
    assert found.value == pytest.approx(overlap([mixed, brute_neighbours(ROWS, ROWS, 5)], 5))


def test_real_queries_look_among_the_documents() -> None:
    found = fidelity.index_recall(data(60, queries=7), Space.of(NEAR), Space.of(ROWS), 5)

    sides = [brute_neighbours(rows[:7], ROWS[7:], 5, own=False) for rows in (NEAR, ROWS)]
    assert found.sizes == (7,)
    assert found.value == pytest.approx(overlap(sides, 5))


def test_a_turned_space_keeps_its_neighbours_and_fits_no_old_index() -> None:
    turn, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
    turned = Space.of((ROWS @ turn).astype(np.float32))

    assert fidelity.neighbours(data(60), turned, Space.of(ROWS), 5).value == 1
    assert fidelity.similarities(data(60), turned, Space.of(ROWS), 5).value > 0.9999
    assert fidelity.index_recall(data(60), turned, Space.of(ROWS), 5).value < 0.4


def test_equal_items_do_not_make_equal_encoders_differ() -> None:
    rows = np.repeat(ROWS[:3], 20, axis=0)
    shaken = (rows * (1 + 1e-7 * RNG.normal(size=rows.shape))).astype(np.float32)

    assert fidelity.neighbours(data(60), Space.of(shaken), Space.of(rows), 5).value == 1


def test_ranks_of_similarities() -> None:
    found = fidelity.similarities(data(60), Space.of(NEAR), Space.of(ROWS), 10)

    near = [1 - distance.cdist(rows, rows, "cosine") for rows in (NEAR, ROWS)]
    others = ~np.eye(60, dtype=bool)
    wanted = [
        stats.spearmanr(a[keep], b[keep]).statistic
        for a, b, keep in zip(*near, others, strict=True)
    ]
    assert found.value == pytest.approx(np.mean(wanted), abs=1e-4)


def test_fewer_items_than_neighbours_would_say_nothing() -> None:
    with pytest.raises(RecipeError, match="neighbours@10 needs more than 20 items.* has 20"):
        fidelity.neighbours(data(20), Space.of(ROWS[:20]), Space.of(ROWS[:20]), 10)


def test_of_many_items_some_look_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "QUERIES", 9)
    found = fidelity.neighbours(data(60), Space.of(NEAR), Space.of(ROWS), 5)

    assert found.sizes == (9,) and found.facts["among"] == 60


@pytest.mark.parametrize(
    ("recall", "said"),
    [(0.96, "yes"), (0.95, "yes"), (0.949, "only"), (0.8, "only"), (0.79, "no,")],
)
def test_verdict_on_the_old_index(recall: float, said: str) -> None:
    assert fidelity.verdict(recall, 10).startswith(said)
    assert f"{(1 - recall) * 10:.1f} of the 10" in fidelity.verdict(recall, 10)

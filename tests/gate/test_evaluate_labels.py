"""Labelled metrics against published examples and the libraries that others use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from edgessl.errors import RecipeError
from edgessl.gate.evaluate import classify, cluster, retrieval, sts
from edgessl.gate.evaluate.data import LABELLED, PAIRS, RETRIEVAL, Data
from edgessl.gate.evaluate.spaces import Space

RNG = np.random.default_rng(2)


def pairs(rows: Any, scores: list[float]) -> Data:
    names = list(range(len(rows)))
    return Data("pairs", PAIRS, names, names, scores=np.array(scores))


def labelled(labels: list[str], held_out: list[bool] | None = None) -> Data:
    names = list(range(len(labels)))
    side = None if held_out is None else np.array(held_out)
    return Data("labels", LABELLED, names, names, labels=np.array(labels), held_out=side)


def graded(relevances: dict[str, int], found: list[str], own: str = "q") -> tuple[Data, Space]:
    """A query that finds the documents *found* in this order, and then the others."""
    names = [*found, *(name for name in relevances if name not in found)]
    angles = np.linspace(0.1, 1.5, len(names))
    rows = np.array([[1, 0], *zip(np.cos(angles), np.sin(angles), strict=True)], np.float32)
    data = Data(
        "search", RETRIEVAL, [own, *names], [own, *names], queries=1, qrels={own: relevances}
    )
    return data, Space.of(rows)


def test_sts_is_what_scipy_says() -> None:
    rows = RNG.normal(size=(60, 5)).astype(np.float32)
    near = [1 - distance.cosine(a, b) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    scores = (np.array(near) + RNG.normal(0, 0.4, 30)).round(1).tolist()
    data = pairs(rows, scores)

    spearman, pearson = (f(data, Space.of(rows), 0, 0) for f in (sts.spearman, sts.pearson))

    assert spearman.value == pytest.approx(stats.spearmanr(near, scores).statistic, abs=1e-6)
    assert pearson.value == pytest.approx(stats.pearsonr(near, scores).statistic, abs=1e-6)


def test_an_encoder_that_says_the_same_of_everything_has_no_correlation() -> None:
    rows = np.ones((40, 5), np.float32)

    found = sts.spearman(pairs(rows, np.arange(20.0).tolist()), Space.of(rows), 0, 0)

    assert found.value == 0


@pytest.mark.parametrize(
    ("scores", "said"), [([1.0] * 20, "every score is 1.0"), ([1.0, 2.0], "2 pairs; it takes")]
)
def test_scores_that_tell_nothing(scores: list[float], said: str) -> None:
    rows = RNG.normal(size=(2 * len(scores), 5)).astype(np.float32)

    with pytest.raises(RecipeError, match=said):
        sts.spearman(pairs(rows, scores), Space.of(rows), 0, 0)


def test_ndcg_of_a_published_example() -> None:
    """Of Wikipedia's article on discounted cumulative gain: six documents found, eight judged."""
    relevances = {"D1": 3, "D2": 2, "D3": 3, "D4": 0, "D5": 1, "D6": 2, "D7": 3, "D8": 2}
    data, space = graded(relevances, ["D1", "D2", "D3", "D4", "D5", "D6"])

    assert retrieval.ndcg(data, space, 6, 0).value == pytest.approx(0.785, abs=5e-4)
    # seven of the eight are relevant, and five of those were found
    assert retrieval.recall(data, space, 6, 0).value == pytest.approx(5 / 7)


def test_a_document_that_is_the_query_is_not_found_unless_it_is_judged() -> None:
    relevances = {"a": 1, "b": 0}
    data, space = graded(relevances, ["q", "a", "b"])
    assert retrieval.ndcg(data, space, 1, 0).value == 1

    data, space = graded({**relevances, "q": 0}, ["q", "a", "b"])
    assert retrieval.ndcg(data, space, 1, 0).value == 0


def test_a_query_that_finds_nothing_but_itself() -> None:
    data, space = graded({"a": 1}, ["q"])
    alone = replace(data, items=data.items[:2], ids=data.ids[:2])

    assert retrieval.recall(alone, Space.of(space.rows[:2]), 5, 0).value == 0


def test_more_asked_for_than_there_are_documents() -> None:
    data, space = graded({"a": 1, "unknown": 1}, ["b", "a"])
    data = replace(data, items=data.items[:-1], ids=data.ids[:-1])
    space = Space.of(space.rows[:-1])

    assert retrieval.recall(data, space, 100, 0).value == 0.5


def classes(size: int, spread: float) -> tuple[list[str], Any]:
    labels = [f"class {number % 3}" for number in range(size)]
    centres = np.array([[5, 0, 0], [0, 5, 0], [0, 0, 5]])[np.arange(size) % 3]
    return labels, (centres + RNG.normal(0, spread, (size, 3))).astype(np.float32)


def test_classes_that_lie_apart_are_told_apart() -> None:
    labels, rows = classes(90, 0.5)
    data = classify.split(labelled(labels), seed=0)

    assert classify.probe(data, Space.of(rows), 5, 0).value == 1
    assert classify.knn(data, Space.of(rows), 5, 0).value == 1
    assert cluster.vmeasure(data, Space.of(rows), 5, 0).value == pytest.approx(1)


def test_noise_is_no_better_than_chance() -> None:
    labels, _ = classes(300, 0)
    rows = RNG.normal(size=(300, 3)).astype(np.float32)
    data = classify.split(labelled(labels), seed=0)

    for judge in (classify.probe, classify.knn):
        assert judge(data, Space.of(rows), 5, 0).value == pytest.approx(1 / 3, abs=0.12)
    assert cluster.vmeasure(data, Space.of(rows), 5, 0).value < 0.05


def test_neighbours_vote_by_cosine() -> None:
    labels, rows = classes(60, 4)
    rows *= RNG.uniform(0.1, 9, (60, 1)).astype(np.float32)  # lengths say nothing
    held_out = [number >= 30 for number in range(60)]

    found = classify.knn(labelled(labels, held_out), Space.of(rows), 3, 0)

    near = distance.cdist(rows[30:], rows[:30], "cosine").argsort(axis=1)[:, :3]
    votes = [sorted(labels[place] for place in row) for row in near]
    said = [max(row, key=row.count) for row in votes]  # of equal ones the first by name
    assert found.value == np.mean([a == b for a, b in zip(said, labels[30:], strict=True)])
    assert found.facts == {"unit": "test items", "train": 30, "classes": 3, "k": 3}


def test_dimensions_of_other_sizes_count_alike_for_a_probe() -> None:
    labels, rows = classes(90, 1)
    data = classify.split(labelled(labels), seed=0)
    scaled = (rows * np.array([1e-3, 1, 1e3]) + 7).astype(np.float32)

    plain, other = (classify.probe(data, Space.of(r), 5, 0).value for r in (rows, scaled))
    assert plain == pytest.approx(other, abs=0.03)


def test_a_drawn_split_has_the_classes_in_proportion() -> None:
    data = classify.split(labelled(["a"] * 40 + ["b"] * 20 + ["c"]), seed=3)

    assert data.labels is not None and data.held_out is not None
    assert len(data.labels) == 60 and data.held_out.sum() == 30
    assert (data.labels[data.held_out] == "a").sum() == 20
    assert "labels of a single item, left out: c" in data.notes
    again = classify.split(labelled(["a"] * 40 + ["b"] * 20 + ["c"]), seed=3)
    assert again.held_out is not None and (again.held_out == data.held_out).all()


def test_a_given_split_is_kept_and_new_labels_are_named() -> None:
    side = [False, False, True, True]
    data = classify.split(labelled(["a", "b", "a", "z"], side), seed=0)

    assert data.held_out is not None and data.held_out.tolist() == side
    assert any("only the test has" in note and "z" in note for note in data.notes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a"] * 9, "every label is 'a'"),
        ([], "no labelled items"),
        ([str(number) for number in range(30)], "30 of 30 items have a label that no other has"),
    ],
)
def test_labels_that_are_no_classes(labels: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        classify.split(labelled(labels), seed=0)


def test_nothing_to_train_with() -> None:
    labels, rows = classes(6, 1)

    with pytest.raises(RecipeError, match="no item is left to train with"):
        classify.probe(labelled(labels, [True] * 6), Space.of(rows), 5, 0)
    with pytest.raises(RecipeError, match="has 3 items to learn from"):
        classify.knn(labelled(labels, [True, False] * 3), Space.of(rows), 5, 0)
    with pytest.raises(RecipeError, match="every label to train with is 'a'"):
        classify.probe(labelled(["a", "a", "b"], [False, False, True]), Space.of(rows[:3]), 5, 0)


def test_fewer_different_vectors_than_clusters() -> None:
    labels, rows = classes(30, 0)

    found = cluster.vmeasure(labelled(labels), Space.of(np.ones_like(rows)), 5, 0)

    assert found.value == 0
    with pytest.raises(RecipeError, match="a label of its own"):
        cluster.vmeasure(labelled(["a", "b"]), Space.of(rows[:2]), 5, 0)

"""The objectives against their formulas, written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgessl.compress import objectives
from edgessl.compress.objectives import OBJECTIVES
from edgessl.compress.order import ByLength
from edgessl.errors import RecipeError

Array = npt.NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(found: torch.Tensor, wanted: float) -> None:
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_embedding() -> None:
    student, teacher = drawn(5, 8), drawn(5, 8, seed=1)
    one, other = student.numpy(), teacher.numpy()
    cosines = (unit(one) * unit(other)).sum(1)
    distance = ((one - other) ** 2).sum() / (other**2).sum()
    near(objectives.embedding(student, teacher), 1 - cosines.mean() + distance)


def test_similarity_of_vectors_of_other_widths() -> None:
    student, teacher = drawn(5, 8), drawn(5, 3, seed=1)
    gaps = unit(student.numpy()) @ unit(student.numpy()).T
    gaps -= unit(teacher.numpy()) @ unit(teacher.numpy()).T
    wanted = np.mean([gaps[i, j] ** 2 for i in range(5) for j in range(5) if i != j])
    near(objectives.similarity(student, teacher), wanted)


def test_hidden_does_not_count_padding() -> None:
    student, teacher = drawn(2, 4, 6), drawn(2, 4, 6, seed=1)
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    one, other = (side.numpy()[real.numpy()] for side in (student, teacher))
    near(objectives.hidden(student, teacher, real), ((one - other) ** 2).sum() / (other**2).sum())
    near(
        objectives.hidden(student, teacher),
        float((student - teacher).square().sum() / teacher.square().sum()),
    )


def shares(rows: Array, columns: Array, heads: int) -> Array:
    """``(heads, tokens, tokens)``: the relations of one item."""
    found = []
    for first, second in zip(np.split(rows, heads, 1), np.split(columns, heads, 1), strict=True):
        scores = np.exp(first @ second.T / np.sqrt(first.shape[1]))
        found.append(scores / scores.sum(1, keepdims=True))
    return np.array(found)


@pytest.mark.parametrize(
    "name, kinds", [("attention", [(0, 0), (1, 1), (2, 2)]), ("tokens", [(0, 1), (2, 2)])]
)
def test_relations(name: str, kinds: list[tuple[int, int]]) -> None:
    """The student is narrower, and of two items one is padded."""
    student: Any = tuple(drawn(2, 5, 24, seed=n) for n in range(3))
    teacher: Any = tuple(drawn(2, 5, 48, seed=n + 3) for n in range(3))
    lengths = (5, 3)
    real = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    wanted = []
    for one, other in kinds:
        rows = []
        for item, count in enumerate(lengths):
            said, told = (
                shares(side[one][item, :count].numpy(), side[other][item, :count].numpy(), 12)
                for side in (student, teacher)
            )
            divergence = (told * np.log(told / said)).sum(2)  # of each head and token
            rows += divergence.mean(0).tolist()
        wanted.append(np.mean(rows))
    near(OBJECTIVES[name].loss(student, teacher, real), float(np.mean(wanted)))


def test_relation_heads_divide_every_width() -> None:
    """Of a pruned student with 5 heads of 32, and a teacher with 12."""
    student: Any = tuple(drawn(1, 4, 160, seed=n) for n in range(3))
    teacher: Any = tuple(drawn(1, 4, 384, seed=n + 3) for n in range(3))
    said, told = (shares(side[0][0].numpy(), side[0][0].numpy(), 8) for side in (student, teacher))
    wanted = (told * np.log(told / said)).sum(2).mean()
    only: Any = [(side[0],) * 3 for side in (student, teacher)]
    near(objectives.attention(*only), wanted)


def test_logits() -> None:
    scores = drawn(4, 3).numpy(), drawn(4, 3, seed=1).numpy()

    def softmax(values: Array) -> Array:
        return np.asarray(np.exp(values) / np.exp(values).sum(1, keepdims=True))

    said, told = (softmax(side / objectives.TEMPERATURE) for side in scores)
    wanted = (told * np.log(told / said)).sum(1).mean() * objectives.TEMPERATURE**2
    near(objectives.logits(*(torch.from_numpy(softmax(side)) for side in scores)), wanted)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "similarity"])
def test_what_is_the_same_costs_nothing(name: str) -> None:
    row = OBJECTIVES[name]
    made: Any = {
        "vector": drawn(4, 12).softmax(-1),
        "hidden": drawn(2, 3, 12),
        "projections": tuple(drawn(2, 3, 12, seed=n) for n in range(3)),
    }[row.needs]
    assert float(row.loss(made, made, None)) == pytest.approx(0, abs=1e-6)


def test_which_layers_learn_from_which() -> None:
    assert objectives.evenly(3, 6) == [(0, 1), (1, 3), (2, 5)]
    assert objectives.evenly(4, 6) == [(0, 0), (1, 2), (2, 3), (3, 5)]
    assert objectives.last(3, 6) == [(2, 5)]
    assert objectives.deep(3, 12) == [(2, 8)]
    assert objectives.both_deep(4, 12) == [(2, 8)]


def test_weights() -> None:
    assert objectives.read(["embedding", "hidden=0.5"]) == {"embedding": 1.0, "hidden": 0.5}
    for given, said in (
        (["embeding"], "Did you mean 'embedding'?"),
        (["hidden=0"], "above 0"),
        (["hidden=much"], "above 0"),
        (["hidden=nan"], "above 0"),
        ([], "no objective"),
    ):
        with pytest.raises(RecipeError, match=said):
            objectives.read(given)


def test_batches_are_of_similar_length_and_of_every_item() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    order = ByLength(lengths.tolist(), 16, seed=3)
    first = list(order)
    assert sorted(first) == list(range(1000)) and list(order) == first
    spreads = [np.ptp(lengths[first[n : n + 16]]) for n in range(0, 1000, 16)]
    assert np.mean(spreads) < 10
    order.set_epoch(1)
    assert list(order) != first

"""Resampled figures against what scipy, scikit-learn and numpy say of the resample written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import v_measure_score

from edgessl.gate.evaluate import bootstrap, cluster
from edgessl.gate.evaluate.bootstrap import Measured

RNG = np.random.default_rng(0)
SIZE = 40
LEFT = RNG.normal(size=SIZE).round(1)  # with ties
RIGHT = (LEFT + RNG.normal(size=SIZE)).round(1)
COUNTS = RNG.multinomial(SIZE, np.full(SIZE, 1 / SIZE), size=25).astype(np.float64)

PAIRED: list[tuple[Callable[..., bootstrap.Statistic], Callable[..., float]]] = [
    (bootstrap.spearman, lambda x, y: float(stats.spearmanr(x, y).statistic)),
    (bootstrap.pearson, lambda x, y: float(stats.pearsonr(x, y).statistic)),
]


def written_out(values: Any, counts: Any) -> Any:
    return np.repeat(values, counts.astype(int), axis=0)


@pytest.mark.parametrize(("kind", "expected"), PAIRED, ids=["spearman", "pearson"])
def test_correlations_of_every_resample(kind: Any, expected: Any) -> None:
    found = kind(LEFT, RIGHT)(COUNTS)

    wanted = [expected(written_out(LEFT, row), written_out(RIGHT, row)) for row in COUNTS]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(("kind", "expected"), PAIRED, ids=["spearman", "pearson"])
def test_a_resample_that_does_not_vary_has_no_correlation(kind: Any, expected: Any) -> None:
    counts = np.zeros((1, SIZE))
    counts[0, 3] = SIZE

    assert np.isnan(kind(LEFT * 1e-9, RIGHT)(counts)).all()


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_quantiles_of_every_resample(fraction: float) -> None:
    found = bootstrap.quantile(LEFT, fraction)(COUNTS)

    np.testing.assert_allclose(
        found, [np.quantile(written_out(LEFT, row), fraction) for row in COUNTS]
    )


def test_means_of_every_resample() -> None:
    found = bootstrap.mean(LEFT)(COUNTS)

    np.testing.assert_allclose(found, [written_out(LEFT, row).mean() for row in COUNTS])


def test_v_measures_of_every_resample_averaged_over_drawn_starts() -> None:
    labels = RNG.integers(4, size=SIZE).astype(str)
    assigned = [RNG.integers(5, size=SIZE) for _ in range(3)]
    starts = np.array([[1, 1, 1], [3, 0, 0], [0, 1, 2]] * 8, np.float64)
    counts = np.hstack([COUNTS[:24], starts])

    found = cluster.statistic(labels, assigned)(counts)

    for row, value in zip(counts, found, strict=True):
        each = [
            v_measure_score(written_out(labels, row[:SIZE]), written_out(own, row[:SIZE]))
            for own in assigned
        ]
        assert value == pytest.approx(np.average(each, weights=row[SIZE:]), abs=1e-12)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    truth, held = 0.3, 0
    for _ in range(150):
        hard = RNG.normal(size=60)  # both find the same items hard
        left, right = (
            Measured(bootstrap.mean(hard + RNG.normal(shift, 0.5, 60)), (60,))
            for shift in (truth, 0)
        )
        drawn = bootstrap.resampled(left, 0) - bootstrap.resampled(right, 0)
        (low, high), _ = bootstrap.spread(drawn)  # type: ignore[misc]
        held += low <= truth <= high
        assert high - low < 0.5  # unpaired it would be 0.7
    assert 132 <= held <= 149


def test_every_kind_of_unit_is_resampled_by_itself() -> None:
    seen = []

    def statistic(counts: Any) -> Any:
        seen.append(counts)
        return counts[:, 0]

    bootstrap.resampled(Measured(statistic, (7, 3)), 0)

    counts = np.concatenate(seen)
    assert counts.shape == (bootstrap.RESAMPLES, 10)
    assert (counts[:, :7].sum(axis=1) == 7).all() and (counts[:, 7:].sum(axis=1) == 3).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)


def test_many_units_go_in_pieces_and_the_same_seed_gives_the_same() -> None:
    values = RNG.normal(size=3000)
    measured = Measured(bootstrap.mean(values), (3000,))

    found = bootstrap.resampled(measured, 5)

    assert len(found) == bootstrap.RESAMPLES
    assert found.std() == pytest.approx(values.std() / np.sqrt(3000), rel=0.1)
    np.testing.assert_array_equal(found, bootstrap.resampled(measured, 5))
    assert (found != bootstrap.resampled(measured, 6)).any()


def test_answers_none_of_which_differ_leave_the_rule_of_three() -> None:
    right = np.ones(100)
    measured = Measured(bootstrap.mean(right), (100,), discrete=True)
    own = bootstrap.resampled(measured, 0)

    interval, facts = bootstrap.spread(bootstrap.differences(own, own, measured, 0))

    assert interval == pytest.approx((-0.03, 0.03), abs=0.01)
    assert facts["standard_error"] > 0


def test_quantiles_are_those_of_the_resamples() -> None:
    values = np.append(np.arange(2001.0), np.nan)

    interval, facts = bootstrap.spread(values)

    assert interval == (50.0, 1950.0)
    assert facts["quantiles"]["0.005"] == 10 and facts["quantiles"]["0.995"] == 1990
    assert list(facts["quantiles"]) == sorted(facts["quantiles"], key=float)
    assert bootstrap.spread(np.array([np.nan])) == (None, {})

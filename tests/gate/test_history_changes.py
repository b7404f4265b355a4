"""Change points: found where there are some, and not where there are none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgessl.gate.history import changes
from edgessl.gate.history.series import Change

Noise = npt.NDArray[np.float64]


def _noise(kind: str, count: int, rng: np.random.Generator, spread: float = 0.02) -> Noise:
    """Logarithms of how reports of one level differ."""
    if kind == "heavy":
        return np.asarray(rng.standard_t(3, count)) * spread
    found = rng.normal(0, spread, count)
    if kind == "outliers":  # jobs with a bad neighbour
        bad = rng.random(count) < 0.07
        found[bad] += rng.exponential(0.15, int(bad.sum()))
    return np.round(found, 2) if kind == "rounded" else found


@pytest.mark.parametrize("kind", ["normal", "outliers", "heavy", "rounded"])
@pytest.mark.parametrize("count,times", [(10, 200), (50, 200), (200, 60)])
def test_no_change_is_found_where_there_is_none(kind: str, count: int, times: int) -> None:
    """One series in a hundred, stated in docs/history.md; by chance up to 2.5 % here."""
    rng = np.random.default_rng(7)
    alarms = sum(
        bool(changes.find(list(3.0 * np.exp(_noise(kind, count, rng))))) for _ in range(times)
    )
    assert alarms <= max(2, 0.025 * times)


@pytest.mark.parametrize(
    "kind,step,after,least",
    [("normal", 0.10, 3, 0.97), ("outliers", 0.10, 5, 0.9), ("normal", 0.05, 8, 0.8),
     ("normal", -0.09, 3, 0.93), ("heavy", 0.20, 5, 0.95)],
)  # fmt: skip
def test_a_step_is_found_where_it_is(kind: str, step: float, after: int, least: float) -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(100):
        logs = _noise(kind, 30 + after, rng)
        logs[30:] += np.log1p(step)
        steps = changes.find(list(0.8 * np.exp(logs)))
        found += any(abs(change.at - 30) <= 1 and change.ratio * step > 0 for change in steps)
    assert found >= 100 * least


def test_two_steps_and_their_levels() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([1.0, 1.3, 1.1], [20, 15, 25])
    first, second = changes.find(list(levels * np.exp(rng.normal(0, 0.01, 60))))
    assert (first.at, second.at) == (20, 35)
    assert [first.before, first.after, second.after] == pytest.approx([1.0, 1.3, 1.1], rel=0.01)
    assert first.after == second.before


def test_scale_does_not_matter() -> None:
    values = np.repeat([1.0, 1.2], 15) * np.exp(np.random.default_rng(1).normal(0, 0.01, 30))
    for factor in (1e-6, 1e6):
        assert [c.at for c in changes.find(list(values * factor))] == [15]


@pytest.mark.parametrize(
    "values",
    [[], [1.0] * 30, [1.0, 2.0, 1.0, 2.0, 3.0], [0.0] * 9, [1.0] * 20 + [9.0] + [1.0] * 20],
    ids=["none", "all equal", "too few", "zeros", "one outlier"],
)
def test_nothing_to_find(values: list[float]) -> None:
    assert changes.find(values) == ()


def test_values_that_are_always_the_same_until_they_are_not() -> None:
    """Sizes and scores have no noise, and may be 0 or negative."""
    assert changes.find([91.0] * 10 + [24.0] * 4) == (Change(10, 91.0, 24.0),)
    assert changes.find([0.0] * 6 + [0.5] * 6) == (Change(6, 0.0, 0.5),)
    (down,) = changes.find([-0.1] * 6 + [-0.2] * 6)
    assert down.ratio == pytest.approx(-1.0)


def test_small_changes_are_left_out_unless_asked_for() -> None:
    values = [0.9978] * 12 + [0.9960] * 12  # a score
    assert changes.find(values) == ()
    assert [change.at for change in changes.find(values, least=0)] == [12]
    # a large one beside it stays, with the level of all before it
    (large,) = changes.find([1.0] * 10 + [1.005] * 10 + [1.5] * 10)
    assert (large.at, large.after) == (20, 1.5) and 1.0 <= large.before <= 1.005


def test_only_the_newest_of_a_long_history_are_looked_at() -> None:
    values = [1.0] * 50 + [2.0] * 500 + [3.0] * 500
    assert [change.at for change in changes.find(values)] == [550]

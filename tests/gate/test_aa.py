"""What ``bench --aa`` foretells is what gates on such a machine then say."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import RecipeError
from edgessl.gate import aa
from edgessl.gate.aa import Rate, rates
from edgessl.gate.report import Report
from tests.measured import report, run


def compared(luck: float, bias: float = 0.0, rounds: int = 30) -> Report:
    rng = np.random.default_rng(0)
    weather = np.exp(rng.normal(0, 0.3, rounds))
    again = run("a again", rng, rounds, 1.0, weather, luck)
    return report(run("a", rng, rounds, 1.0 + bias, weather, luck), again)


def by_slowdown(measured: Report, limit: float = 0.05) -> dict[float, Rate]:
    return {rate.slowdown: rate for rate in rates(measured, limit, gates=60)}


def test_a_calm_machine_cries_no_wolf_and_does_not_sleep() -> None:
    found = by_slowdown(compared(luck=0.01))
    assert found[0.0].passed == 1.0 and found[0.0].rounds == 10
    assert found[0.10].failed > 0.95
    for rate in found.values():
        assert rate.failed + rate.passed + rate.inconclusive == pytest.approx(1)


def test_on_a_restless_machine_it_is_open_and_takes_long() -> None:
    found = by_slowdown(compared(luck=0.3))
    assert found[0.0].failed < 0.05 and found[0.0].inconclusive > 0.5
    assert found[0.0].rounds > 40


def test_a_second_copy_that_is_slower_shows() -> None:
    """Whichever of the two is the baseline: half of the gates see it as a slowdown."""
    found = by_slowdown(compared(luck=0.01, bias=0.2))
    assert 0.3 < found[0.0].failed < 0.7


def test_few_rounds_are_refused_and_the_table_has_a_row_a_rate() -> None:
    with pytest.raises(RecipeError, match="9 rounds do not show"):
        rates(compared(luck=0.01, rounds=9), 0.05)
    found = rates(compared(luck=0.01), 0.025, gates=10)
    lines = aa.table(found).splitlines()
    assert len(lines) == 1 + len(aa.SLOWDOWNS) and "+2.5%" in lines[1] and "the same" in lines[1]

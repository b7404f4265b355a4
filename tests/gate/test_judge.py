"""Verdicts: what is told apart, what is left open, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import RecipeError
from edgessl.gate import budget
from edgessl.gate.budget import Budgets
from edgessl.gate.judging.claims import Baseline
from edgessl.gate.judging.judge import judge
from edgessl.gate.report import Report, Run
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Verdict
from tests.measured import HERE, report, run, score, visit


def rules(tmp_path: Path, text: str) -> Budgets:
    path = tmp_path / "budgets.toml"
    path.write_text(text, encoding="utf-8")
    return budget.read(path)


def one(budgets: Budgets, measured: Report, baseline: Baseline | None = None) -> Verdict:
    (verdict,) = judge(budgets, measured, baseline).verdicts
    return verdict


def slower(by: float, rounds: int = 20, luck: float = 0.01, seed: int = 0) -> Report:
    """Two subjects of the same rounds, in weather that changes by half."""
    rng = np.random.default_rng(seed)
    weather = np.exp(rng.normal(0, 0.4, rounds))
    return report(
        run("new", rng, rounds, 1 + by, weather, luck), run("old", rng, rounds, 1, weather, luck)
    )


@pytest.mark.parametrize(("limit", "outcome"), [(1.2, PASS), (0.9, FAIL), (1.0, INCONCLUSIVE)])
def test_an_absolute_limit_has_three_answers(tmp_path: Path, limit: float, outcome: str) -> None:
    measured = report(run("new", np.random.default_rng(0)))
    verdict = one(rules(tmp_path, f"[[budget]]\np50_ms = {limit}"), measured)
    assert verdict.outcome == outcome
    assert verdict.interval is not None and verdict.value is not None
    assert verdict.interval[0] < verdict.value < verdict.interval[1]
    assert f"limit: at most {limit:g} ms" in verdict.reason


@pytest.mark.parametrize(
    ("by", "outcome"), [(0.0, PASS), (0.10, FAIL), (0.05, INCONCLUSIVE), (-0.3, PASS)]
)
def test_a_change_is_told_in_weather_ten_times_as_large(
    tmp_path: Path, by: float, outcome: str
) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    verdict = one(budgets, slower(by), Baseline("old"))
    assert verdict.outcome == outcome and verdict.subject == "new"
    assert verdict.value == pytest.approx(by, abs=0.02)
    assert verdict.interval is not None and verdict.interval[0] <= by <= verdict.interval[1]


def test_throughput_is_a_loss_when_it_falls(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { throughput = 0.05 }")
    verdict = one(budgets, slower(0.25), Baseline("old"))
    assert verdict.outcome == FAIL
    assert verdict.value == pytest.approx(0.2, abs=0.02)  # 1 / 1.25 is a fifth less
    assert verdict.measured is not None and verdict.baseline is not None
    assert verdict.measured < verdict.baseline


def test_false_alarms_are_as_rare_as_the_confidence_says(tmp_path: Path) -> None:
    """The limit is where the truth is: each of the two wrong answers has half the error."""
    budgets = rules(tmp_path, "confidence = 0.9\n[[budget]]\nrelative = { p50 = 0.05 }")
    outcomes = [
        one(budgets, slower(0.05, 12, seed=seed), Baseline("old")).outcome for seed in range(200)
    ]
    assert 0.80 < outcomes.count(INCONCLUSIVE) / 200 < 0.97
    same = [
        one(budgets, slower(0.0, 12, luck=0.05, seed=s), Baseline("old")).outcome
        for s in range(200)
    ]
    assert same.count(FAIL) == 0


def test_every_limit_has_its_share_of_the_error(tmp_path: Path) -> None:
    measured = slower(0.0)
    single = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    several = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05, p90 = 0.05, p99 = 0.2 }")
    alone = one(single, measured, Baseline("old")).interval
    together = judge(several, measured, Baseline("old")).verdicts[0].interval
    assert alone is not None and together is not None
    assert together[0] < alone[0] and alone[1] < together[1]


def test_memory_must_hold_in_every_round(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nmemory_mb = 100")
    for peaks, outcome in (([90, 99], PASS), ([90, 101], INCONCLUSIVE), ([101, 110], FAIL)):
        rounds = tuple(visit(n, [1.0], memory_mb=float(mb)) for n, mb in enumerate(peaks))
        measured = report(Run("new", "single-stream", "1x32", rounds))
        assert one(budgets, measured).outcome == outcome


def test_size_is_certain(tmp_path: Path) -> None:
    measured = report(run("new", np.random.default_rng(0)))
    verdict = one(rules(tmp_path, "[[budget]]\nsize_mb = 20"), measured)
    assert (verdict.outcome, verdict.value, verdict.interval) == (PASS, 20.0, (20.0, 20.0))


@pytest.mark.parametrize(
    ("difference", "outcome"), [(0.0, PASS), (-0.45, INCONCLUSIVE), (-0.7, FAIL), (0.9, PASS)]
)
def test_a_loss_of_accuracy(tmp_path: Path, difference: float, outcome: str) -> None:
    budgets = rules(tmp_path, '[[budget]]\nmax_drop = { "sts.spearman" = 0.5 }')
    measured = report(scores=(score("sts.spearman", 82.0, difference),))
    verdict = one(budgets, measured)
    assert verdict.outcome == outcome and verdict.limit == "max_drop.sts.spearman"


def test_the_lowest_cosine_is_what_it_is(tmp_path: Path) -> None:
    measured = report(scores=(score("cosine_min", 0.95),))
    assert one(rules(tmp_path, "[[budget]]\nmin_cosine_min = 0.95"), measured).outcome == PASS
    assert one(rules(tmp_path, "[[budget]]\nmin_cosine_min = 0.951"), measured).outcome == FAIL


def test_accuracy_is_judged_at_the_confidence_of_the_budgets(tmp_path: Path) -> None:
    measured = report(scores=(score("cosine_mean", 0.99, half=0.0005),))
    for bound, outcome in ((0.9890, PASS), (0.9903, INCONCLUSIVE), (0.9910, FAIL)):
        verdict = one(rules(tmp_path, f"[[budget]]\nmin_cosine = {bound}"), measured)
        assert verdict.outcome == outcome
        assert verdict.interval == pytest.approx((0.98951, 0.99049), abs=1e-5)  # 0.005 and 0.995


def _jobs(values: list[float], rounds: int = 12) -> tuple[Report, ...]:
    rng = np.random.default_rng(3)
    return tuple(report(run("new", rng, rounds, ms)) for ms in values)


def test_one_earlier_job_tells_only_large_changes(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    found = [one(budgets, now, Baseline(reports=_jobs([1.0]))) for now in _jobs([1.0, 1.08, 1.5])]
    assert [verdict.outcome for verdict in found] == [INCONCLUSIVE, INCONCLUSIVE, FAIL]
    assert "jobs are taken to differ by 3%: give 3 baseline reports" in found[0].reason


def test_several_earlier_jobs_show_how_much_jobs_differ(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    calm = Baseline(reports=_jobs([1.0, 1.005, 0.995, 1.002, 0.998]))
    restless = Baseline(reports=_jobs([1.0, 1.3, 0.8, 1.1, 0.9]))
    (now,) = _jobs([1.12])
    assert one(budgets, now, calm).outcome == FAIL
    assert one(budgets, now, restless).outcome == INCONCLUSIVE
    (same,) = _jobs([1.0])
    assert one(budgets, same, calm).outcome == PASS


def refused(budgets: Budgets, measured: Report, baseline: Baseline | None = None) -> str:
    with pytest.raises(RecipeError) as error:
        judge(budgets, measured, baseline)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_budgets_that_find_nothing_are_no_pass(tmp_path: Path) -> None:
    measured = report(run("new", np.random.default_rng(0)))
    cases = {
        '[[budget]]\ndevice = "rpi*"\np50_ms = 1': "no budget is for this device ('Jetson Orin')",
        '[[budget]]\nscenario = "server"\np50_ms = 1': "p50_ms matches nothing that was measured",
        '[[budget]]\nsubject = "nwe"\nsize_mb = 1': "size_mb matches nothing",
        "[[budget]]\nenergy_mj = 1": "there is: new single-stream 1x32",
        "[[budget]]\nmin_cosine = 0.9": "edgessl eval",
        "[[budget]]\nrelative = { p50 = 0.05 }": "--baseline BUNDLE",
    }
    for text, said in cases.items():
        assert said in refused(rules(tmp_path, text), measured)


def test_budgets_of_other_devices_may_stand_beside(tmp_path: Path) -> None:
    text = '[[budget]]\ndevice = "rpi*"\np50_ms = 9\n[[budget]]\ndevice = "jetson*"\np50_ms = 2'
    measured = report(run("new", np.random.default_rng(0)))
    assert one(rules(tmp_path, text), measured).bound == 2


def test_a_baseline_from_elsewhere_is_refused_with_what_differs(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    (earlier,), (now,) = _jobs([1.0]), _jobs([1.0])
    other = Report({**HERE, "versions": {"numpy": "1.26"}}, earlier.subjects, earlier.runs)
    said = refused(budgets, now, Baseline(reports=(other,)))
    assert "numpy" in said and "1.26" in said and "2.0" in said


def test_a_baseline_without_the_run_or_the_subject_is_refused(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    rng = np.random.default_rng(0)
    (now,) = _jobs([1.0])
    two = report(run("a", rng), run("b", rng))
    assert "has no 'new' (it has: a, b)" in refused(budgets, now, Baseline(reports=(two,)))
    server = report(Run("new", "server", "1x32", run("new", rng).rounds))
    assert "has no new / single-stream / 1x32" in refused(budgets, now, Baseline(reports=(server,)))
    apart = report(run("new", rng), run("old", rng, first=100))
    assert "no rounds in common" in refused(budgets, apart, Baseline("old"))


def test_one_round_and_one_sample_are_not_enough(tmp_path: Path) -> None:
    measured = report(Run("new", "single-stream", "1x32", (visit(0, [1.0]),)))
    verdict = one(rules(tmp_path, "[[budget]]\np50_ms = 100"), measured)
    assert verdict.outcome == INCONCLUSIVE and verdict.reason.endswith("too few samples")
    assert verdict.interval == (-math.inf, math.inf)


def test_the_same_job_twice_shows_no_agreement(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    (now,), (earlier,) = _jobs([1.06]), _jobs([1.0])
    assert "the same" in refused(budgets, now, Baseline(reports=(earlier,) * 3))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { p50 = 0.05 }")
    (now,), (earlier,) = _jobs([1.0]), _jobs([1.0])
    threaded = replace(earlier, runs=(replace(earlier.runs[0], settings={"threads": 4}),))
    said = refused(budgets, now, Baseline(reports=(threaded,)))
    assert "threads 4 then, None now" in said


def test_nothing_is_so_many_percent_worse_than_zero(tmp_path: Path) -> None:
    budgets = rules(tmp_path, "[[budget]]\nrelative = { memory = 0.05 }")
    both = slower(0.0)
    free = tuple(replace(visit, memory_mb=0.0) for visit in both.runs[1].rounds)
    measured = replace(both, runs=(both.runs[0], replace(both.runs[1], rounds=free)))
    assert "has a memory of 0 in round 0" in refused(budgets, measured, Baseline("old"))


def test_skewed_figures_of_rounds_are_judged_by_their_median(tmp_path: Path) -> None:
    """Cold starts have a long tail: the interval is of the median, which is what is shown."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        starts = 1e9 * rng.exponential(1, 60)
        rounds = tuple(visit(n, [1.0], cold_start_ns=int(x)) for n, x in enumerate(starts))
        measured = report(Run("new", "single-stream", "1x32", rounds))
        verdict = one(rules(tmp_path, "[[budget]]\ncold_start_ms = 693.147"), measured)
        wrong += verdict.outcome == FAIL  # the truth is at the limit
    assert wrong <= 4  # 0.005 of 200 is 1


def test_more_confidence_than_the_bootstrap_kept_widens_the_interval(tmp_path: Path) -> None:
    text = "confidence = {}\n[[budget]]\nmin_cosine = 0.99"
    measured = report(scores=(score("cosine_mean", 0.99, half=0.001),))
    widths = []
    for confidence in (0.9, 0.99, 0.999, 0.9999):
        interval = one(rules(tmp_path, text.format(confidence)), measured).interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths == sorted(widths) and widths[-1] > widths[-2]


def test_the_reference_has_lost_nothing_to_itself(tmp_path: Path) -> None:
    budgets = rules(tmp_path, '[[budget]]\nmax_drop = { "sts.spearman" = 0.5 }')
    own = replace(score("sts.spearman", 82.0), subject="old", facts={})
    compared = replace(score("sts.spearman", 82.0, 0.0), reference="old")
    assert one(budgets, report(scores=(own, compared))).subject == "new"
    assert "needs a reference" in refused(budgets, report(scores=(own,)))

"""The fixture ``edgessl_gate`` in tests of its own, with gates that end as they are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgessl.errors import BundleError, EdgesslError
from edgessl.gate import gating, report
from edgessl.gate.report import Report, Round, Run, Subject
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement, Verdict

pytest_plugins = ["pytester"]

REPORT = Report(
    environment={"device": "here"},
    subjects=(Subject("bundle", "bundle/"),),
    runs=(Run("bundle", "single-stream", "1x32", (Round(0, (1000, 2000), 2, 3000),)),),
)
TEST = """
    def test_latency(edgessl_gate):
        outcome = edgessl_gate("budgets.toml", "bundle/", baseline="main/")
        assert outcome.judgement.outcome == "pass"
"""


class Gate:
    """Stands in for ``gating.gate``: gives verdicts of these outcomes, and keeps what it was
    called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcomes = [PASS]
        self.error: EdgesslError | None = None
        self.calls: list[dict[str, Any]] = []
        monkeypatch.setattr(gating, "gate", self)

    def __call__(self, budgets: Path, things: list[str], **options: Any) -> gating.Outcome:
        self.calls.append({"budgets": budgets, "things": things, **options})
        if self.error is not None:
            raise self.error from OSError("the cause")
        verdicts = tuple(
            Verdict("one text", f"p{50 + i}_ms", 1.0, "bundle", each, f"reason {i} of {each}")
            for i, each in enumerate(self.outcomes)
        )
        return gating.Outcome(Judgement(verdicts, 0.99), REPORT, None)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    # entry points stay out: other plugins take a second, and this one would be there twice
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Gate(monkeypatch)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "edgessl.gate.pytest_plugin", "-rs", *arguments)


def test_within_budget(pytester: pytest.Pytester, gate: Gate) -> None:
    pytester.makepyfile(TEST)
    run(pytester).assert_outcomes(passed=1)
    assert gate.calls == [
        {
            "budgets": Path("budgets.toml"),
            "things": ["bundle/"],
            "baseline": ["main/"],
            "max_minutes": 5.0,
            "fast": False,
            "data": None,
            "column": None,
            "on": None,
        }
    ]


def test_a_broken_budget_fails_with_its_reasons(pytester: pytest.Pytester, gate: Gate) -> None:
    gate.outcomes = [PASS, FAIL, INCONCLUSIVE]
    pytester.makepyfile(TEST)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "edgessl gate: fail",
            "fail: one text: p51_ms of bundle: reason 1 of fail",
            "inconclusive: one text: p52_ms of bundle: reason 2 of inconclusive",
        ]
    )
    shown = result.stdout.str()
    assert "reason 0" not in shown  # what is kept is not a reason
    assert "pytest_plugin.py" not in shown and "Error" not in shown  # nor is a traceback


def test_inconclusive_is_never_a_pass(pytester: pytest.Pytester, gate: Gate) -> None:
    gate.outcomes = [PASS, INCONCLUSIVE]
    pytester.makepyfile(TEST)
    result = run(pytester)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*edgessl gate: inconclusive*", "*reason 1 of*"])
    run(pytester, "--edgessl-inconclusive=fail").assert_outcomes(failed=1)


def test_what_cannot_be_judged_fails_in_one_line(pytester: pytest.Pytester, gate: Gate) -> None:
    gate.error = BundleError("bundle/ is damaged.")
    pytester.makepyfile(TEST)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["edgessl gate: bundle/ is damaged."])
    assert "the cause" not in result.stdout.str() and "raise " not in result.stdout.str()


def test_options_reach_the_gate(pytester: pytest.Pytester, gate: Gate) -> None:
    pytester.makepyfile("""
        from pathlib import Path

        def test_two(edgessl_gate):
            edgessl_gate(Path("b.toml"), Path("x.json"), "n=y/", baseline=["1.json", Path("2.json")],
                         data=Path("texts.csv"), column="text", on="ssh://nano")
    """)
    run(pytester, "--edgessl-fast", "--edgessl-max-minutes=0.5").assert_outcomes(passed=1)
    assert gate.calls == [
        {
            "budgets": Path("b.toml"),
            "things": ["x.json", "n=y/"],
            "baseline": ["1.json", "2.json"],
            "max_minutes": 0.5,
            "fast": True,
            "data": "texts.csv",
            "column": "text",
            "on": "ssh://nano",
        }
    ]


def test_reports_are_kept_of_every_outcome(pytester: pytest.Pytester, gate: Gate) -> None:
    gate.outcomes = [FAIL]
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("name", ["a/b", "a:b", "x" * 300])
        def test_it(edgessl_gate, name):
            with pytest.raises(pytest.fail.Exception):
                edgessl_gate("budgets.toml", "bundle/")
            edgessl_gate("budgets.toml", "bundle/")
    """)
    run(pytester, "--edgessl-report-dir=kept/reports").assert_outcomes(failed=3)
    kept = sorted((pytester.path / "kept" / "reports").iterdir())
    assert len(kept) == 6  # parameters that look alike in a file's name among them
    assert all(report.read(path) == REPORT for path in kept)


def test_without_the_option_nothing_is_written(pytester: pytest.Pytester, gate: Gate) -> None:
    pytester.makepyfile(TEST)
    before = set(pytester.path.rglob("*.json"))
    run(pytester).assert_outcomes(passed=1)
    assert set(pytester.path.rglob("*.json")) == before


def test_loading_the_plugin_loads_next_to_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import edgessl.gate.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {"edgessl", "edgessl.errors", "edgessl.gate", "edgessl.gate.pytest_plugin"}
    third = {name for name in done.stdout.split() if name.partition(".")[0] not in _STANDARD}
    assert third == own


_STANDARD = set(sys.stdlib_module_names)


def test_a_real_gate(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    rounds = tuple(Round(n, (1_000_000 + n,) * 50, 50, 60_000_000) for n in range(12))
    measured = Report({"device": "here"}, REPORT.subjects, (Run(*REPORT.runs[0].key, rounds),))
    (pytester.path / "report.json").write_text(measured.dumps())
    (pytester.path / "kept.toml").write_text("[[budget]]\np50_ms = 1.2")
    (pytester.path / "broken.toml").write_text("[[budget]]\np50_ms = 0.9")
    (pytester.path / "open.toml").write_text("[[budget]]\np50_ms = 1.000005")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("name", ["kept", "broken", "open"])
        def test_it(edgessl_gate, name):
            outcome = edgessl_gate(f"{name}.toml", "report.json")
            assert outcome.judgement.verdicts[0].value == pytest.approx(1.0, rel=1e-3)
    """)
    # in a process of its own: pytester would unload libraries that cannot be loaded twice
    result = pytester.runpytest_subprocess("-p", "edgessl.gate.pytest_plugin")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["fail: budget 1: p50_ms of bundle: 1.00 ms*limit: at most 0.9 ms"])

"""The pytest fixture ``edgessl_gate``: a test that fails when a budget is broken.

    def test_latency(edgessl_gate):
        edgessl_gate("budgets.toml", "bundle/", baseline="main-bundle/")

pytest imports this file at every start: nothing else of edgessl is imported before a gate runs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgessl.gate.gating import Outcome

_PathLike = str | os.PathLike[str]
Gate = Callable[..., "Outcome"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("edgessl", "latency and accuracy budgets")
    group.addoption(
        "--edgessl-fast", action="store_true", help="Gates measure for some seconds only."
    )
    group.addoption(
        "--edgessl-max-minutes",
        type=float,
        default=5.0,
        metavar="N",
        help="The longest that one gate measures.  [default: 5]",
    )
    group.addoption(
        "--edgessl-inconclusive",
        choices=["skip", "fail"],
        default="skip",
        help="What a test is whose measurements do not tell.  [default: skip]",
    )
    group.addoption(
        "--edgessl-report-dir",
        type=Path,
        metavar="DIR",
        help="Keep what was measured: a report for each gate.",
    )


@pytest.fixture
def edgessl_gate(request: pytest.FixtureRequest) -> Gate:
    """``edgessl_gate(budgets, *things, baseline=(), data=None, column=None, on=None) -> Outcome``.

    Holds *things* (bundles, ``NAME=PATH``, or reports) against a budgets.toml, as ``edgessl gate``
    does; paths are relative to the current directory. The test fails where a limit is broken or
    the gate cannot be held, and is skipped (``--edgessl-inconclusive``) where the measurements do
    not tell: only a kept budget returns.
    """
    number = 0

    def gate(
        budgets: _PathLike,
        *things: _PathLike,
        baseline: _PathLike | Sequence[_PathLike] = (),
        data: _PathLike | None = None,
        column: str | None = None,
        on: str | None = None,
    ) -> Outcome:
        from edgessl.errors import EdgesslError
        from edgessl.gate import gating
        from edgessl.gate.verdict import FAIL, PASS

        nonlocal number
        number += 1
        config = request.config
        several = [baseline] if isinstance(baseline, (str, os.PathLike)) else baseline
        try:
            outcome = gating.gate(
                Path(budgets),
                [os.fspath(thing) for thing in things],
                baseline=[os.fspath(thing) for thing in several],
                max_minutes=config.getoption("--edgessl-max-minutes"),
                fast=config.getoption("--edgessl-fast"),
                data=None if data is None else os.fspath(data),
                column=column,
                on=on,
            )
        except EdgesslError as err:
            # its line says it all, and pytest would show what caused it, too
            raise pytest.fail.Exception(f"edgessl gate: {err}", pytrace=False) from None
        if folder := config.getoption("--edgessl-report-dir"):
            _keep(outcome, folder, request.node.nodeid, number)
        found = outcome.judgement.outcome
        if found == PASS:
            return outcome
        if found == FAIL or config.getoption("--edgessl-inconclusive") == "fail":
            pytest.fail(_reasons(outcome), pytrace=False)
        pytest.skip(_reasons(outcome))

    return gate


def _reasons(outcome: Outcome) -> str:
    """A line for each limit that is not kept."""
    judgement = outcome.judgement
    lines = [
        f"{verdict.outcome}: {verdict.budget}: {verdict.limit} of {verdict.subject}: "
        f"{verdict.reason}"
        for verdict in judgement.verdicts
        if verdict.outcome != "pass"
    ]
    return "\n".join([f"edgessl gate: {judgement.outcome}", *lines])


def _keep(outcome: Outcome, folder: Path, test: str, number: int) -> None:
    """Write the report under the test's name; of its second gate on, with a number."""
    name = re.sub(r"[^\w.-]+", "-", test)[-100:].strip("-.")
    if number > 1:
        name += f"-{number}"
    name += "-" + hashlib.sha256(test.encode()).hexdigest()[:6]  # parameters may differ in signs
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(outcome.report.dumps(), encoding="utf-8")

"""``edgessl report``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgessl.commands.options import json_option
from edgessl.commands.views import Views, view_options, write_views

if TYPE_CHECKING:
    from edgessl.gate.report import Report

_EXAMPLES = """\b
Examples:
  edgessl report report.json
  edgessl report bench.json eval.json --html report.html
  edgessl report main.json branch.json --markdown comment.md

Exit codes: 0 shown, 2 wrong use or no such report, 3 something missing."""


@click.command(short_help="Show stored reports as tables, HTML or Markdown.", epilog=_EXAMPLES)
@click.argument(
    "paths", metavar="REPORT...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@view_options("html", "markdown")
@json_option
def report(paths: tuple[Path, ...], views: Views, as_json: bool) -> int:
    """Show what REPORTs of edgessl bench, eval and gate say.

    Reports that complete each other (timings and accuracy of the same bundles, measured under
    the same conditions) are shown as one.
    """
    from edgessl.gate import views as made
    from edgessl.gate.report import read

    reports = completed([read(path) for path in paths])
    write_views(views, reports)
    if as_json:
        click.echo(json.dumps([_summary(each) for each in reports], indent=2))
    else:
        click.echo("\n\n".join(made.table(each) for each in reports))
    return 0


def completed(reports: Sequence[Report]) -> list[Report]:
    """*reports*, those merged that are about the same bundles and repeat nothing."""
    from edgessl.gate.report import merge

    found: list[Report] = []
    for each in reports:
        place = next((n for n, other in enumerate(found) if _completes(other, each)), None)
        if place is None:
            found.append(each)
        else:
            # the first one's environment is kept: the one in which times were taken
            found[place] = merge(sorted((found[place], each), key=lambda one: not one.runs))
    return found


def _completes(one: Report, other: Report) -> bool:
    """Whether *other* tells more of the bundles of *one*, and nothing anew."""
    from edgessl.gate import conditions

    bundles = {subject.name: subject.digest for subject in one.subjects}
    same = [bundles.get(subject.name) == subject.digest for subject in other.subjects]
    mine, theirs = (
        {run.key for run in each.runs} | {score.key for score in each.scores}
        for each in (one, other)
    )
    if not any(same) or mine & theirs:
        return False
    clash = any(
        subject.name in bundles and bundles[subject.name] != subject.digest
        for subject in other.subjects
    )
    # Scores do not depend on the clock or the power mode; timings do.
    timed = bool(one.runs and other.runs)
    alike = not (timed and conditions.differences(one.environment, other.environment))
    return alike and not clash


def _summary(report: Report) -> dict[str, object]:
    """The report without its samples: figures by run."""
    from edgessl.gate import quantities

    runs = [
        {
            "subject": run.subject,
            "scenario": run.scenario,
            "shape": run.shape,
            "rounds": len(run.rounds),
            "queries": len(run.latencies),
            "settings": run.settings,
            "facts": run.facts,
            **{
                name: value
                for name in quantities.QUANTITIES
                if name != "size" and (value := quantities.value(run, name)) is not None
            },
        }
        for run in report.runs
    ]
    return {**asdict(report), "runs": runs}

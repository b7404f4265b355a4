"""``edgessl history``: a group of commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgessl import tables
from edgessl.commands.options import json_option
from edgessl.commands.views import Views, view_options, write_views
from edgessl.console import Commands

if TYPE_CHECKING:
    from edgessl.gate.history.series import Change, Series

_EXAMPLES = """\b
Examples:
  edgessl history add history.sqlite report.json
  edgessl history show history.sqlite --metric p99 --html history.html
  edgessl history check history.sqlite --worse 0.05"""
_store = click.argument("store", type=click.Path(path_type=Path))


@click.group(
    cls=Commands, short_help="Keep reports of many commits; find changes.", epilog=_EXAMPLES
)
def history() -> None:
    """Keep the reports of many commits in one file, and see when a figure changed."""


def _series_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--metric", default="p50", show_default=True, help="Or p99, throughput, ..."),
        click.option("--subject", default="", help="Name of a bundle.  [default: all]"),
        click.option("--scenario", default="", help="Such as single-stream.  [default: all]"),
        click.option("--shape", default="", help="Such as 1x32.  [default: all]"),
        click.option("--data", default="", help="Data set of a score.  [default: all]"),
    )[::-1]:
        command = option(command)
    return command


@history.command(short_help="Append reports.")
@_store
@click.argument(
    "paths", metavar="REPORT...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@json_option
def add(store: Path, paths: tuple[Path, ...], as_json: bool) -> int:
    """Append REPORTs to STORE, a file that is made where there is none.

    Several processes may append at once; a report that is there already is not added again.
    """
    from edgessl.gate.history import store as stored
    from edgessl.gate.report import read

    reports = [read(path) for path in paths]  # all or none
    numbers = [stored.append(store, report) for report in reports]
    total = stored.count(store)
    if as_json:
        click.echo(json.dumps({"store": str(store), "added": numbers, "reports": total}, indent=2))
        return 0
    for path, number in zip(paths, numbers, strict=True):
        click.echo(f"{path}  is report {number} of {store}")
    click.echo(f"{store} has {total:,} reports")
    return 0


@history.command(short_help="Show a figure over time, and where it changed.")
@_store
@_series_options
@click.option(
    "--last", type=click.IntRange(min=1), default=10, show_default=True, help="Reports to list."
)
@view_options("html")
@json_option
def show(store: Path, last: int, views: Views, as_json: bool, **wanted: str) -> int:
    """Show a figure of the reports in STORE, and where it went to another level.

    Only reports of the same machine, clock, power mode, library versions and settings are
    compared; others begin a series of their own.
    """
    from edgessl.gate.history import query

    found = query.series(store, **wanted)
    write_views(views, (), history=found)
    if as_json:
        click.echo(json.dumps([asdict(series) for series in found], indent=2))
    else:
        click.echo("\n\n".join(_shown(series, last) for series in found))
    return 0


@history.command(short_help="Exit code 1 where a figure has become worse.")
@_store
@_series_options
@click.option(
    "--last", type=click.IntRange(min=1), default=10, show_default=True, help="Newest reports."
)
@click.option(
    "--worse",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    help="By which fraction a change has to be for the worse.",
)
@json_option
def check(store: Path, last: int, worse: float, as_json: bool, **wanted: str) -> int:
    """See whether a figure went to a worse level within the newest reports of STORE.

    Exit code 1 when it did, else 0; a change shows with the third report after it. Series that
    the newest report does not belong to are left out.
    """
    from edgessl.gate.history import changes, query

    series = query.newest(query.series(store, **wanted))
    broken = [(row, change) for row in series for change in query.worsened(row, last, worse)]
    if as_json:
        rows = [{"series": row.title, **_change_facts(row, change)} for row, change in broken]
        click.echo(json.dumps({"ok": not broken, "changes": rows}, indent=2))
        return 1 if broken else 0
    for row, change in broken:
        click.echo(f"worse  {row.title}: {_change_line(row, change)}")
    few = [row for row in series if len(row.points) < changes.FEWEST]
    for row in few:
        click.echo(
            f"new    {row.title}: {len(row.points)} of the {changes.FEWEST} reports that it takes"
        )
    if not broken:
        told = len(series) - len(few)
        click.echo(
            f"ok     {told} series without a change for the worse in the last {last} reports"
        )
    return 1 if broken else 0


def _shown(series: Series, last: int) -> str:
    """A series as a table of its newest reports."""
    from edgessl.gate import words
    from edgessl.gate.views import timeline

    changes = {change.at: change for change in series.changes}
    lines = [f"{series.title} on {series.machine}, {len(series.points)} reports"]
    lines += [f"another series because: {line}" for line in series.differs]
    rows = []
    first = max(0, len(series.points) - last)
    for number, point in enumerate(series.points[first:], first):
        before = series.points[number - 1].value if number else math.nan
        step = f"{point.value / before - 1:+.1%}" if number and before else ""
        mark = f"<- {_changed(series, changes[number])}" if number in changes else ""
        value = (
            words.with_unit(point.value, series.unit) if series.unit else words.score(point.value)
        )
        rows.append(
            [point.commit[:12] or "-", point.created[:19], str(point.report), value, step, mark]
        )
    head = ["commit", "created", "report", series.metric, "to the one before", "change point"]
    lines += [timeline.spark(series), tables.plain(head, rows, 2)]
    earlier = [change for change in series.changes if change.at < first]
    lines += [f"earlier: {_change_line(series, change)}" for change in earlier]
    return "\n".join(line.rstrip() for line in lines)


def _change_line(series: Series, change: Change) -> str:
    point = series.points[change.at]
    where = ", ".join(filter(None, (point.commit[:12], point.created[:19])))
    return f"{_changed(series, change)} since report {point.report} ({where})"


def _changed(series: Series, change: Change) -> str:
    from edgessl.gate import words
    from edgessl.gate.views import timeline

    show = words.figure if series.unit else words.score
    levels = f"{show(change.before)} to {show(change.after)} {series.unit}".rstrip()
    return f"{timeline.change_words(series, change)}: {levels}"


def _change_facts(series: Series, change: Change) -> dict[str, Any]:
    point = series.points[change.at]
    return {
        "report": point.report,
        "commit": point.commit,
        "created": point.created,
        "before": change.before,
        "after": change.after,
        "worse": series.worse(change),
    }

"""``edgessl gate``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgessl import tables, text_output
from edgessl.commands.options import devices_option, json_option, quiet_option
from edgessl.commands.views import Views, view_options, write_views
from edgessl.errors import RecipeError
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement
from edgessl.progress import Steps

_EXAMPLES = """\b
Examples:
  edgessl gate --init budgets.toml report.json        limits from what was measured
  edgessl gate -b budgets.toml report.json            a stored report
  edgessl gate -b budgets.toml pr/minilm --baseline main/minilm --max-minutes 3
  edgessl gate -b budgets.toml pr/minilm --data texts.txt --junit gate.xml --html gate.html
  edgessl gate -b budgets.toml pr/minilm --fast       before a commit

Exit codes: 0 within budget, 1 a budget is broken, 2 wrong use, 3 something missing,
4 a damaged bundle, 5 inconclusive: these samples do not tell."""


@click.command(short_help="Pass, fail or inconclusive: latency and accuracy.", epilog=_EXAMPLES)
@click.argument("things", metavar="REPORT|BUNDLE...", nargs=-1, required=True)
@click.option(
    "--budget", "-b", type=click.Path(path_type=Path), metavar="FILE", help="A budgets.toml."
)
@click.option(
    "--baseline",
    multiple=True,
    metavar="BUNDLE|REPORT|NAME",
    help="For relative limits: a bundle, measured in turn with the others; reports of earlier "
    "jobs; or one of the subjects in the report.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Of measuring, for all bundles.",
)
@click.option(
    "--fast",
    is_flag=True,
    help="At most 20 seconds, for every commit: ends with 1 only where something is clearly worse.",
)
@click.option("--data", metavar="DATA", help="For accuracy limits: as for edgessl eval.")
@click.option("--column", metavar="NAME", help="Of a table.")
@click.option("--on", metavar="ssh://HOST|NAME", help="Measure on another device.")
@devices_option
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Keep what was measured: a report."
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option(
    "--init",
    "start",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a budgets.toml with limits from REPORT, and judge nothing.",
)
@view_options("html", "markdown", "junit")
@quiet_option
@json_option
def gate(
    things: tuple[str, ...],
    budget: Path | None,
    baseline: tuple[str, ...],
    max_minutes: float,
    fast: bool,
    data: str | None,
    column: str | None,
    on: str | None,
    devices: Path | None,
    output: Path | None,
    overwrite: bool,
    start: Path | None,
    views: Views,
    quiet: bool,
    as_json: bool,
) -> int:
    """Hold reports, or bundles that are measured now, against budgets.

    A limit is broken when the whole interval of what was measured is beyond it, and kept when the
    whole interval is within; else more is measured, until --max-minutes end. See docs/gate.md.
    """
    from edgessl.gate import gating, words

    if start is not None:
        return _start(things, start, overwrite)
    if budget is None:
        raise RecipeError(
            "no budgets: give --budget budgets.toml, or make one of a report with --init."
        )
    if output is not None:
        text_output.check(output, overwrite)
    with Steps(quiet) as steps:
        found = gating.gate(
            budget,
            things,
            baseline=baseline,
            max_minutes=max_minutes,
            fast=fast,
            data=data,
            column=column,
            on=on,
            devices=devices,
            report=steps,
        )
    if output is not None:
        text_output.write(output, found.report.dumps())
    write_views(views, [found.report], found.judgement, found.baseline)
    judgement = found.judgement
    code = 0 if fast and judgement.outcome == INCONCLUSIVE else judgement.exit_code
    if as_json:
        facts = {"outcome": judgement.outcome, "exit_code": code, **asdict(judgement)}
        click.echo(json.dumps(_finite(facts), indent=2, allow_nan=False))
        return code
    head = ("verdict", "subject", "for", "limit", "measured")
    rows = [(v.outcome, v.subject, words.where(v), v.limit, v.reason) for v in judgement.verdicts]
    click.echo(tables.plain(head, rows, left=5) + "\n")
    click.echo(_last_line(judgement, fast))
    return code


def _last_line(judgement: Judgement, fast: bool) -> str:
    count = {o: 0 for o in (PASS, FAIL, INCONCLUSIVE)}
    for verdict in judgement.verdicts:
        count[verdict.outcome] += 1
    figures = ", ".join(f"{number} {outcome}" for outcome, number in count.items() if number)
    spent = f", {judgement.seconds:.0f} s" if judgement.seconds else ""
    line = f"{judgement.outcome.upper()}: {figures} (confidence {judgement.confidence:g}{spent})"
    if judgement.outcome == INCONCLUSIVE:
        hint = (
            "nothing is clearly worse; the whole gate may tell"
            if fast
            else ("measure longer (--max-minutes), on a calmer machine, or widen the limit")
        )
        line += f". {hint}"
    return line


def _start(things: tuple[str, ...], path: Path, overwrite: bool) -> int:
    from edgessl.gate import report, starter

    text_output.check(path, overwrite)
    found = report.merge([report.read(Path(thing)) for thing in things])
    text_output.write(path, starter.starter(found))
    click.echo(f"{path}  limits of {', '.join(s.name for s in found.subjects)}; read and change it")
    return 0


def _finite(value: Any) -> Any:
    """JSON has no infinity: a bound that is not known is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

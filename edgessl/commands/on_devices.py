"""``edgessl bench --on`` with several devices: a report of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgessl import text_output
from edgessl.errors import EdgesslError
from edgessl.progress import Steps

if TYPE_CHECKING:
    from edgessl.gate.plan import Plan


def measure(
    on: Sequence[str],
    devices: Path | None,
    plan: Plan,
    command: tuple[str, ...],
    *,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure on all of them at the same time; prints a table, or a line of JSON, for each.

    Returns:
        exit code: 0, or the largest of those that failed; the reports of the others are there.
    """
    from edgessl.gate import views
    from edgessl.gate.remote import bench

    paths = {name: _path(output, name) for name in on if output is not None}
    for path in paths.values():
        text_output.check(path, overwrite)
    with Steps(quiet) as steps:
        found = bench.measure_all(on, plan, steps, devices=devices)
    codes = [0]
    for name, report in found.items():
        if isinstance(report, EdgesslError):
            click.echo(f"error: {report}", err=True)
            codes.append(report.exit_code)
            continue
        report = replace(report, command=command)
        if name in paths:
            text_output.write(paths[name], report.dumps())
        if as_json:
            click.echo(report.dumps(), nl=False)
        else:
            stored = f"\nreport  {paths[name]}" if name in paths else ""
            click.echo(f"{name}\n\n{views.table(report)}{stored}\n")
    return max(codes)


def _path(output: Path, name: str) -> Path:
    """``report.json`` of device ``nano``: ``report.nano.json``."""
    word = re.sub(r"[^\w.-]+", "-", name.removeprefix("ssh://"))
    return output.with_name(f"{output.stem}.{word}{output.suffix}")

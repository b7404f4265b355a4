"""``edgessl bench``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgessl import cores, interrupts, tables, text_output
from edgessl.commands.options import devices_option, json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps

if TYPE_CHECKING:
    from edgessl.gate.plan import Plan
    from edgessl.gate.report import Report

_EXAMPLES = """\b
Examples:
  edgessl bench minilm/ -o report.json
  edgessl bench main=old/minilm pr=new/minilm -o report.json
  edgessl bench minilm/ --scenario offline --data texts.txt
  edgessl bench minilm/ --scenario server --qps 200 --shape 1x16 --shape 1x64
  edgessl bench minilm/ peer.py:embedder     a function of your own
  edgessl bench minilm/ --aa                 how much this machine differs from itself

Ctrl-C: with --output, rounds that are whole (two at least) are written before it ends.
Exit codes: 0 measured, 2 wrong use, 3 something missing, 4 a damaged bundle."""

_AGAIN = "again"  # the second name of a bundle that is compared with itself
_AA_LIMITS = (0.05, 0.025)  # of gates whose false alarms and misses are told
_ROUNDS, _AA_ROUNDS = 10, 30
_FEWEST = 2  # rounds of which a report is worth keeping


@click.command(short_help="Latency, throughput, memory, cold start, energy.", epilog=_EXAMPLES)
@click.argument("things", metavar="BUNDLE|FILE.py:FACTORY...", nargs=-1, required=True)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="The report, JSON with raw samples."
)
@click.option("--overwrite", is_flag=True, help="Replace the report that is there.")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    help="single-stream, multi-stream, offline or server; repeatable.  [default: single-stream]",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="BxL|B|corpus",
    help="Texts x tokens of a query, items of a query, or the items of --data; repeatable.  "
    "[default: by scenario]",
)
@click.option("--data", metavar="DATA", help="Items of your own, as for edgessl embed.")
@click.option("--column", metavar="NAME", help="Of a table.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help=f"Fresh processes of each subject.  [default: {_ROUNDS}; with --aa {_AA_ROUNDS}]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.5,
    show_default=True,
    help="Of measuring in each, for every scenario and shape.",
)
@click.option(
    "--qps",
    type=click.FloatRange(min=0, min_open=True),
    help="Queries a second in the server scenario.  [default: 0.7 of what one stream can do]",
)
@click.option("--device", help="cpu, gpu or npu.  [default: the target's]")
@click.option("--threads", type=int, help="Inside one inference.  [default: by this machine]")
@click.option("--streams", type=int, help="Inferences at once.  [default: by this machine]")
@click.option("--cpus", metavar="0,1|0-3", help="Cores to stay on.  [default: any]")
@click.option("--max-length", type=int, help="Tokens of a text.  [default: the bundle's]")
@click.option("--keep-patches", type=float, help="Share of an image's patches to look at (MAE).")
@click.option("--no-energy", is_flag=True, help="Ask no meter.")
@click.option("--no-peak", is_flag=True, help="Do not measure this machine's peak.")
@click.option("--aa", is_flag=True, help="Compare the one BUNDLE with itself.")
@click.option(
    "--on", metavar="ssh://HOST|NAME", multiple=True, help="Measure on another device; repeatable."
)
@devices_option
@quiet_option
@json_option
def bench(
    things: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    cpus: str | None,
    max_length: int | None,
    keep_patches: float | None,
    no_energy: bool,
    no_peak: bool,
    aa: bool,
    on: tuple[str, ...],
    devices: Path | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure BUNDLEs, each in fresh processes, in turn with the others.

    NAME=BUNDLE gives a subject another name than its directory's. FILE.py:FACTORY is a function
    of your own: FACTORY() returns what takes a list of items. See docs/bench.md.
    """
    from edgessl.gate import aa as against_itself
    from edgessl.gate.measuring.workload import CORPUS
    from edgessl.gate.plan import Plan
    from edgessl.gate.subjects import named

    subjects = named(things)
    if aa:
        if len(subjects) > 1:
            raise RecipeError(f"--aa compares one bundle with itself; here are {len(subjects)}.")
        ((name, path),) = subjects.items()
        subjects[f"{name} {_AGAIN}"] = path
    options = {"max_length": max_length, "keep_patches": keep_patches}
    given["scenarios"] = given["scenarios"] or Plan.scenarios
    given["rounds"] = given["rounds"] or (_AA_ROUNDS if aa else _ROUNDS)
    if aa and given["rounds"] < against_itself.FEWEST_ROUNDS:
        raise RecipeError(f"--aa needs --rounds {against_itself.FEWEST_ROUNDS} at least.")
    plan = Plan(
        subjects,
        cpus=_cpus(cpus),
        options={name: value for name, value in options.items() if value is not None},
        energy=not no_energy,
        peak=not no_peak,
        **given,
    )
    if plan.data and plan.shapes and CORPUS not in plan.shapes:
        raise RecipeError("--data is for --shape corpus: add it, or leave the shapes out.")
    if devices is not None and not on:
        raise RecipeError("--devices is for --on NAME.")
    if len(on) > 1:
        if aa:
            raise RecipeError("--aa is for one device.")
        from edgessl.commands import on_devices

        return on_devices.measure(
            on,
            devices,
            plan,
            ("edgessl", *sys.argv[1:]),
            output=output,
            overwrite=overwrite,
            quiet=quiet,
            as_json=as_json,
        )
    if output is not None:
        text_output.check(output, overwrite)
    report = _measured(plan, on[0] if on else None, devices, output, quiet)
    if output is not None:
        text_output.write(output, report.dumps())
    if as_json:
        click.echo(report.dumps(), nl=False)
        return 0
    from edgessl.gate import views

    click.echo(views.table(report))
    if len(subjects) > 1:
        head = ("median latency", "", "", "ratio", "95 % interval")
        click.echo("\n" + tables.plain(head, list(_ratios(report)), 3))
    if aa:
        rates = [rate for limit in _AA_LIMITS for rate in against_itself.rates(report, limit)]
        click.echo("\n" + against_itself.table(rates))
    if output is not None:
        click.echo(f"\nreport  {output}")
    return 0


def _cpus(text: str | None) -> tuple[int, ...]:
    found = tuple(sorted(cores.parse_list(text))) if text else ()
    if text is not None and not found:
        raise RecipeError(f"--cpus {text!r}: name cores, as 0,1 or 0-3.")
    return found


def _measured(
    plan: Plan, on: str | None, devices: Path | None, output: Path | None, quiet: bool
) -> Report:
    """What was measured, as this command's; interrupted, what is whole is kept."""
    whole: list[Report] = []
    with Steps(quiet) as steps:
        if on is not None:
            from edgessl.gate.remote import bench as remote

            return _signed(remote.measure(on, plan, steps, devices=devices))
        from edgessl.gate.bench import measure

        try:
            return _signed(measure(plan, steps, whole.append))
        except (KeyboardInterrupt, SystemExit):
            rounds = len(whole)
            if output is not None and rounds >= _FEWEST:
                text_output.write(output, _signed(whole[-1]).dumps())
                said = f"{rounds} of {plan.rounds} rounds are in {output}"
                interrupts.leaves(lambda: said)
            raise


def _signed(report: Report) -> Report:
    return replace(report, command=("edgessl", *sys.argv[1:]))


def _ratios(report: Report) -> Iterator[list[str]]:
    """Of each subject's median latency to the first one's, round by round, as the gate has it."""
    from edgessl.gate import quantities
    from edgessl.gate.judging import statistics

    first = report.subjects[0].name
    runs = {run.key: run for run in report.runs}
    for (name, scenario, shape), run in runs.items():
        if name == first:
            continue
        mine = quantities.by_round(run, "p50")
        other = quantities.by_round(runs[first, scenario, shape], "p50")
        logs = [math.log(mine[n] / other[n]) for n in sorted(mine.keys() & other.keys())]
        middle, (low, high) = statistics.shift_interval(logs, 0.95)
        known = math.isfinite(low)
        between = f"{math.exp(low):.3f} to {math.exp(high):.3f}" if known else "too few rounds"
        yield [f"{name} / {first}", scenario, shape, f"{math.exp(middle):.3f}", between]

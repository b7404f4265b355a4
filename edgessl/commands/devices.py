"""``edgessl devices``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from edgessl import tables
from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import EdgesslError, RecipeError
from edgessl.progress import Steps

_EXAMPLES = """\b
Examples:
  edgessl devices                       what devices.toml names
  edgessl devices --check               ask every one of them what it is
  edgessl devices --check ssh://pi@10.0.0.7
  edgessl devices --clean nano          remove what edgessl keeps there

Exit codes: 0 all answered, 2 wrong use or one did not."""


@click.command(short_help="The devices that --on can name.", epilog=_EXAMPLES)
@click.argument("names", metavar="[NAME|ssh://...]...", nargs=-1)
@click.option(
    "--devices", "path", type=click.Path(path_type=Path), help="[default: ./devices.toml]"
)
@click.option("--check", is_flag=True, help="Connect, and say what is there.")
@click.option("--clean", is_flag=True, help="Remove all that edgessl keeps there.")
@quiet_option
@json_option
def devices(
    names: tuple[str, ...], path: Path | None, check: bool, clean: bool, quiet: bool, as_json: bool
) -> int:
    """List devices.toml, and whether its devices can be reached and used."""
    from edgessl.gate.remote import devices as rows
    from edgessl.gate.remote import fleet

    if check and clean:
        raise RecipeError("--check and --clean: one at a time.")
    if clean and not names:
        raise RecipeError("--clean needs the names of the devices to clean.")
    wanted = names or tuple(rows.devices(path or rows.DEFAULT))
    found = rows.find_all(wanted, path)
    if not (check or clean):
        listed = {name: asdict(row) for name, row in found.items()}
        if as_json:
            click.echo(json.dumps(listed, indent=2))
        else:
            lines = [(name, row.by_hand) for name, row in found.items()]
            click.echo(tables.plain(("device", "reached with"), lines, left=2))
        return 0
    question = "facts" if check else "clean"
    with Steps(quiet) as steps:
        answers = fleet.at_once(found, lambda link: link.ask(question, {}), steps)
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, EdgesslError)}
    if as_json:
        said = {name: {"error": str(a)} if name in failed else a for name, a in answers.items()}
        click.echo(json.dumps(said, indent=2))
    for name, answer in answers.items():
        if isinstance(answer, EdgesslError):
            click.echo(f"error: {answer}", err=True)
        elif not as_json:
            click.echo(_checked(name, answer) if check else _cleaned(name, answer))
    return max((error.exit_code for error in failed.values()), default=0)


def _checked(name: str, facts: dict[str, object]) -> str:
    jetson = f", {facts['jetpack']}, power mode {facts['power_mode']}" if facts["jetpack"] else ""
    able = "venv" if facts["venv"] else "uv" if facts["uv"] else "no venv and no uv"
    return (
        f"{name}: {facts['model']} ({facts['machine']}), {facts['cores']} cores, "
        f"{facts['memory_mb']:,} MB, {facts['system']}{jetson}; Python {facts['python']} ({able}), "
        f"{facts['free_mb']:,} MB free in {facts['root']}"
    )


def _cleaned(name: str, answer: dict[str, object]) -> str:
    if answer["running"]:
        return f"{name}: a job runs there; nothing was removed"
    return f"{name}: {answer['root']} was removed"

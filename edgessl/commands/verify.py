"""``edgessl verify``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgessl.commands.options import json_option, quiet_option
from edgessl.progress import Steps


@click.command(short_help="Check a bundle: its files, this device, its vectors.")
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@quiet_option
@json_option
def verify(path: Path, quiet: bool, as_json: bool) -> int:
    """Check BUNDLE: every file's hash, this device, and parity with its reference.

    Exit code 0 when all is well, 4 when the bundle is damaged or says something else here.
    """
    from edgessl import pipeline

    with Steps(quiet) as steps:
        result = pipeline.verify(path, report=steps)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return 0 if result["ok"] else 4
    for problem in result["files"]:
        click.echo(f"files          {problem}")
    if not result["files"]:
        found, ran = result["parity"], result["runtime"]
        click.echo("files          all as written")
        click.echo(
            f"preprocessing  {'as at export' if result['preprocessing'] else 'DIFFERS here'}"
        )
        click.echo(
            f"parity         cosine {found['cosine_mean']:.6f} mean, {found['cosine_min']:.6f} "
            f"lowest over {found['rows']} vectors{'' if found['within'] else '  OUT OF BOUND'}"
        )
        click.echo(f"runtime        {ran['runtime']} {ran['version']}, {ran['device']}")
    click.echo(
        "ok"
        if result["ok"]
        else f"{path} is damaged or does not fit this device; copy or export it again"
    )
    return 0 if result["ok"] else 4

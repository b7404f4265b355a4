"""``edgessl inspect``."""

from __future__ import annotations

import json
from typing import Any

import click

from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps


@click.command(short_help="Layers, parameters, FLOPs, precision, provenance; int8 sensitivity.")
@click.argument("path", metavar="MODEL|BUNDLE")
@click.option("--layers", is_flag=True, help="One row a layer.")
@click.option("--sensitivity", is_flag=True, help="What int8 costs, operator by operator.")
@click.option("--target", "-t", help="With --sensitivity: whose int8.  [default: onnx]")
@click.option("--calibration", "-c", metavar="DATA", help="With --sensitivity: as for an export.")
@click.option("--calibration-column", metavar="NAME", help="With --sensitivity: column of a table.")
@click.option("--samples", type=click.IntRange(min=1), help="With --sensitivity.  [default: 300]")
@quiet_option
@json_option
def inspect(
    path: str, layers: bool, sensitivity: bool, quiet: bool, as_json: bool, **flags: Any
) -> int:
    """Layers, parameters, FLOPs, size, precision per layer and provenance.

    MODEL (a directory or a hub id) is loaded with torch; BUNDLE is read with onnx or openvino.

    With --sensitivity each operator alone, and each block, is put into int8 and the vectors are
    compared with those in float: what to give to export --exclude.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if sensitivity:
        from edgessl import sensitivity as measuring
        from edgessl.recipe import Recipe

        with Steps(quiet) as steps:
            found = measuring.measure(Recipe(model=path, precision="int8", **given), report=steps)
        click.echo(json.dumps(found, indent=2) if as_json else measuring.render(found, layers))
        for note in found["calibration"].get("notes", ()):
            click.echo(f"warning  {note}", err=True)
        return 0
    if given:
        raise RecipeError(f"--{next(iter(given)).replace('_', '-')} is for --sensitivity.")
    from edgessl import inspection

    with Steps(quiet) as steps:
        found = inspection.inspect(path, report=steps)
    click.echo(json.dumps(found, indent=2) if as_json else inspection.render(found, layers))
    return 0

"""``edgessl info``."""

from __future__ import annotations

import json

import click

from edgessl.commands.options import json_option, quiet_option
from edgessl.progress import Steps


@click.command()
@quiet_option
@json_option
def info(quiet: bool, as_json: bool) -> int:
    """What this machine can do, and what to install for the rest."""
    from edgessl import info as facts

    with Steps(quiet) as steps:
        steps("trying the libraries that are installed here")
        found = facts.collect()
    click.echo(json.dumps(found, indent=2) if as_json else facts.render(found))
    return 0

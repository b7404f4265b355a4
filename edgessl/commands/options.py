"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
devices_option = click.option(
    "--devices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the NAME of --on is.  [default: ./devices.toml]",
)

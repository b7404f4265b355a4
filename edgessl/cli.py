"""The command line: a group of the commands in ``edgessl.commands``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgessl import __version__, console
from edgessl.commands.bench import bench
from edgessl.commands.compress import compress
from edgessl.commands.devices import devices
from edgessl.commands.embed import embed
from edgessl.commands.eval import evaluate
from edgessl.commands.export import export
from edgessl.commands.gate import gate
from edgessl.commands.history import history
from edgessl.commands.info import info
from edgessl.commands.inspect import inspect
from edgessl.commands.report import report
from edgessl.commands.verify import verify


@click.group(cls=console.Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgessl")
def cli() -> None:
    """Small, fast, verified encoders for devices: ONNX Runtime, OpenVINO, TensorRT."""


for _command in (
    compress,
    export,
    verify,
    embed,
    bench,
    evaluate,
    gate,
    report,
    history,
    devices,
    info,
    inspect,
):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a user's mistake is one line on stderr."""
    return console.run(cli, arguments)


def main() -> None:
    """The ``edgessl`` command."""
    console.main(cli)

"""``edgessl embed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps

_EXAMPLES = """\b
Examples:
  edgessl embed minilm/ texts.txt -o vectors.npy
  edgessl embed minilm/ reviews.parquet --column body --id-column id -o vectors.parquet
  edgessl embed minilm/ docs.jsonl --long chunk --dtype int8 -o vectors.npz
  edgessl embed mae/ photos/ -o photos.parquet
  edgessl embed minilm/ more.txt -o vectors.npy --append

A job that was stopped, or killed, goes on with the same command.
Exit codes: 0 written, 2 wrong use or too many unreadable rows, 3 something
missing, 4 a damaged bundle."""


@click.command(short_help="Turn whole files of texts or images into vectors.", epilog=_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="What to write, by its ending: .parquet, .npz, .npy or .jsonl.",
)
@click.option("--column", metavar="NAME", help="Of a table, what is embedded.")
@click.option(
    "--id-column", metavar="NAME", help="Of a table, what names a row.  [default: number]"
)
@click.option("--keep", multiple=True, metavar="NAME", help="A column to carry along; repeatable.")
@click.option("--dtype", help="Of the vectors: float32, float16, int8, binary.  [default: float32]")
@click.option("--prompt", metavar="TEXT", help="Put before every text.")
@click.option("--prompt-name", metavar="NAME", help="One of the model's own prompts.")
@click.option("--max-length", type=int, help="Tokens of a text.  [default: the bundle's]")
@click.option("--long", help="Longer texts: cut, chunk or refuse.  [default: cut]")
@click.option("--keep-patches", type=float, help="Share of an image's patches to look at (MAE).")
@click.option("--patches", help="Which ones: grid, random or saliency.  [default: grid]")
@click.option("--device", help="cpu, gpu or npu.  [default: the target's]")
@click.option("--threads", type=int, help="Inside one inference.  [default: by this machine]")
@click.option("--streams", type=int, help="Inferences at once.  [default: by this machine]")
@click.option("--batch-tokens", type=int, help="Tokens in a batch, padding included.")
@click.option(
    "--max-rejected",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Share of the rows that may be unreadable; they are listed in OUT.rejected.jsonl.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="In this process, or on a Ray cluster.",
)
@click.option("--ray-address", metavar="HOST:PORT", help="Of a cluster.  [default: this machine]")
@click.option("--workers", type=int, help="Of the cluster.  [default: one for each node]")
@click.option("--append", is_flag=True, help="Add to vectors of the same variant.")
@click.option("--overwrite", is_flag=True, help="Replace the vectors that are there.")
@click.option("--restart", is_flag=True, help="Forget what a stopped job has done.")
@quiet_option
@json_option
def embed(
    bundle: Path,
    inputs: tuple[str, ...],
    output: Path,
    keep: tuple[str, ...],
    engine: str,
    ray_address: str | None,
    workers: int | None,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Embed every row of INPUT with BUNDLE, in constant memory.

    INPUT: texts (.txt, .csv, .tsv, .jsonl, .json, .parquet), images (a folder, .npy, .npz, a
    table), recordings or videos; several are read one after the other. "-" reads lines of text
    from standard input.
    """
    from edgessl.embed import finish, job

    given = {name: value for name, value in flags.items() if value is not None}
    cluster = None
    if engine == "ray":
        from edgessl.embed.ray_engine import Cluster

        cluster = Cluster(ray_address, workers)
    for flag, value in (("--ray-address", ray_address), ("--workers", workers)):
        if value is not None and cluster is None:
            raise RecipeError(f"{flag} is for --engine ray.")
    with Steps(quiet) as steps:
        found = job.run(bundle, inputs, output, keep=keep, report=steps, cluster=cluster, **given)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 0
    for line in finish.lines(found):
        click.echo(line)
    return 0

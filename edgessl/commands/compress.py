"""``edgessl compress``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgessl.commands import compressed
from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps

_EXAMPLES = """\b
Examples:
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-fast/ --latency 0.67x --target openvino --data texts.txt
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-less/ --flops 0.6x --data texts.txt
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-4/ --layers 4 --data texts.txt
  edgessl compress ./multilingual-e5-small -o e5-english/ --vocab docs.jsonl --vocab-size 20000
  edgessl export minilm-fast/ -t openvino -o bundle/

Exit codes: 0 written, 2 wrong use or an unusable checkpoint, 3 something missing
or unsupported."""

# The flags that say what to do -> the options that belong to each.
_WAYS: dict[str, tuple[str, ...]] = {
    "latency": ("data", "target", "shape", "samples"),
    "flops": ("data", "samples"),
    "params": ("data", "samples"),
    "layers": ("data",),
    "vocab": ("vocab_size",),
}


@click.command(
    short_help="Make a checkpoint smaller: heads, channels, layers, vocabulary.", epilog=_EXAMPLES
)
@click.argument("model")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="The new checkpoint's directory; written whole or not at all.",
)
@click.option("--latency", metavar="0.67x", help="Prune heads and channels to this share of it.")
@click.option("--flops", metavar="0.6x", help="The same, for floating-point operations.")
@click.option("--params", metavar="0.6x", help="The same, for parameters of the layers.")
@click.option("--layers", type=int, metavar="N", help="Keep the N layers that matter most.")
@click.option(
    "--vocab",
    multiple=True,
    metavar="DATA",
    help="Keep the tokens of these texts, as for edgessl embed; repeatable.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="DATA",
    help="Texts or images that tell what matters, as for edgessl embed; repeatable.",
)
@click.option("--target", "-t", help="Where --latency is measured: onnx or openvino, here.")
@click.option("--shape", help="Of what is measured: 1x32 (texts x tokens), 8 (images).")
@click.option(
    "--samples", type=click.IntRange(min=1), help="Of --data, to prune by.  [default: 2048]"
)
@click.option(
    "--vocab-size",
    type=click.IntRange(min=1),
    help="Tokens to keep at most, the most frequent first.  [default: all that occur]",
)
@click.option("--column", metavar="NAME", help="Of a table.")
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@quiet_option
@json_option
def compress(
    model: str,
    output: Path,
    column: str | None,
    revision: str | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Make MODEL smaller, as a checkpoint. Nothing is trained, and no labels are needed.

    MODEL is a directory in the Hugging Face or sentence-transformers layout, or a hub id.

    --latency, --flops, --params: attention heads and feed-forward channels are removed, those that
    the vectors of the data need least, and the weights of the others fitted anew. --layers: whole
    layers are left out. --vocab: tokenizer and embedding table are cut down together; texts that
    need no other tokens keep their vectors, bit for bit. See docs/compress.md.
    """
    way = _way(given)
    options: dict[str, Any] = {"column": column, "revision": revision}
    with Steps(quiet) as steps:
        found = _run(way, model, output, given, {**options, "report": steps})
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return 0
    for line in compressed.lines(found):
        click.echo(line)
    return 0


def _way(given: dict[str, Any]) -> str:
    """Which of ``_WAYS``, and whether its options fit."""
    ways = [way for way in _WAYS if given[way] not in (None, ())]
    if len(ways) != 1:
        flags = ", ".join(f"--{way}" for way in _WAYS)
        raise RecipeError(
            f"give one of {flags}: one at a time, the next one on what the first has written."
        )
    (way,) = ways
    for name in {name for names in _WAYS.values() for name in names} - set(_WAYS[way]):
        if given[name] not in (None, ()):
            owners = ", ".join(f"--{owner}" for owner, names in _WAYS.items() if name in names)
            raise RecipeError(f"--{name.replace('_', '-')} is for {owners}.")
    if "data" in _WAYS[way] and not given["data"]:
        raise RecipeError(f"--{way} needs --data: some texts or images, without labels.")
    if way == "latency" and not given["target"]:
        raise RecipeError("--latency needs --target: where it is measured, onnx or openvino.")
    return way


def _run(
    way: str, model: str, output: Path, given: dict[str, Any], options: dict[str, Any]
) -> compressed.Found:
    if way == "layers":
        from edgessl.shortening import shorten

        return shorten(model, given["data"], output, layers=given["layers"], **options)
    if way == "vocab":
        from edgessl.trimming import trim

        return trim(model, given["vocab"], output, size=given["vocab_size"], **options)
    from edgessl.pruning import Budget, prune

    budget = Budget(way, _fraction(way, given[way]), given["target"] or "", given["shape"] or "")
    if given["samples"]:
        options["samples"] = given["samples"]
    return prune(model, given["data"], output, budget=budget, **options)


def _fraction(way: str, text: str) -> float:
    """``0.6x`` -> 0.6"""
    try:
        fraction = float(text.removesuffix("x"))
    except ValueError:
        fraction = -1.0
    if not 0 < fraction < 1:
        raise RecipeError(
            f"--{way} {text}: not a share of what it is now; say 0.67x for two thirds of it."
        )
    return fraction

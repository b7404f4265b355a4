"""``edgessl compress``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps

if TYPE_CHECKING:
    from edgessl.shortening import Shortened
    from edgessl.trimming import Trimmed

_EXAMPLES = """\b
Examples:
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-4/ --layers 4 --data texts.txt
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-small/ --vocab texts.txt
  edgessl compress ./multilingual-e5-small -o e5-english/ --vocab docs.jsonl --vocab-size 20000
  edgessl export minilm-small/ -t openvino -o bundle/

Exit codes: 0 written, 2 wrong use or an unusable checkpoint, 3 something missing
or unsupported."""


@click.command(short_help="Make a checkpoint smaller: layers, vocabulary.", epilog=_EXAMPLES)
@click.argument("model")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="The new checkpoint's directory; written whole or not at all.",
)
@click.option("--layers", type=int, metavar="N", help="Keep the N layers that matter most.")
@click.option(
    "--data",
    multiple=True,
    metavar="DATA",
    help="For --layers: texts or images that tell, as for edgessl embed; repeatable.",
)
@click.option(
    "--vocab",
    "corpus",
    multiple=True,
    metavar="DATA",
    help="Keep the tokens of these texts, as for edgessl embed; repeatable.",
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
    layers: int | None,
    data: tuple[str, ...],
    corpus: tuple[str, ...],
    vocab_size: int | None,
    column: str | None,
    revision: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Make MODEL smaller, as a checkpoint that other libraries read, too.

    MODEL is a directory in the Hugging Face or sentence-transformers layout, or a hub id.

    --layers: whole layers are left out, those without which the vectors of the data change least.
    --vocab: tokenizer and embedding table are cut down together; texts that need no other tokens
    keep their vectors, bit for bit. See docs/compress.md.
    """
    if (layers is None) == (not corpus):
        raise RecipeError(
            "give --layers N with --data, or --vocab DATA: one at a time, the second on what the "
            "first has written."
        )
    if layers is not None and not data:
        raise RecipeError("--layers needs --data: some texts or images, without labels.")
    for flag, given, owner in (
        ("--data", data and layers is None, "--layers"),
        ("--vocab-size", vocab_size and not corpus, "--vocab"),
    ):
        if given:
            raise RecipeError(f"{flag} is for {owner}.")
    options: dict[str, Any] = {"column": column, "revision": revision}
    found: Shortened | Trimmed
    with Steps(quiet) as steps:
        if layers is not None:
            from edgessl.shortening import shorten

            found = shorten(model, data, output, layers=layers, report=steps, **options)
            lines = _layers(found)
        else:
            from edgessl.trimming import trim

            found = trim(model, corpus, output, size=vocab_size, report=steps, **options)
            lines = _vocabulary(found)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return 0
    saved = 1 - found.bytes_after / found.bytes_before
    click.echo(f"checkpoint  {found.path}")
    click.echo(f"parameters  {found.parameters_before:,} -> {found.parameters_after:,}")
    size = f"{found.bytes_before / 1e6:.1f} -> {found.bytes_after / 1e6:.1f} MB"
    click.echo(f"size        {size} ({saved:.0%} less)")
    for line in lines:
        click.echo(line)
    return 0


def _layers(found: Shortened) -> Iterator[str]:
    saved = 1 - found.flops_after / found.flops_before
    flops = f"{found.flops_before / 1e9:.2f} -> {found.flops_after / 1e9:.2f} G an item"
    yield f"operations  {flops} ({saved:.0%} less)"
    for layer, cosine in found.left_out:
        yield f"without     layer {layer}: cosine {cosine:.4f} to the whole encoder"
    total = len(found.kept) + len(found.left_out)
    yield f"kept        layers {', '.join(map(str, found.kept))} of {total}"
    yield (
        f"fidelity    cosine {found.cosine_mean:.4f} mean, {found.cosine_p1:.4f} 1st percentile, on "
        f"the {found.items} items that chose; measure others with edgessl eval"
    )


def _vocabulary(found: Trimmed) -> Iterator[str]:
    yield (
        f"tokens      {found.tokens_before:,} -> {found.tokens_after:,}; they cover "
        f"{found.covered:.1%} of {found.texts:,} texts"
    )
    yield (
        f"checked     the same tokens for {found.identical_texts:,} covered texts, the same "
        f"vectors, bit for bit, for {found.identical_vectors}"
    )

"""``edgessl compress``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from edgessl import passes
from edgessl import recipe as recipes
from edgessl.commands import compressed
from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps
from edgessl.staging import check_output

_EXAMPLES = """\b
Examples:
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-fast/ --latency 0.67x --target openvino --data texts.txt
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-less/ --flops 0.6x --data texts.txt
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-4/ --layers 4 --data texts.txt
  edgessl compress ./all-MiniLM-L6-v2 -o minilm-24/ --semi-structured sparsegpt --data texts.txt
  edgessl compress ./multilingual-e5-small -o e5-english/ --vocab docs.jsonl --vocab-size 20000
  edgessl compress minilm-3/ -o minilm-taught/ --teacher ./all-MiniLM-L6-v2 --data texts.txt
  edgessl compress --recipe recipe.toml -o smaller/
  edgessl export minilm-fast/ -t openvino -o bundle/

Exit codes: 0 written, 2 wrong use or an unusable checkpoint, 3 something missing
or unsupported."""

# A flag that says what to do -> the pass that does it, and the flag's name among its options.
_WAYS = {
    "latency": ("prune", "latency"),
    "flops": ("prune", "flops"),
    "params": ("prune", "params"),
    "layers": ("layers", "keep"),
    "width": ("width", "keep"),
    "vocab": ("vocabulary", "data"),
    "semi_structured": ("semi_structured", "method"),
    "teacher": ("distill", "teacher"),
}
# The others.
_OPTIONS = {
    "data": "data",
    "target": "target",
    "shape": "shape",
    "samples": "samples",
    "signal": "signal",
    "label_column": "label_column",
    "vocab_size": "size",
    "minutes": "minutes",
    "epochs": "epochs",
    "objective": "objectives",
    "batch": "batch",
    "learning_rate": "learning_rate",
    "seed": "seed",
}


@click.command(
    short_help="Make a checkpoint smaller: heads, channels, layers, vocabulary.", epilog=_EXAMPLES
)
@click.argument("model", required=False)
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
@click.option("--width", type=int, metavar="N", help="Keep N dimensions of the stream.")
@click.option(
    "--vocab",
    multiple=True,
    metavar="DATA",
    help="Keep the tokens of these texts, as for edgessl embed; repeatable.",
)
@click.option(
    "--semi-structured",
    metavar="METHOD",
    help="Set 2 of each 4 weights to 0, for TensorRT: sparsegpt or magnitude.",
)
@click.option(
    "--teacher",
    metavar="CHECKPOINT",
    help="Teach MODEL to say what this one says of the data (distillation).",
)
@click.option(
    "--data",
    multiple=True,
    metavar="DATA",
    help="Texts or images that tell what matters, as for edgessl embed; repeatable.",
)
@click.option("--target", "-t", help="Where latency is measured: onnx or openvino, here.")
@click.option("--shape", help="Of what is measured: 1x32 (texts x tokens), 8 (images).")
@click.option(
    "--samples", type=click.IntRange(min=1), help="Of --data, to prune by.  [default: 2048]"
)
@click.option(
    "--signal",
    metavar="NAME",
    help="What must not move: vectors, reconstruction (of what is masked, by the pretraining head) "
    "or labels (a classifier's).  [default: vectors]",
)
@click.option("--label-column", metavar="NAME", help="Of a table, for --signal labels.")
@click.option(
    "--vocab-size",
    type=click.IntRange(min=1),
    help="Tokens to keep at most, the most frequent first.  [default: all that occur]",
)
@click.option("--minutes", type=float, help="Of distillation, all in all.  [default: 20]")
@click.option("--epochs", type=int, help="Instead: times that it sees the data.")
@click.option(
    "--objective",
    multiple=True,
    metavar="NAME[=W]",
    help="embedding, similarity, hidden, attention, tokens, masked or logits, and its weight; "
    "repeatable.  [default: embedding]",
)
@click.option("--batch", type=int, help="Items of a step.  [default: 32]")
@click.option("--learning-rate", type=float, help="The highest.  [default: 5e-4]")
@click.option("--seed", type=int, help="Of distillation.  [default: 0]")
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path),
    metavar="R.TOML",
    help="Run a recipe's passes, one after the other.",
)
@click.option("--column", metavar="NAME", help="Of a table.")
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@quiet_option
@json_option
def compress(
    model: str | None,
    output: Path,
    recipe_path: Path | None,
    column: str | None,
    revision: str | None,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Make MODEL smaller, as a checkpoint, or teach a small one. No labels are needed, and nothing
    is trained but with --teacher.

    MODEL is a directory in the Hugging Face or sentence-transformers layout, or a hub id.

    --latency, --flops, --params: attention heads and feed-forward channels are removed, those that
    the vectors of the data need least, and the weights of the others fitted anew. --layers: whole
    layers are left out. --width: dimensions of the stream that runs through all of them. --vocab:
    tokenizer and embedding table are cut down together; texts that need no other tokens keep their
    vectors, bit for bit. --semi-structured: 2 of each 4 weights become 0. --teacher: MODEL learns to
    say what a larger encoder says. See docs/compress.md and docs/distill.md.
    """
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    recipe = _recipe(recipe_path, given)
    recipe = replace(recipe, model=model or recipe.model, revision=revision or recipe.revision)
    if not recipe.model:
        raise RecipeError("no model given: pass a directory or hub id, or name it in a recipe.")
    check_output(output, overwrite=False)
    with (
        Steps(quiet) as steps,
        passes.chained(recipe, output, column=column, report=steps) as (smaller, found),
    ):
        os.rename(smaller.model, output)
    found = [one and replace(one, path=str(output)) for one in found]
    if as_json:
        facts = [one and asdict(one) for one in found]
        click.echo(json.dumps({"passes": facts} if recipe_path else facts[0], indent=2))
        return 0
    for one, done in zip(recipe.passes, found, strict=True):
        if recipe_path:
            click.echo(f"pass        {one.name}{'' if done else ': an earlier run did it'}")
        for line in compressed.lines(done) if done else ():
            click.echo(line)
    return 0


def _recipe(path: Path | None, given: dict[str, Any]) -> recipes.Recipe:
    """Of a file, or with the one pass that the flags *given* ask for."""
    if path is None:
        return recipes.Recipe(passes=(_one(given),))
    if given:
        raise RecipeError(f"{_flag(min(given))} and --recipe: give one; the recipe has its own.")
    recipe = recipes.read(path)
    if not recipe.passes:
        raise RecipeError(
            f"{path}: there is no pass in it; sections: "
            f"{', '.join(f'[{name}]' for name in passes.PASSES)}."
        )
    return recipe


def _one(given: dict[str, Any]) -> passes.Pass:
    """The pass of the flags *given*."""
    ways = [way for way in _WAYS if way in given]
    if len(ways) != 1:
        flags = ", ".join(map(_flag, _WAYS))
        raise RecipeError(f"give one of {flags}; or several, one after the other, in a --recipe.")
    name, key = _WAYS[ways[0]]
    options = {key: given.pop(ways[0])}
    for flag, value in given.items():
        if _OPTIONS[flag] not in {"data", *passes.PASSES[name].options} - {key}:
            able = [
                way
                for way, (other, own) in _WAYS.items()
                if _OPTIONS[flag] in {"data", *passes.PASSES[other].options} - {own}
            ]
            raise RecipeError(f"{_flag(flag)} is for {', '.join(map(_flag, able))}.")
        options[_OPTIONS[flag]] = value
    one = passes.Pass(name, options)
    names = {own: flag for flag, own in _OPTIONS.items()}
    names |= {own: flag for flag, (other, own) in _WAYS.items() if other == name}
    passes.check(one, lambda key: _flag(names.get(key, key)))
    return one


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

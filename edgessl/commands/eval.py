"""``edgessl eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgessl import text_output
from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps

if TYPE_CHECKING:
    from edgessl.gate.evaluate.vectors import Vectorizer

_EXAMPLES = """\b
Examples:
  edgessl eval minilm-int8/                                    its golden inputs, no data
  edgessl eval minilm/ minilm-int8/ --data texts.txt           the first is the reference
  edgessl eval minilm-int8/ --data stsb.csv --reference sentence-transformers/all-MiniLM-L6-v2
  edgessl eval minilm/ minilm-int8/ --data scifact/ -k 100 -o report.json
  edgessl eval mae/ --data photos/ --metric classify --metric cluster
  edgessl eval new/ --data docs.jsonl --reference index.parquet   can they live in the old index?

Exit codes: 0 measured, 2 wrong use or unusable data, 3 something missing, 4 a damaged bundle."""


@click.command("eval", short_help="Measure accuracy, and what it lost.", epilog=_EXAMPLES)
@click.argument("things", metavar="BUNDLE...", nargs=-1, required=True)
@click.option("--data", metavar="DATA", help="See below.  [default: the bundle's golden inputs]")
@click.option(
    "--metric",
    "-m",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric, or a kind: fidelity, sts, retrieval, classify, cluster; repeatable.  "
    "[default: by the data]",
)
@click.option(
    "--reference",
    "-r",
    metavar="BUNDLE|MODEL|VECTORS",
    help="What the others are compared with.  [default: the first of several]",
)
@click.option("--column", "item", metavar="NAME", help="Of a table, what is embedded.")
@click.option("--label-column", "label", metavar="NAME", help="Of a table, the classes.")
@click.option("--pair", metavar="A,B", help="Of a table, two texts to compare.")
@click.option("--score-column", "score", metavar="NAME", help="With --pair, how alike they are.")
@click.option("--id-column", "id", metavar="NAME", help="Of a table, what names a row.")
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Of metrics at k.")
@click.option("--items", type=int, metavar="N", help="Draw so many.  [default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything drawn.")
@click.option("--device", help="cpu, gpu or npu.  [default: the target's]")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Write the report, for a gate."
)
@quiet_option
@json_option
def evaluate(
    things: tuple[str, ...],
    data: str | None,
    metrics: tuple[str, ...],
    reference: str | None,
    pair: str | None,
    k: int,
    items: int | None,
    seed: int,
    device: str | None,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    **columns: str | None,
) -> int:
    """Measure the accuracy of BUNDLEs, and the difference to a reference with its interval.

    BUNDLE is PATH or NAME=PATH, or a file of vectors that edgessl embed wrote.

    DATA says which metrics: a folder in BEIR's layout, retrieval; a table with two columns of
    texts and one of scores, STS; items with labels (a table, a folder for each class, an .npz),
    classification; with a reference always how near its vectors are, for which any texts or
    images will do. See docs/eval.md.
    """
    from edgessl.gate import subjects
    from edgessl.gate.evaluate import run, words
    from edgessl.gate.evaluate.columns import Columns

    if output is not None:
        text_output.check(output, overwrite=True)
    named: dict[str, str | Vectorizer] = {**subjects.named(things)}
    with Steps(quiet) as steps:
        against = next(iter(named)) if len(named) > 1 else None
        if reference is not None:
            against, what = _reference(reference, named, steps)
            named[against] = what
        found = run.evaluate(
            named,
            against,
            data,
            metrics,
            columns=Columns(**columns, pair=_pair(pair)),
            k=k,
            items=items,
            seed=seed,
            report=steps,
            device=device,
        )
    if output is not None:
        text_output.write(output, found.dumps())
    click.echo(found.dumps() if as_json else "\n".join(words.lines(found)), nl=not as_json)
    return 0


def _pair(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    left, comma, right = (part.strip() for part in given.partition(","))
    if not (left and comma and right) or "," in right:
        raise RecipeError(f"--pair {given!r}: it takes the names of two columns: --pair A,B")
    return left, right


def _reference(
    given: str, named: Mapping[str, str | Vectorizer], steps: Steps
) -> tuple[str, str | Vectorizer]:
    """Its name, and its path or, of a checkpoint, the encoder in torch."""
    from edgessl.bundle import is_bundle
    from edgessl.gate import subjects
    from edgessl.gate.evaluate import vectors

    ((name, path),) = subjects.named([given]).items()
    if name in named:
        name += " (reference)"
    if is_bundle(Path(path)) or vectors.is_file(path):
        return name, path
    return name, _in_torch(name, path, [str(where) for where in named.values()], steps)


def _in_torch(name: str, model: str, others: Sequence[str], steps: Steps) -> Vectorizer:
    """*model* in fp32, read as the first bundle of *others* was."""
    from edgessl import bundle, checkpoint_session
    from edgessl.gate.evaluate import vectors
    from edgessl.gate.evaluate.data import Data
    from edgessl.gate.report import Subject

    like = next((bundle.read(Path(p)) for p in others if bundle.is_bundle(Path(p))), None)
    steps(f"loading {model}")
    encoder = checkpoint_session.load(model, like, steps)
    spec = encoder.spec

    def embed(data: Data, steps: Steps) -> tuple[vectors.Vectors, dict[int, str]]:
        with checkpoint_session.opened(encoder) as session:
            return vectors.embedded(session, data, name, steps)

    subject = Subject(
        name, model, family=spec.family, task=spec.task, target="torch", precision="fp32"
    )
    return vectors.Vectorizer(subject, spec.task, embed)

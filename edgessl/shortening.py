"""A checkpoint with fewer layers, chosen on unlabeled data, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edgessl import checkpoint_session, compression, sizes, unlabeled
from edgessl.errors import RecipeError, Unsupported
from edgessl.parity import cosine
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from edgessl.staging import check_output, staged

ITEMS = 256  # of which the vectors are compared
_BY_LAYER = ("out_features", "out_indices", "stage_names")  # of a backbone: names layers


@dataclass(frozen=True)
class Shortened:
    """``kept``: numbers of the layers, from 0. ``left_out``: ``[layer, mean cosine to the whole
    encoder once it is gone]`` in the order in which they went. ``flops``: of one item, at the same
    shape before and after. ``cosine_p1``: 1st percentile. On ``items`` of the data."""

    path: str
    kept: tuple[int, ...]
    left_out: tuple[tuple[int, float], ...]
    cosine_mean: float
    cosine_p1: float
    items: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    flops_before: int
    flops_after: int


def shorten(
    model: str,
    data: Sequence[str],
    output: Path,
    *,
    keep: int,
    column: str | None = None,
    revision: str | None = None,
    report: Steps | None = None,
) -> Shortened:
    """Write *model* to the directory *output* with *keep* of its layers.

    Args:
        model: a directory in the Hugging Face or sentence-transformers layout, or a hub id.
        data: files of texts, or images, as docs/embed.md has them; *column* of a table. The first
            256 items say which layers matter.

    Raises:
        RecipeError: no data, or a number of layers that the encoder does not have.
        Unsupported: an encoder whose layers are not alike.
        CheckpointError: the checkpoint cannot be read, or what was written says something else.
        OutputError: *output* is there already, or cannot be written.
    """
    from edgessl.compress import layers as layering
    from edgessl.encoders import run, structures

    steps = report or Steps(quiet=True)
    check_output(output, overwrite=False)
    steps("reading the checkpoint")
    old = compression.read(model, revision, steps)
    encoder = load_encoder(Recipe(model=model, revision=revision), steps)
    key = next((name for name in layering.COUNTS if name in old.config), None)
    if encoder.spec.family not in layering.FAMILIES or key is None:
        able = ", ".join(sorted(layering.FAMILIES))
        raise Unsupported(f"--layers: {encoder.spec.family} is not one of {able}.")
    count = int(old.config[key])
    if not 0 < keep < count:
        raise RecipeError(f"--layers {keep}: this encoder has {count}; keep 1 to {count - 1}.")
    items = unlabeled.items(data, column, encoder, ITEMS)
    before = run.compute(encoder)
    try:
        holder, name = structures.listed(encoder.module, count)
        with checkpoint_session.opened(encoder) as session:
            whole = session.embed(items)
            steps("leaving out layers")
            kept, left_out = layering.choose(
                holder,
                name,
                keep,
                lambda: session.embed(items),
                lambda done, total: steps.count(done, total, "trials"),
            )
            vectors = session.embed(items)
        tensors = layering.renamed(old.tensors, count, kept)
    except Unsupported as err:
        raise Unsupported(f"{old.source}: {err}") from err
    near = cosine(vectors, whole)
    with staged(output, overwrite=False) as stage:
        steps("writing the smaller checkpoint")
        config = {name: value for name, value in old.config.items() if name not in _BY_LAYER}
        config[key] = keep
        if own := sizes.read(old.config):
            config = sizes.put(config, encoder.module.backbone.config, own.of(kept))  # type: ignore[union-attr]
        compression.write(stage, old, tensors, config)
        steps("comparing vectors")
        checkpoint_session.check(stage, items, vectors)
        facts = Shortened(
            path=str(output),
            kept=tuple(kept),
            left_out=tuple((step.left_out, step.cosine) for step in left_out),
            cosine_mean=float(near.mean()),
            cosine_p1=float(np.quantile(near, 0.01)),
            items=len(items),
            parameters_before=old.parameters,
            parameters_after=compression.count(tensors.values()),
            bytes_before=compression.size(old.tensors.values()),
            bytes_after=compression.size(tensors.values()),
            flops_before=before["flops"],
            flops_after=run.compute(encoder)["flops"],
        )
        compression.note(stage, old, "layers", asdict(replace(facts, path="")))
    return facts

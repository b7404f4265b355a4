"""A checkpoint whose layers have 2:4 sparse weights: made on unlabeled data, and checked."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgessl import checkpoint_session, compression, unlabeled
from edgessl.encoder import Encoder
from edgessl.errors import RecipeError, Unsupported, nearest
from edgessl.parity import cosine, rank_correlation
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from edgessl.staging import check_output, staged

if TYPE_CHECKING:
    import torch

    from edgessl.encoders.structures import Layer

METHODS = ("sparsegpt", "magnitude")


@dataclass(frozen=True)
class Sparsified:
    """``sparse``: names of the linear layers that have the pattern now, each with the number of its
    transformer layer. ``left_out``: ``[name, why]`` of the others. ``zeros``: share of the
    transformer layers' weights. ``cosine_mean``, ``cosine_p1`` (1st percentile) and
    ``rank_correlation`` (of all pairwise similarities): to the dense encoder's vectors, on ``held_out`` items that nothing was fitted to. ``items``: that were."""

    path: str
    method: str
    sparse: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    zeros: float
    cosine_mean: float
    cosine_p1: float
    rank_correlation: float
    items: int
    held_out: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int


def sparsify(
    model: str,
    data: Sequence[str],
    output: Path,
    *,
    method: str = "sparsegpt",
    samples: int = 2048,
    seed: int = 0,
    column: str | None = None,
    revision: str | None = None,
    report: Steps | None = None,
) -> Sparsified:
    """Write *model* to the directory *output* with 2:4 sparse weights in its transformer layers.

    Args:
        model: a directory in the Hugging Face or sentence-transformers layout, or a hub id.
        data: files of texts, or images, as docs/embed.md has them; *column* of a table.
        method: ``"sparsegpt"``, or ``"magnitude"``, which takes *data* only to say what was lost.
        samples: items at most; of them a part is held out to say that.

    Raises:
        RecipeError: too little data, or an unknown method.
        Unsupported: an encoder whose linear layers are not described, or do not fit the pattern.
        CheckpointError: the checkpoint cannot be read, or what was written says something else.
        OutputError: *output* is there already, or cannot be written.
    """
    from edgessl.compress import saved, semi_structured

    if method not in METHODS:
        raise RecipeError(
            f"unknown method {method!r}.{nearest(method, METHODS)} Known: {', '.join(METHODS)}."
        )
    steps = report or Steps(quiet=True)
    check_output(output, overwrite=False)
    steps("reading the checkpoint")
    old = compression.read(model, revision, steps)
    encoder = load_encoder(Recipe(model=model, revision=revision), steps)
    found = unlabeled.items(data, column, encoder, samples)
    fitted, held_out = unlabeled.split(found, seed, data[0])
    small = replace(encoder, module=copy.deepcopy(encoder.module))
    try:
        layers = _layers(encoder), _layers(small)
        sparse, left_out = _linears(layers[1])
        steps("making weights sparse")
        if method == "magnitude":
            semi_structured.magnitude(layers[1])
        else:
            _fit(encoder, layers, fitted, steps)
        _round(sparse.values(), old)
        tensors = saved.tensors(old.tensors, encoder.module.backbone, small.module.backbone)  # type: ignore[arg-type]
    except Unsupported as err:
        raise Unsupported(f"{old.source}: {err}") from err
    steps("comparing vectors")
    vectors = checkpoint_session.embed(small, held_out)
    whole = checkpoint_session.embed(encoder, held_out)
    near = cosine(vectors, whole)
    weights = [linear.weight for linear in (*sparse.values(), *left_out.values())]
    with staged(output, overwrite=False) as stage:
        steps("writing the sparse checkpoint")
        compression.write(stage, old, tensors, old.config)
        checkpoint_session.check(stage, held_out, vectors)
        facts = Sparsified(
            path=str(output),
            method=method,
            sparse=tuple(sparse),
            left_out=tuple(
                (name, f"{linear.in_features} inputs are no multiple of 4")
                for name, linear in left_out.items()
            ),
            zeros=sum(int((weight == 0).sum()) for weight in weights)
            / sum(weight.numel() for weight in weights),
            cosine_mean=float(near.mean()),
            cosine_p1=float(np.quantile(near, 0.01)),
            rank_correlation=rank_correlation(vectors, whole),
            items=len(fitted),
            held_out=len(held_out),
            parameters_before=old.parameters,
            parameters_after=compression.count(tensors.values()),
            bytes_before=compression.size(old.tensors.values()),
            bytes_after=compression.size(tensors.values()),
        )
        compression.note(stage, old, "semi_structured", asdict(replace(facts, path="")))
    return facts


def _layers(encoder: Encoder) -> list[Layer]:
    from edgessl.encoders import structures

    backbone: Any = encoder.module.backbone
    count = int(backbone.config.num_hidden_layers)
    return structures.find(encoder.spec.family, backbone, count)


def _linears(
    layers: Sequence[Layer],
) -> tuple[dict[str, torch.nn.Linear], dict[str, torch.nn.Linear]]:
    """Those that fit the pattern, and the others."""
    from edgessl.compress import semi_structured

    named = {
        f"{number}.{name}": layer.linear(name)
        for number, layer in enumerate(layers)
        for names in semi_structured.linears(layer)
        for name in names
    }
    able = {name: linear for name, linear in named.items() if semi_structured.fits(linear)}
    if not able:
        raise Unsupported("2:4: no linear layer has a multiple of 4 inputs.")
    return able, {name: linear for name, linear in named.items() if name not in able}


def _fit(
    encoder: Encoder,
    layers: tuple[Sequence[Layer], Sequence[Layer]],
    items: list[Any],
    steps: Steps,
) -> None:
    """*layers*: of *encoder*, and of its copy, which becomes sparse."""
    from edgessl.compress import flow, semi_structured

    dense, sparse = layers
    prepared = checkpoint_session.prepare(encoder, items)
    semi_structured.sparsegpt(
        (encoder.module, dense),
        sparse,
        flow.batches(encoder.module, dense, prepared),
        told=lambda done, of: steps.count(done, of, "layers"),
    )


def _round(linears: Iterable[torch.nn.Linear], old: compression.Checkpoint) -> None:
    """To what the checkpoint can hold."""
    narrowest = min(
        (tensor.dtype for tensor in old.tensors.values() if tensor.is_floating_point()),
        key=lambda dtype: int(dtype.itemsize),
    )
    for parameter in (parameter for linear in linears for parameter in linear.parameters()):
        parameter.data = parameter.data.to(narrowest).float()

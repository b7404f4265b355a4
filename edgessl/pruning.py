"""A checkpoint with fewer heads and channels: searched on unlabeled data, fitted, and checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgessl import checkpoint_session, compression, latency_table, sizes, unlabeled
from edgessl.encoder import Encoder
from edgessl.errors import RecipeError, Unsupported, nearest
from edgessl.parity import cosine, rank_correlation
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from edgessl.staging import check_output, staged

if TYPE_CHECKING:
    from edgessl.compress.costs import Costs
    from edgessl.compress.flow import Inputs
    from edgessl.compress.signals import Signal
    from edgessl.encoders.structures import Layer

SIGNALS = ("vectors", "reconstruction", "labels")
PICTURE = "compression.svg"  # what was removed where, beside the weights


@dataclass(frozen=True)
class Budget:
    """``what``: ``latency`` on ``target`` for inputs of ``shape`` (as ``edgessl bench`` has them),
    ``flops`` or ``params``, for which ``target`` is where the speed is measured in the end, if
    anywhere; ``fraction``: of the whole encoder's."""

    what: str
    fraction: float
    target: str = ""
    shape: str = ""

    def __str__(self) -> str:
        where = f" --target {self.target}" if self.target else ""
        return f"--{self.what} {self.fraction:g}x{where}"


@dataclass(frozen=True)
class Pruned:
    """``heads``, ``channels``: kept, by layer, of ``heads_before`` and ``channels_before`` each;
    ``removed_heads``: their numbers. ``promised``: the share of the budget's cost that the search
    has counted; ``measured``: of the latency, with its 95 % interval. ``cosine_mean``,
    ``cosine_p1`` (1st percentile) and ``rank_correlation`` (Spearman's, of all pairwise
    similarities): to the whole encoder's vectors, on ``held_out`` items that nothing was fitted to.
    ``accuracy_before``, ``accuracy_after``: of a classifier on these items, where the signal is
    ``labels``. ``flops``: of one item, at the same shape before and after."""

    path: str
    budget: str
    signal: str
    heads: tuple[int, ...]
    heads_before: int
    removed_heads: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]
    channels_before: int
    promised: float
    measured: float | None
    measured_interval: tuple[float, float] | None
    cosine_mean: float
    cosine_p1: float
    rank_correlation: float
    accuracy_before: float | None
    accuracy_after: float | None
    items: int
    held_out: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    flops_before: int
    flops_after: int


def prune(
    model: str,
    data: Sequence[str],
    output: Path,
    *,
    budget: Budget,
    signal: str = "vectors",
    label_column: str | None = None,
    samples: int = 2048,
    seed: int = 0,
    column: str | None = None,
    revision: str | None = None,
    report: Steps | None = None,
) -> Pruned:
    """Write *model* to the directory *output* with the heads and channels that *budget* allows.

    Args:
        model: a directory in the Hugging Face or sentence-transformers layout, or a hub id.
        data: files of texts, or images, as docs/embed.md has them; *column* of a table.
        signal: what must not move: the ``vectors``, the ``reconstruction`` of what is masked by
            the checkpoint's pretraining head, or what a fine-tuned classifier says of the
            ``labels``, which are in *label_column* of a table, or the names of images' folders.
        samples: items at most; of them a part is held out to say what was lost.

    Raises:
        RecipeError: too little data, labels that are not there or that the classifier does not
            have, or a budget that cannot be reached (says what can be).
        Unsupported: an encoder whose heads and channels are not described, a checkpoint without
            the head that *signal* needs, or a target that does not run here.
        CheckpointError: the checkpoint cannot be read, or what was written says something else.
        OutputError: *output* is there already, or cannot be written.
    """
    from edgessl.compress import flow, picture, saved, signals
    from edgessl.encoders import run, structures

    if signal not in SIGNALS:
        raise RecipeError(
            f"unknown signal {signal!r}.{nearest(signal, SIGNALS)} Known: {', '.join(SIGNALS)}."
        )
    steps = report or Steps(quiet=True)
    check_output(output, overwrite=False)
    if budget.target:
        latency_table.check(budget.target)
    steps("reading the checkpoint")
    old = compression.read(model, revision, steps)
    classifies = signal == "labels"
    if classifies:
        signals.require_classifier(old)
    recipe = Recipe(model=model, revision=revision, probabilities=classifies)
    encoder = load_encoder(recipe, steps)
    try:
        layers = structures.of(encoder)
        backbone: Any = encoder.module.backbone
    except Unsupported as err:
        raise Unsupported(f"{old.source}: {err}") from err
    if classifies:
        names = backbone.config.id2label
        found = unlabeled.labelled(data, column, label_column, encoder, names, samples, seed)
    else:
        found = [(item, 0) for item in unlabeled.items(data, column, encoder, samples)]
    fitted, rest = unlabeled.split(found, seed, data[0])
    held_out = [item for item, _ in rest]
    prepared = checkpoint_session.prepare(encoder, [item for item, _ in fitted])
    batches = flow.batches(encoder.module, layers, prepared)
    try:
        if signal == "reconstruction":
            judge = signals.reconstruction(encoder, batches, old.place, seed)
        elif classifies:
            judge = signals.labels(encoder, layers, prepared, [label for _, label in fitted])
        else:
            judge = signals.Signal(encoder.module, layers, batches)
    except Unsupported as err:
        raise Unsupported(f"{old.source}: {err}") from err
    costs = _costs(budget, encoder, layers, steps)
    module, kept = _search_and_fit(encoder, layers, batches, judge, costs, budget, steps)
    small = replace(encoder, module=module)
    steps("comparing vectors")
    whole, vectors = (
        checkpoint_session.embed(encoder, held_out),
        checkpoint_session.embed(small, held_out),
    )
    heads, channels = zip(*((len(heads), len(channels)) for heads, channels in kept), strict=True)
    timed = None
    if budget.target:
        steps(f"timing both on {budget.target}")
        timed = latency_table.compare(encoder, small, budget.target, budget.shape)
    near = cosine(vectors, whole)
    try:
        tensors = saved.tensors(old.tensors, backbone, module.backbone)
    except Unsupported as err:
        raise Unsupported(f"{old.source}: {err}") from err
    with staged(output, overwrite=False) as stage:
        steps("writing the smaller checkpoint")
        own = saved.sizes(sizes.read(old.config), kept)
        config = sizes.put(old.config, backbone.config, own)
        compression.write(stage, old, tensors, config)
        again = load_encoder(replace(recipe, model=str(stage), revision=None))
        checkpoint_session.same(checkpoint_session.embed(again, held_out), vectors)
        facts = Pruned(
            path=str(output),
            budget=str(budget),
            signal=signal,
            heads=heads,
            heads_before=layers[0].heads,
            removed_heads=tuple(
                tuple(sorted(set(range(layer.heads)) - set(some)))
                for layer, (some, _) in zip(layers, kept, strict=True)
            ),
            channels=channels,
            channels_before=layers[0].channels,
            promised=costs.total(list(heads), list(channels)) / _most(costs, layers),
            measured=timed[0] if timed else None,
            measured_interval=timed[1] if timed else None,
            cosine_mean=float(near.mean()),
            cosine_p1=float(np.quantile(near, 0.01)),
            rank_correlation=rank_correlation(vectors, whole),
            accuracy_before=_accuracy(whole, rest) if classifies else None,
            accuracy_after=_accuracy(vectors, rest) if classifies else None,
            items=len(fitted),
            held_out=len(held_out),
            parameters_before=old.parameters,
            parameters_after=compression.count(tensors.values()),
            bytes_before=compression.size(old.tensors.values()),
            bytes_after=compression.size(tensors.values()),
            flops_before=run.compute(encoder)["flops"],
            flops_after=run.compute(small)["flops"],
        )
        compression.note(stage, old, "pruning", asdict(replace(facts, path="")))
        drawn = picture.svg(
            f"{budget}: cosine {facts.cosine_mean:.4f} mean, {facts.cosine_p1:.4f} 1st percentile",
            facts.removed_heads,
            facts.heads_before,
            facts.channels,
            facts.channels_before,
        )
        target = stage / old.place.relative_to(old.directory) / PICTURE
        target.write_text(drawn, encoding="utf-8")
    return facts


def _costs(budget: Budget, encoder: Encoder, layers: Sequence[Layer], steps: Steps) -> Costs:
    from edgessl.compress import costs, flow
    from edgessl.encoders import run

    if budget.what == "latency":
        steps(f"timing sizes of layers on {budget.target}")
        return latency_table.measure(encoder, budget.target, budget.shape, report=steps)
    if budget.what == "params":
        return costs.parameters(layers, run.compute(encoder)["parameters"])
    tokens = flow.count(encoder.module, layers, run.counted(encoder))
    return costs.flops(layers, tokens, run.compute(encoder)["flops"])


def _most(costs: Costs, layers: Sequence[Layer]) -> float:
    return costs.total([layer.heads for layer in layers], [layer.channels for layer in layers])


def _accuracy(answers: npt.NDArray[np.float32], items: Sequence[tuple[Any, int]]) -> float:
    return float(np.mean(answers.argmax(1) == [label for _, label in items]))


def _search_and_fit(
    encoder: Encoder,
    layers: Sequence[Layer],
    batches: Sequence[Inputs],
    signal: Signal,
    costs: Costs,
    budget: Budget,
    steps: Steps,
) -> tuple[Any, list[tuple[list[int], list[int]]]]:
    """The pruned module, and which (heads, channels) of each layer it has."""
    from edgessl.compress import fisher, obs, rebuild, search
    from edgessl.encoders import structures

    steps("measuring what matters")
    parts = fisher.measure(
        signal.module,
        signal.layers,
        signal.batches,
        signal.direction,
        projections=signal.projections,
        told=lambda done, of: steps.count(done, of, "batches"),
    )
    steps("ranking heads and channels")
    removals = []
    for number, (layer, (attention, feed)) in enumerate(zip(layers, parts, strict=True)):
        steps.count(number, len(layers), "layers")
        removals.append(
            (
                obs.removal(attention, layer.linear(layer.names.out).weight, layer.context),
                obs.removal(feed, layer.linear(layer.names.down).weight, 1),
            )
        )
    chosen = search.allocate(removals, costs, budget.fraction, str(budget))
    kept = [
        (heads.kept(some), channels.kept(more))
        for (heads, channels), some, more in zip(
            removals, chosen.heads, chosen.channels, strict=True
        )
    ]
    steps("fitting what is left")
    module = copy.deepcopy(encoder.module)
    rebuild.rebuild(
        (encoder.module, layers),
        structures.of(replace(encoder, module=module)),
        kept,
        batches,
        told=lambda done, of: steps.count(done, of, "layers"),
    )
    return module, kept

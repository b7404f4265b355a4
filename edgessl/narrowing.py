"""A checkpoint with a narrower stream: chosen and fitted on unlabeled data, and checked."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgessl import checkpoint_session, compression, sizes, unlabeled
from edgessl.compression import Checkpoint, dumped
from edgessl.encoder import Encoder
from edgessl.errors import RecipeError, Unsupported
from edgessl.parity import cosine, rank_correlation
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from edgessl.staging import check_output, staged

if TYPE_CHECKING:
    import torch

    from edgessl.encoders.structures import Layer

_CHOOSING = 16  # batches, from which gradients are taken


@dataclass(frozen=True)
class Narrowed:
    """``kept``: of the ``width_before`` dimensions of the stream. ``dimensions``: of the vector; if
    they are as many as before, a linear layer leads back to the old space, and ``cosine_mean`` and
    ``cosine_p1`` (1st percentile) are to the whole encoder's vectors; else they are None.
    ``rank_correlation``: Spearman's, of all pairwise similarities. All on ``held_out`` items that
    nothing was fitted to. ``own_loader``: transformers cannot build it; edgessl can. ``flops``: of
    one item, at the same shape before and after."""

    path: str
    kept: tuple[int, ...]
    width_before: int
    dimensions: int
    cosine_mean: float | None
    cosine_p1: float | None
    rank_correlation: float
    items: int
    held_out: int
    own_loader: bool
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    flops_before: int
    flops_after: int


def narrow(
    model: str,
    data: Sequence[str],
    output: Path,
    *,
    keep: int,
    samples: int = 2048,
    seed: int = 0,
    column: str | None = None,
    revision: str | None = None,
    report: Steps | None = None,
) -> Narrowed:
    """Write *model* to the directory *output* with *keep* dimensions in its stream.

    Args:
        model: a directory in the Hugging Face or sentence-transformers layout, or a hub id.
        data: files of texts, or images, as docs/embed.md has them; *column* of a table.
        samples: items at most; of them a part is held out to say what was lost.

    Raises:
        RecipeError: too little data, or a width that the encoder cannot have.
        Unsupported: a family whose stream is not known.
        CheckpointError: the checkpoint cannot be read, or what was written says something else.
        OutputError: *output* is there already, or cannot be written.
    """
    from edgessl.encoders import run

    steps = report or Steps(quiet=True)
    check_output(output, overwrite=False)
    steps("reading the checkpoint")
    old = compression.read(model, revision, steps)
    encoder = load_encoder(Recipe(model=model, revision=revision), steps)
    layers = _layers(encoder, old.source, keep)
    fitted, held_out = unlabeled.split(
        unlabeled.items(data, column, encoder, samples), seed, data[0]
    )
    modules = _modules(old)
    small, kept, linear = _fitted(encoder, layers, fitted, keep, modules is not None, steps)
    tensors, config = _parts(old, encoder, small, layers, keep)
    with staged(output, overwrite=False) as stage:
        steps("writing the smaller checkpoint")
        compression.write(stage, old, tensors, config)
        if modules is not None and linear is not None:
            _add_dense(stage, modules, linear)
        steps("comparing vectors")
        again = load_encoder(Recipe(model=str(stage)))
        whole, vectors = (checkpoint_session.embed(some, held_out) for some in (encoder, again))
        expected = checkpoint_session.embed(replace(again, module=small), held_out)
        checkpoint_session.same(vectors, expected)
        near = cosine(vectors, whole) if vectors.shape == whole.shape else None
        more = [] if linear is None else [parameter.detach() for parameter in linear.parameters()]
        facts = Narrowed(
            path=str(output),
            kept=tuple(kept),
            width_before=layers[0].width,
            dimensions=vectors.shape[1],
            cosine_mean=None if near is None else float(near.mean()),
            cosine_p1=None if near is None else float(np.quantile(near, 0.01)),
            rank_correlation=rank_correlation(vectors, whole),
            items=len(fitted),
            held_out=len(held_out),
            own_loader=sizes.ENTRY in config,
            parameters_before=old.parameters,
            parameters_after=compression.count([*tensors.values(), *more]),
            bytes_before=compression.size(old.tensors.values()),
            bytes_after=compression.size([*tensors.values(), *more]),
            flops_before=run.compute(encoder)["flops"],
            flops_after=run.compute(again)["flops"],
        )
        compression.note(stage, old, "width", asdict(replace(facts, path="")))
    return facts


def _layers(encoder: Encoder, source: str, width: int) -> list[Layer]:
    from edgessl.compress import width as narrower
    from edgessl.encoders import structures

    family = encoder.spec.family
    if family not in narrower.FAMILIES:
        able = ", ".join(sorted(narrower.FAMILIES))
        raise Unsupported(f"--width: {source}: {family} is not one of {able}.")
    layers = structures.of(encoder)
    if not 0 < width < layers[0].width:
        raise RecipeError(
            f"--width {width}: this encoder has {layers[0].width}; keep 1 to {layers[0].width - 1}."
        )
    return layers


def _fitted(
    encoder: Encoder,
    layers: Sequence[Layer],
    items: list[Any],
    width: int,
    back: bool,
    steps: Steps,
) -> tuple[Any, list[int], torch.nn.Linear | None]:
    """The narrower module, which dimensions it has, and, if asked for, the way *back* from its
    vector to the old space, which is part of it."""
    import torch

    from edgessl.compress import flow, refit
    from edgessl.compress import width as narrower
    from edgessl.encoders import structures
    from edgessl.encoders.head import Dense, Head
    from edgessl.encoders.shrink import shrink_stream

    prepared = checkpoint_session.prepare(encoder, items)
    batches = flow.batches(encoder.module, layers, prepared)
    steps("choosing dimensions")
    some = [batches[n] for n in np.unique(np.linspace(0, len(batches) - 1, _CHOOSING).astype(int))]
    kept = narrower.choose(
        encoder.module, layers, some, width, told=lambda done, of: steps.count(done, of, "batches")
    )
    steps("fitting what is left")
    module: Any = copy.deepcopy(encoder.module)
    small = structures.of(replace(encoder, module=module))
    shrink_stream(module.backbone, small, kept)
    refit.refit(
        (encoder.module, layers),
        (module, small),
        kept,
        batches,
        told=lambda done, of: steps.count(done, of, "layers"),
    )
    if not back:
        return module, kept, None
    steps("fitting the way back to the old space")
    linear = refit.way_back(encoder.module, module, kept, layers[0].width, batches)
    plan = module.head.plan
    module.head = Head(replace(plan, dense=(Dense(linear, torch.nn.Identity()), *plan.dense)))
    return module, kept, linear


def _parts(
    old: Checkpoint, encoder: Encoder, small: Any, layers: Sequence[Layer], width: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and config of the checkpoint: of the encoder alone, without the heads that its
    pretraining or a pooler had."""
    from edgessl.compress import saved

    backbone: Any = small.backbone
    dtype = next(t.dtype for t in old.tensors.values() if t.is_floating_point())
    for parameter in backbone.parameters():
        parameter.data = parameter.data.to(dtype).float()  # as they will be read again
    tensors = {name: tensor.to(dtype) for name, tensor in saved.named(backbone).items()}
    config = {**old.config, "architectures": [type(backbone).__name__]}
    own = sizes.read(old.config) or sizes.Sizes(
        tuple(tuple(range(layer.heads)) for layer in layers),
        tuple(layer.channels for layer in layers),
    )
    return tensors, _native(config, backbone, layers[0], width) or sizes.put(
        config, backbone.config, replace(own, width=width)
    )


def _native(
    config: dict[str, Any], backbone: Any, layer: Layer, width: int
) -> dict[str, Any] | None:
    """In transformers' own words, where it has them: a head may be of another size than the width
    divided by the number of heads."""
    import torch

    if sizes.ENTRY in config or not hasattr(layer.attention, "head_dim"):
        return None
    named = {**config, "hidden_size": width, "head_dim": layer.head_dim}
    if "pooler_output_size" in config:
        named["pooler_output_size"] = width
    try:
        with torch.device("meta"):
            made = type(backbone)(type(backbone.config).from_dict(named))
    except Exception:  # whatever the library raises: it does not build such a one
        return None
    shapes = [{n: t.shape for n, t in one.state_dict().items()} for one in (made, backbone)]
    return named if shapes[1].items() <= shapes[0].items() else None


def _modules(old: Checkpoint) -> list[dict[str, Any]] | None:
    """Of modules.json, where there is one that pools; there a layer can follow."""
    path = old.directory / "modules.json"
    if not path.is_file():
        return None
    modules: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return modules if any(str(one["type"]).endswith(".Pooling") for one in modules) else None


def _add_dense(stage: Path, modules: list[dict[str, Any]], linear: torch.nn.Linear) -> None:
    """A Dense module of sentence-transformers, right after the pooling."""
    from safetensors.torch import save_file

    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    place = kinds.index("Pooling") + 1
    pooling = stage / modules[place - 1]["path"] / "config.json"
    settings = json.loads(pooling.read_text(encoding="utf-8"))
    settings |= {key: linear.in_features for key in settings if key.endswith("embedding_dimension")}
    pooling.write_text(dumped(settings), encoding="utf-8")

    taken = {module["path"] for module in modules}
    path = next(name for n in range(place, 99) if (name := f"{n}_Dense") not in taken)
    dense = {"path": path, "type": "sentence_transformers.models.Dense"}
    listed = [*modules[:place], dense, *modules[place:]]
    numbered = [{**one, "idx": n, "name": str(n)} for n, one in enumerate(listed)]
    (stage / "modules.json").write_text(dumped(numbered), encoding="utf-8")
    (stage / path).mkdir()
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (stage / path / "config.json").write_text(dumped(config), encoding="utf-8")
    tensors = {f"linear.{name}": value.contiguous() for name, value in linear.state_dict().items()}
    save_file(tensors, stage / path / "model.safetensors", metadata={"format": "pt"})

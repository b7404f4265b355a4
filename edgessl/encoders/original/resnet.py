"""ResNets in torchvision's names -> ``resnet`` of transformers.

Both put a bottleneck's stride into its 3x3 convolution ("v1.5"), so the outputs are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgessl.encoders.original.moves import Draft, Move, carry, dimension
from edgessl.encoders.original.origins import Found
from edgessl.encoders.original.reading import State
from edgessl.encoders.original.timm_model import TimmModel
from edgessl.errors import CheckpointError, Unsupported

_HEADS = (
    r"^(fc|head|heads|classifier|linear|projector|projection_head|projection|predictor|prototypes|"
    r"queue|queue_ptr|mlp|g|\d+)(\d*)(\.|$)"
)
_NORM = ("weight", "bias", "running_mean", "running_var")
_EXPANSION = 4


def convert(path: Path, found: Found, model: TimmModel | None) -> Draft:
    """The encoder without its classifier or projector.

    Raises:
        CheckpointError: tensors are missing, unknown or of wrong shapes.
        Unsupported: a relative of ResNet that transformers has no model for.
    """
    state = dict(found.state)
    _require_plain(path, state)
    depths = [_depth(path, state, stage) for stage in range(1, 5)]
    bottleneck = "layer1.0.conv3.weight" in state
    last = "conv3" if bottleneck else "conv2"
    widths = [dimension(path, state, f"layer{n}.0.{last}.weight", 4)[0] for n in range(1, 5)]
    stem, channels = dimension(path, state, "conv1.weight", 4)[:2]
    moves = list(_moves(channels, stem, widths, depths, bottleneck))
    # Files from before torch 0.4.1 lack these counters; nothing reads them at inference.
    for move in moves:
        if move.source.endswith("num_batches_tracked"):
            state.setdefault(move.source, torch.zeros((), dtype=torch.int64))
    config: dict[str, Any] = {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": channels,
        "embedding_size": stem,
        "hidden_sizes": widths,
        "depths": depths,
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    assumptions = []
    if model is None:
        where = "stride in the 3x3 convolutions, " if bottleneck else ""
        assumptions = [
            f"ResNet as in torchvision ({where}plain max-pooling): the file does not say"
        ]
    return Draft(
        config=config,
        tensors=carry(path, state, moves, _HEADS),
        image_size=(224, 224) if model is None else model.image_size,
        assumptions=assumptions,
    )


def _require_plain(path: Path, state: State) -> None:
    def shape(name: str) -> tuple[int, ...]:
        return tuple(state[name].shape) if name in state else ()

    middle, expand = shape("layer1.0.conv2.weight"), shape("layer1.0.conv3.weight")
    bottleneck = len(middle) == len(expand) == 4
    why = None
    if shape("conv1.weight")[2:] != (7, 7):
        why = "its first layer is not one 7x7 convolution (ResNet-C/D/T, or made for tiny images)"
    elif "bn1.running_mean" not in state and "bn1.weight" in state:
        why = "it has no batch normalisation statistics (GroupNorm, or an incomplete file)"
    elif "layer1.0.se.fc1.weight" in state or "layer1.0.se.conv.weight" in state:
        why = "it has squeeze-and-excitation"
    elif bottleneck and middle[0] != middle[1]:
        why = "its 3x3 convolutions are grouped (ResNeXt)"
    elif bottleneck and expand[0] != _EXPANSION * middle[0]:
        why = "its bottlenecks are wide (Wide ResNet)"
    if why:
        raise Unsupported(f"{path}: {why}; the ResNet of transformers cannot hold it.")


def _depth(path: Path, state: State, stage: int) -> int:
    pattern = re.compile(rf"^layer{stage}\.(\d+)\.")
    numbers = {int(match[1]) for name in state if (match := pattern.match(name))}
    if not numbers:
        raise CheckpointError(f"{path} lacks layer{stage}: a ResNet has four.")
    return max(numbers) + 1


def _moves(
    channels: int, stem: int, widths: list[int], depths: list[int], bottleneck: bool
) -> Iterator[Move]:
    yield from _pair("conv1", "bn1", "embedder.embedder", (stem, channels, 7, 7))
    before = stem
    for stage, (width, depth) in enumerate(zip(widths, depths)):
        for number in range(depth):
            old = f"layer{stage + 1}.{number}"
            new = f"encoder.stages.{stage}.layers.{number}"
            if number == 0 and (before != width or stage > 0):
                shape = (width, before, 1, 1)
                yield from _pair(
                    f"{old}.downsample.0", f"{old}.downsample.1", f"{new}.shortcut", shape
                )
            inner = width // _EXPANSION
            shapes = (
                ((inner, before, 1, 1), (inner, inner, 3, 3), (width, inner, 1, 1))
                if bottleneck
                else ((width, before, 3, 3), (width, width, 3, 3))
            )
            for index, shape in enumerate(shapes):
                part = index + 1
                yield from _pair(
                    f"{old}.conv{part}", f"{old}.bn{part}", f"{new}.layer.{index}", shape
                )
            before = width


def _pair(conv: str, norm: str, target: str, shape: tuple[int, ...]) -> Iterator[Move]:
    yield Move(f"{conv}.weight", (f"{target}.convolution.weight",), shape)
    for name in _NORM:
        yield Move(f"{norm}.{name}", (f"{target}.normalization.{name}",), shape[:1])
    counter = "num_batches_tracked"
    yield Move(f"{norm}.{counter}", (f"{target}.normalization.{counter}",), ())

"""Run an ``Encoder`` in torch, fp32, on the CPU: the reference of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgessl.backend import Arrays
from edgessl.encoder import Encoder
from edgessl.parity import cosine


def forward(encoder: Encoder, inputs: Arrays) -> Arrays:
    """numpy in, numpy out; names and dtypes as in ``encoder.spec``."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        outputs = encoder.module(**tensors)
    names = [spec.name for spec in encoder.spec.outputs]
    return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}


def merged(encoder: Encoder, batches: Sequence[tuple[Arrays, Arrays]]) -> dict[str, Any] | None:
    """What merging tokens does to *encoder*: ``tokens`` before and after each layer, and
    ``cosine_mean`` and ``cosine_min`` to the vectors without it; None where it merges none.

    Args:
        batches: (inputs, outputs of *encoder*).
    """
    merging = getattr(encoder.module, "merging", None)
    if merging is None:
        return None
    with merging.off():
        found = np.concatenate(
            [
                cosine(outputs[name], forward(encoder, inputs)[name])
                for inputs, outputs in batches
                for name in outputs
            ]
        )
    return {
        "tokens": merging.tokens,
        "cosine_mean": float(found.mean()),
        "cosine_min": float(found.min()),
    }


def compute(encoder: Encoder) -> dict[str, Any]:
    """Parameters, and floating-point operations (2 a multiply-add) of one item.

    A text is counted at 128 tokens and a recording at one second, or at the encoder's longest
    input if that is less.
    """
    tensors = counted(encoder)
    # Not in inference mode: the counter's module hooks look for gradients and find views of none.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.module(**tensors)
    return {
        "parameters": sum(p.numel() for p in encoder.module.parameters()),
        "flops": counter.get_total_flops(),
        "at": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }


def counted(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Inputs of the shape that ``compute`` counts."""
    shapes = encoder.spec.shapes(lambda axis: axis.counted)
    return {
        spec.name: torch.ones(list(shapes[spec.name]), dtype=getattr(torch, spec.dtype))
        for spec in encoder.spec.inputs
    }

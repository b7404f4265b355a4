"""Fewer dimensions of the stream that runs through all layers: which stay, and everything that has
them cut alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgessl.compress import flow
from edgessl.compress.fisher import Part
from edgessl.compress.obs import removal
from edgessl.encoders.structures import Layer

# Whose stream is as wide in all layers, and is read and written by nothing but linear layers,
# normalisations and tables.
FAMILIES = frozenset(
    "bert roberta xlm-roberta camembert distilbert mpnet electra nomic_bert eurobert vit_mae vit "
    "deit dinov2 dinov2_with_registers dinov3_vit ijepa vit_msn beit".split()
)


def choose(
    module: torch.nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[flow.Inputs],
    width: int,
    *,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[int]:
    """The *width* dimensions from which least squares restores the others best, each error weighed
    by how much the encoder's output feels it: Optimal Brain Surgeon on the stream itself.

    Args:
        module: whose first output is the vector; gradients of it are taken.
        told: is called with the batches that are done, and all.
    """
    size = layers[0].width
    points = len(layers) + 1  # before each layer, and after the last
    grams = torch.zeros(points, size + 1, size + 1, dtype=torch.float64)  # of (x, 1)
    metrics = torch.zeros(points, size, size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for done, inputs in enumerate(batches):
        told(done, len(batches))
        states: list[torch.Tensor] = []
        handles = _listen(layers, states)
        try:
            output = module(**inputs)[0]
        finally:
            for handle in handles:
                handle.remove()
        direction = torch.randn(output.shape, generator=generator)
        gradients = torch.autograd.grad(output, states, direction)
        for gram, metric, state, gradient in zip(grams, metrics, states, gradients, strict=True):
            rows, felt = state.detach().flatten(0, -2), gradient.flatten(0, -2)
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            gram += (rows.T @ rows).double()
            metric += (felt.T @ felt).double()
    means = grams[:, :size, size]
    spread = grams[:, :size, :size] - torch.einsum("pi,pj->pij", means, means) / grams[:1, -1:, -1:]
    everywhere = Part(_even(spread), _even(metrics))
    return removal(everywhere, torch.eye(size), 1).kept(width)


def _even(squares: torch.Tensor) -> torch.Tensor:
    """Their sum, each at the same scale."""
    scale = squares.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    return (squares / scale[:, None, None]).sum(0)


def _listen(layers: Sequence[Layer], states: list[torch.Tensor]) -> list[Any]:
    def before(_: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        hidden, rest, named = flow.split(args, kwargs)
        if not states:  # gradients begin here
            hidden = hidden.detach().requires_grad_()
        states.append(hidden)
        return (hidden, *rest), named

    def after(_: torch.nn.Module, args: Any, made: Any) -> None:
        states.append(made[0] if isinstance(made, tuple) else made)

    handles: list[Any] = [
        layer.module.register_forward_pre_hook(before, with_kwargs=True) for layer in layers
    ]
    return [*handles, layers[-1].module.register_forward_hook(after)]

"""How much what an encoder puts out changes when the output of a part of a layer does.

At the unpruned encoder any distance to itself has a gradient of zero, so its curvature is taken:
the Gauss-Newton matrix J^T H J of the output's Jacobian J, estimated by random directions u
(Hutchinson, 1990): where E[u u^T] = H, E[(J^T u)(J^T u)^T] = J^T H J. H is I for vectors; other
losses bring directions of their own (``edgessl.compress.signals``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgessl.compress import flow
from edgessl.encoders.structures import Layer

# (output, the inputs that brought it, a source of randomness) -> as the output
Direction = Callable[[torch.Tensor, flow.Inputs, torch.Generator], torch.Tensor]


@dataclass
class Part:
    """Of an attention's output projection, or a feed-forward part's, over all tokens.

    ``gram``: X^T X of what it is given, ``(in, in)`` float64. ``metric``: mean J^T H J of the
    module's output by what it makes, ``(out, out)`` float64. So a change of its weight by D
    ``(in, out)`` costs about tr(metric D^T gram D), summed over the tokens.
    """

    gram: torch.Tensor
    metric: torch.Tensor


def normal(output: torch.Tensor, inputs: flow.Inputs, generator: torch.Generator) -> torch.Tensor:
    """u ~ N(0, I): every number of the output counts alike, as in a squared error."""
    return torch.randn(output.shape, generator=generator)


def measure(
    module: torch.nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[flow.Inputs],
    direction: Direction = normal,
    *,
    projections: int = 2,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[Part, Part]]:
    """(attention, feed-forward) of each layer.

    Args:
        direction: u, for the first output of *module*.
        projections: of each item. Items are independent, so a few are enough.
        told: is called with the batches that are done, and all.
    """
    linears = [
        layer.linear(name) for layer in layers for name in (layer.names.out, layer.names.down)
    ]
    parts = [_empty(linear) for linear in linears]
    generator = torch.Generator().manual_seed(seed)
    start = layers[0].module.register_forward_pre_hook(_leaf, with_kwargs=True)
    tokens = 0
    try:
        with flow.tapped(linears) as taps:
            for done, inputs in enumerate(batches):
                told(done, len(batches))
                output = module(**inputs)[0]
                for part, tap in zip(parts, taps, strict=True):
                    given, _ = tap.rows()
                    part.gram += _square(given.detach())
                tokens += len(given)
                for left in reversed(range(projections)):
                    gradients = torch.autograd.grad(
                        output,
                        [tap.made for tap in taps],
                        direction(output.detach(), inputs, generator),
                        retain_graph=left > 0,
                    )
                    for part, gradient in zip(parts, gradients, strict=True):
                        part.metric += _square(gradient.flatten(0, -2)) / projections
    finally:
        start.remove()
    for part in parts:
        part.metric /= tokens
    return list(zip(parts[::2], parts[1::2], strict=True))


def _empty(linear: torch.nn.Linear) -> Part:
    sizes = (linear.in_features, linear.out_features)
    gram, metric = (torch.zeros(size, size, dtype=torch.float64) for size in sizes)
    return Part(gram, metric)


def _square(rows: torch.Tensor) -> torch.Tensor:
    return (rows.T @ rows).double()


def _leaf(_: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Gradients begin at the first layer."""
    hidden, rest, named = flow.split(args, kwargs)
    return (hidden.detach().requires_grad_(), *rest), named

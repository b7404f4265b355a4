"""Least squares: what is left of a pruned layer is fitted to what the whole encoder computes.

Layer after layer, on the inputs that the pruned encoder really has there: each output projection
also makes up for what the layers before it have lost. In the manner of Kwon et al. (NeurIPS 2022)
and of the reconstruction of He et al. (ICCV 2017), with full matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from edgessl.compress import flow
from edgessl.encoders.shrink import shrink
from edgessl.encoders.structures import Layer

_DAMPING = 1e-3  # of the mean of the diagonal: how far the weights may go from where they are
_NOTHING = 1e-6


class Fit:
    """Ridge regression of a linear layer towards the weights that it has, in one pass."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        self._linear = linear
        size = linear.in_features + (linear.bias is not None)
        self._gram = torch.zeros(size, size, dtype=torch.float64)
        self._cross = torch.zeros(size, linear.out_features, dtype=torch.float64)

    def add(self, given: torch.Tensor, missing: torch.Tensor) -> None:
        """*missing*: what its output for *given* should be, less what it is; rows of both."""
        if self._linear.bias is not None:
            given = torch.cat([given, given.new_ones(len(given), 1)], 1)
        self._gram += (given.T @ given).double()
        self._cross += (given.T @ missing).double()

    def solve(self) -> None:
        """Move the layer's weights."""
        size = self._linear.in_features
        ridge = torch.zeros(len(self._gram), dtype=torch.float64)
        ridge[:size] = (_DAMPING * self._gram.diagonal()[:size].mean()).clamp(min=1e-12)
        moved = torch.linalg.solve(self._gram + ridge.diag(), self._cross).float()
        self._linear.weight.data += moved[:size].T
        if self._linear.bias is not None:
            self._linear.bias.data += moved[size]


@torch.no_grad()
def rebuild(
    whole: tuple[torch.nn.Module, Sequence[Layer]],
    small: Sequence[Layer],
    kept: Sequence[tuple[Sequence[int], Sequence[int]]],
    batches: Sequence[flow.Inputs],
    *,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Shrink *small*, the layers of a copy of *whole*, and fit what is left.

    Args:
        whole: the encoder's module, and its layers.
        kept: (heads, channels) of each layer.
        told: is called with the layers that are done, and all.
    """
    module, layers = whole
    hidden, called = zip(*(flow.calls(module, layers, inputs) for inputs in batches), strict=True)
    theirs, ours = list(hidden), list(hidden)
    for number, (big, little) in enumerate(zip(layers, small, strict=True)):
        told(number, len(layers))
        ways = [calls[number] for calls in called]
        rows = shrink(little, *kept[number])
        names = big.names
        for some in ((names.query, names.key, names.value), (names.out,), names.up, (names.down,)):
            _fit(big, little, some, rows, ways, theirs, ours)
        theirs = [way(big.module, states) for way, states in zip(ways, theirs, strict=True)]
        ours = [way(little.module, states) for way, states in zip(ways, ours, strict=True)]
    told(len(layers), len(layers))


def _fit(
    big: Layer,
    little: Layer,
    names: Sequence[str],
    rows: Mapping[str, torch.Tensor],
    ways: Sequence[flow.Call],
    theirs: Sequence[torch.Tensor],
    ours: Sequence[torch.Tensor],
) -> None:
    """Fit the linear layers *names* of *little*; the arguments are those of ``missing``."""
    fits = [Fit(little.linear(name)) for name in names]
    for found in missing(big, little, names, rows, ways, theirs, ours):
        for fit, (given, lost) in zip(fits, found, strict=True):
            fit.add(given, lost)
    for fit in fits:
        fit.solve()


def missing(
    big: Layer,
    little: Layer,
    names: Sequence[str],
    rows: Mapping[str, torch.Tensor],
    ways: Sequence[flow.Call],
    theirs: Sequence[torch.Tensor],
    ours: Sequence[torch.Tensor],
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """What the linear layers *names* of *little* are given, and what their outputs lack: a pair
    ``(tokens, in)``, ``(tokens, out)`` for each, batch after batch. What reads the stream should
    make the same numbers as in the whole encoder; what writes to it, what makes the stream the same.

    Args:
        rows: of the readers' outputs, those that are kept.
        ways: how the layer is called.
        theirs, ours: the hidden states that it is given, in the whole encoder and in the small one.
    """
    with (
        flow.tapped([big.linear(name) for name in (*names, *_feed(big))]) as whole,
        flow.tapped([little.linear(name) for name in (*names, *_feed(little))]) as small,
    ):
        for way, before, states in zip(ways, theirs, ours, strict=True):
            made, mine = way(big.module, before), way(little.module, states)
            found = []
            for name, right, tap in zip(names, whole, small, strict=False):
                wanted = right.made
                if name == big.names.out:
                    wanted = wanted + _over(before - states, big.scales()[0])
                elif name == big.names.down:
                    lost = _residual(big, whole, made) - _residual(little, small, mine)
                    wanted = wanted + _over(lost, big.scales()[1])
                elif name in rows:
                    wanted = wanted[..., rows[name]]
                found.append((tap.given.flatten(0, -2), (wanted - tap.made).flatten(0, -2)))
            yield found


def _feed(layer: Layer) -> tuple[str, str]:
    return layer.names.up[0], layer.names.down


def _residual(layer: Layer, taps: Sequence[flow.Tap], made: torch.Tensor) -> torch.Tensor:
    """What the feed-forward part's output is added to. *taps*: the last two are ``_feed``'s."""
    up, down = taps[-2:]
    return up.given if layer.names.post_norm else made - layer.scales()[1] * down.made


def _over(states: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """What a layer scale makes of it has to be *states*; a scale of nothing can make up for none."""
    return torch.where(scale.abs() > _NOTHING, states / scale, 0.0)

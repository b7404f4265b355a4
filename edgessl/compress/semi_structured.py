"""2:4 sparsity: of every 4 weights in a row, along a linear layer's inputs, 2 are kept.

What the sparse tensor cores of NVIDIA's Ampere and later multiply at twice the rate (Mishra et al.,
"Accelerating sparse deep neural networks", 2021). No training: Frantar & Alistarh, "SparseGPT:
massive language models can be accurately pruned in one-shot", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgessl.compress import flow, rebuild
from edgessl.encoders.structures import Layer
from edgessl.two_four import GROUP, KEPT

Floats = npt.NDArray[Any]

_DAMPING = 0.01  # of the mean of the diagonal, as in the paper
_BLOCK = 64  # inputs whose errors reach those behind them together: faster, the same result


def linears(layer: Layer) -> list[list[str]]:
    """The linear layers of *layer* by their names, those that are given the same together, in the
    order in which they run."""
    names = layer.names
    return [[names.query, names.key, names.value], [names.out], [*names.up], [names.down]]


def fits(linear: torch.nn.Linear) -> bool:
    """Whether its inputs are whole groups."""
    return linear.in_features % GROUP == 0


def largest(scores: Floats) -> npt.NDArray[np.bool_]:
    """True for the 2 largest of each 4 *scores* ``(inputs, outputs)``."""
    groups = scores.reshape(-1, GROUP, scores.shape[1])
    places = np.argsort(-groups, axis=1, kind="stable")[:, :KEPT]
    kept = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(kept, places, True, axis=1)
    return kept.reshape(scores.shape)


def by_magnitude(weights: Floats) -> Floats:
    """*weights* ``(inputs, outputs)`` with the 2 smallest of each 4 set to 0."""
    return np.where(largest(np.abs(weights)), weights, np.float32(0))


def by_error(
    weights: Floats, gram: npt.NDArray[np.float64], missing: npt.NDArray[np.float64] | None = None
) -> Floats:
    """SparseGPT: those weights go that cost the output least, and those of the inputs behind them
    make up for it.

    Args:
        weights: ``(inputs, outputs)`` float32. Rows behind the last whole group are no part of the
            pattern: a bias, whose input is 1.
        gram: ``(inputs, inputs)``, the sum of x x^T over the layer's inputs x.
        missing: ``(inputs, outputs)``, the sum of x m^T, where m is what the outputs should have
            more; None: nothing.

    Returns:
        float32, of the shape of *weights*.
    """
    inverse = np.linalg.inv(_hessian(gram))
    upper = np.linalg.cholesky(inverse).T  # row j: of the inverse once all before j is settled
    left = weights.astype(np.float64)
    if missing is not None:
        left += inverse @ missing  # the dense optimum; from here on the error is that to it
    inputs = len(left) // GROUP * GROUP
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.zeros_like(left[start:end])
        for row in range(start, end):
            if row % GROUP == 0:
                group = slice(row, row + GROUP)
                kept = largest(np.abs(left[group]) / np.diag(upper)[group, None])
            lost = np.where(kept[row % GROUP], 0, left[row])
            errors[row - start] = lost / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
            left[row] -= lost
        left[end:] -= upper[start:end, end:].T @ errors
    return left.astype(np.float32)


def refit(
    weights: Floats, sparse: Floats, gram: npt.NDArray[np.float64], missing: npt.NDArray[np.float64]
) -> Floats:
    """The best that can be done with what is not 0 in *sparse*: least squares, each output alone.
    The arguments are those of ``by_error``, and what it has returned."""
    hessian = _hessian(gram)
    wanted = hessian @ weights + missing
    best = np.zeros_like(sparse)
    for output, column in enumerate(sparse.T):
        (some,) = np.nonzero(column)
        best[some, output] = np.linalg.solve(hessian[np.ix_(some, some)], wanted[some, output])
    return best


def _hessian(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """*gram*, damped where its rows are part of the pattern."""
    inputs = len(gram) // GROUP * GROUP
    ridge = np.zeros(len(gram))
    ridge[:inputs] = _DAMPING * max(float(np.diag(gram)[:inputs].mean()), 1e-12)
    damped: npt.NDArray[np.float64] = gram + np.diag(ridge)
    return damped


@torch.no_grad()
def magnitude(layers: Sequence[Layer]) -> None:
    """Make the linear layers of *layers* sparse, in place, without data."""
    for layer in layers:
        for linear in (layer.linear(name) for names in linears(layer) for name in names):
            if fits(linear):
                _put(linear, by_magnitude(linear.weight.T.numpy()))


@torch.no_grad()
def sparsegpt(
    whole: tuple[torch.nn.Module, Sequence[Layer]],
    small: Sequence[Layer],
    batches: Sequence[flow.Inputs],
    *,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make the linear layers of *small* sparse, the layers of a copy of *whole*: one after the
    other, each on what it is given once those before it are sparse, and towards what the dense
    encoder has there, so that it also makes up for what those have lost.

    Args:
        whole: the dense encoder's module, and its layers.
        told: is called with the layers that are done, and all.
    """
    hidden, called = zip(*(flow.calls(*whole, inputs) for inputs in batches), strict=True)
    theirs, ours = list(hidden), list(hidden)
    for number, (big, little) in enumerate(zip(whole[1], small, strict=True)):
        told(number, len(small))
        ways = [calls[number] for calls in called]
        for names in linears(little):
            if fits(little.linear(names[0])):
                _settle(big, little, names, ways, theirs, ours)
        theirs = [way(big.module, states) for way, states in zip(ways, theirs, strict=True)]
        ours = [way(little.module, states) for way, states in zip(ways, ours, strict=True)]
    told(len(small), len(small))


def _settle(
    big: Layer,
    little: Layer,
    names: Sequence[str],
    ways: Sequence[flow.Call],
    theirs: Sequence[torch.Tensor],
    ours: Sequence[torch.Tensor],
) -> None:
    """Make the linear layers *names* of *little* sparse, which are given the same."""
    own = [little.linear(name) for name in names]
    size = own[0].in_features + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    totals = [torch.zeros(size, linear.out_features, dtype=torch.float64) for linear in own]
    for found in rebuild.missing(big, little, names, {}, ways, theirs, ours):
        given = found[0][0]
        given = torch.cat([given, given.new_ones(len(given), 1)], 1)
        gram += (given.T @ given).double()
        for total, (_, lost) in zip(totals, found, strict=True):
            total += (given.T @ lost).double()
    for linear, total in zip(own, totals, strict=True):
        if linear.bias is None:
            weights, sums, total = linear.weight.T, gram[:-1, :-1], total[:-1]
        else:
            weights, sums = torch.cat([linear.weight.T, linear.bias[None]]), gram
        settled = by_error(weights.numpy(), sums.numpy(), total.numpy())
        settled = refit(weights.numpy(), settled, sums.numpy(), total.numpy())
        _put(linear, settled[: linear.in_features])
        if linear.bias is not None:
            linear.bias.copy_(torch.from_numpy(settled[-1]))


def _put(linear: torch.nn.Linear, weights: Floats) -> None:
    linear.weight.copy_(torch.from_numpy(weights).T)

"""Least squares for an encoder with fewer dimensions: to what the whole one has in those that stay.

Part after part, on what the narrower encoder really has there: normalisations see another mean and
variance now, so their weights and biases are fitted dimension by dimension; the linear layers that
read the stream are fitted to the whole encoder's queries, keys, values and channels, those that
write to it so that the sum is the whole encoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgessl.compress import flow
from edgessl.compress.rebuild import Fit
from edgessl.encoders.structures import Layer
from edgessl.errors import Unsupported

_NOTHING = 1e-6
_TIMES = 64  # a vector counts as so many tokens

Encoder = tuple[torch.nn.Module, Sequence[Layer]]  # the encoder's module, and its layers


@torch.no_grad()
def refit(
    whole: Encoder,
    small: Encoder,
    kept: Sequence[int],
    batches: Sequence[flow.Inputs],
    *,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fit *small*, in place: a copy of *whole* that has been cut to the dimensions *kept*.

    Args:
        told: is called with the layers that are done, and all.

    Raises:
        Unsupported: a layer that does not normalise twice.
    """
    index = torch.as_tensor(list(kept))
    _outer(whole, small, index, batches)
    entered = [flow.calls(*whole, inputs) for inputs in batches]
    theirs, called = [hidden for hidden, _ in entered], [ways for _, ways in entered]
    ours = [flow.calls(*small, inputs)[0] for inputs in batches]
    for number, (big, little) in enumerate(zip(whole[1], small[1], strict=True)):
        told(number, len(whole[1]))
        pair = _Pair(big, little, index, [ways[number] for ways in called], theirs, ours)
        first, second = pair.norms()
        names = little.names
        scales = little.scales()
        if not names.post_norm:
            pair.norm(*first)
        pair.readers(names.query, names.key, names.value)
        pair.writer(names.out, first if names.post_norm else second, scales[0])
        pair.norm(*(first if names.post_norm else second))
        pair.readers(*names.up)
        pair.writer(names.down, second if names.post_norm else None, scales[1])
        if names.post_norm:
            pair.norm(*second)
        moved = [(made, mine) for _, _, made, mine in pair.run([], [])]
        theirs, ours = [made for made, _ in moved], [mine for _, mine in moved]
    _outer(whole, small, index, batches)
    told(len(whole[1]), len(whole[1]))


@dataclass
class _Pair:
    """A layer of the whole encoder and of the narrower one, and what both are given."""

    big: Layer
    little: Layer
    index: torch.Tensor
    ways: Sequence[flow.Call]
    theirs: Sequence[torch.Tensor]
    ours: Sequence[torch.Tensor]

    def run(
        self, big: Sequence[torch.nn.Module], little: Sequence[torch.nn.Module]
    ) -> Iterator[tuple[list[flow.Tap], list[flow.Tap], torch.Tensor, torch.Tensor]]:
        """Taps on parts of each, and what each makes."""
        with flow.tapped(big) as theirs, flow.tapped(little) as ours:
            for way, their, our in zip(self.ways, self.theirs, self.ours, strict=True):
                yield theirs, ours, way(self.big.module, their), way(self.little.module, our)

    def norms(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        width = self.little.width
        size = self.big.width
        big, little = norms(self.big.module, size), norms(self.little.module, width)
        if len(big) != 2:
            raise Unsupported(f"width: a layer normalises {len(big)} times, not twice.")
        return list(zip(big, little, strict=True))

    def norm(self, big: torch.nn.Module, little: torch.nn.Module) -> None:
        fit = _Affine(little)
        for (their,), (our,), _, _ in self.run([big], [little]):
            fit.add(our.rows()[1], their.rows()[1][:, self.index])
        fit.solve()

    def readers(self, *names: str) -> None:
        fits = [Fit(self.little.linear(name)) for name in names]
        parts = [[layer.linear(name) for name in names] for layer in (self.big, self.little)]
        for theirs, ours, _, _ in self.run(*parts):
            for fit, their, our in zip(fits, theirs, ours, strict=True):
                given, made = our.rows()
                fit.add(given, their.rows()[1] - made)
        for fit in fits:
            fit.solve()

    def writer(
        self,
        name: str,
        norm: tuple[torch.nn.Module, torch.nn.Module] | None,
        scale: torch.Tensor,
    ) -> None:
        """*norm*: what is given the sum of the stream and what is written; None: the layer makes
        it."""
        linear = self.little.linear(name)
        fit = Fit(linear)
        big, little = ([norm[0]], [norm[1]]) if norm else ([], [])
        for theirs, (mine, *ours), made, own in self.run(big, [linear, *little]):
            wanted, found = (theirs[0].given, ours[0].given) if norm else (made, own)
            missing = wanted[..., self.index] - found
            missing = torch.where(scale.abs() > _NOTHING, missing / scale, 0.0)
            fit.add(mine.rows()[0], missing.flatten(0, -2))
        fit.solve()


def _outer(
    whole: Encoder, small: Encoder, index: torch.Tensor, batches: Sequence[flow.Inputs]
) -> None:
    """Fit the normalisations before the first layer, and after the last."""
    sizes = [layers[0].width for _, layers in (whole, small)]
    big, little = (
        [
            part
            for part in norms(module, size)
            if not any(part in set(layer.module.modules()) for layer in layers)
        ]
        for (module, layers), size in zip((whole, small), sizes, strict=True)
    )
    fits = [_Affine(norm) for norm in little]
    with flow.tapped(big) as theirs, flow.tapped(little) as ours:
        for inputs in batches:
            whole[0](**inputs)
            small[0](**inputs)
            for fit, their, our in zip(fits, theirs, ours, strict=True):
                if their.made.numel():  # a pooler's may never be called
                    fit.add(our.rows()[1], their.rows()[1][:, index])
    for fit in fits:
        fit.solve()


@torch.no_grad()
def way_back(
    whole: Any, small: Any, kept: Sequence[int], size: int, batches: Sequence[flow.Inputs]
) -> torch.nn.Linear:
    """From the pooled vectors of *small* to those of *whole*, by least squares.

    Fitted to tokens, too: there are many more of them, and what leads from one space to the other
    is the same for them, by most poolings.

    Args:
        whole, small: encoders' modules, which end in a ``head``.
        size: of the old space.
    """
    heads = (whole.head, small.head)
    linear = torch.nn.Linear(len(kept), size)
    linear.bias.zero_()
    linear.weight.zero_()
    linear.weight[torch.as_tensor(list(kept)), torch.arange(len(kept))] = 1.0
    fit = Fit(linear)
    parts = [part for head in heads for part in (head, head.dense)]
    with flow.tapped(parts) as (their, their_vector, our, our_vector):
        for inputs in batches:
            whole(**inputs)
            small(**inputs)
            for wanted, given, times in (
                (their.given.flatten(0, -2), our.given.flatten(0, -2), 1),
                (their_vector.given, our_vector.given, _TIMES),
            ):
                given = given.repeat(times, 1)
                fit.add(given, wanted.repeat(times, 1) - linear(given))
    fit.solve()
    return linear


def norms(module: torch.nn.Module, width: int) -> list[torch.nn.Module]:
    """Normalisations over the stream, in their order."""
    return [
        part
        for part in module.modules()
        if "norm" in type(part).__name__.lower()
        and isinstance(weight := getattr(part, "weight", None), torch.nn.Parameter)
        and weight.shape == (width,)
    ]


class _Affine:
    """Least squares for the weight and bias of a normalisation, in one pass."""

    def __init__(self, norm: torch.nn.Module) -> None:
        self._norm = norm
        self._bias: torch.nn.Parameter | None = getattr(norm, "bias", None)
        self._sums: torch.Tensor | None = None

    def add(self, made: torch.Tensor, wanted: torch.Tensor) -> None:
        made, wanted = made.double(), wanted.double()
        ones = torch.ones_like(made)
        sums = torch.stack([ones, made, wanted, made * made, made * wanted]).sum(1)
        self._sums = sums if self._sums is None else self._sums + sums

    def solve(self) -> None:
        if self._sums is None:
            return
        count, made, wanted, square, cross = self._sums
        if self._bias is None:
            made, wanted = torch.zeros_like(made), torch.zeros_like(wanted)
        spread = square - made * made / count
        slope = (cross - made * wanted / count) / spread
        slope = torch.where(spread > _NOTHING * square, slope, 1.0)  # a dimension that is constant
        shift = (wanted - slope * made) / count
        self._norm.weight.data *= slope.float()  # type: ignore[operator]
        if self._bias is not None:
            self._bias.data = (self._bias.data * slope + shift).float()

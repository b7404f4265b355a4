"""Inputs for an encoder in torch, and what flows through its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from edgessl.backend import Arrays
from edgessl.encoders.structures import Layer

Inputs = dict[str, torch.Tensor]
MOST = 65_536  # tokens: the hidden states of so many are held in memory
_BATCH = 4096  # tokens, about


def batches(
    module: torch.nn.Module, layers: Sequence[Layer], prepared: Sequence[Arrays]
) -> list[Inputs]:
    """Items of one shape together, so that there is no padding in them; as many of the first ones
    as have ``MOST`` tokens.

    Args:
        prepared: the encoder's inputs of single items.
    """
    alike: dict[tuple[tuple[int, ...], ...], list[Arrays]] = {}
    tokens: dict[tuple[tuple[int, ...], ...], int] = {}
    total = 0
    for item in prepared:
        shapes = tuple(array.shape for array in item.values())
        if shapes not in tokens:
            tokens[shapes] = count(module, layers, _joined([item]))
        if total and total + tokens[shapes] > MOST:
            break
        total += tokens[shapes]
        alike.setdefault(shapes, []).append(item)
    found = []
    for shapes, items in sorted(alike.items()):
        size = max(1, _BATCH // tokens[shapes])
        found += [_joined(items[start : start + size]) for start in range(0, len(items), size)]
    return found


def _joined(items: Sequence[Arrays]) -> Inputs:
    return {name: torch.cat([torch.from_numpy(item[name]) for item in items]) for name in items[0]}


@torch.no_grad()
def count(module: torch.nn.Module, layers: Sequence[Layer], inputs: Inputs) -> int:
    """Tokens of an item of *inputs*, special ones included."""
    return calls(module, layers, inputs)[0].shape[1]


@dataclass
class Tap:
    """What went into a linear layer, and what came out, when it was last called."""

    given: torch.Tensor
    made: torch.Tensor

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A row a token."""
        return self.given.flatten(0, -2), self.made.flatten(0, -2)


@contextmanager
def tapped(linears: Sequence[torch.nn.Module]) -> Iterator[list[Tap]]:
    """Listen to *linears*; the taps have what the last forward brought."""
    taps = [Tap(torch.empty(0), torch.empty(0)) for _ in linears]

    def listen(tap: Tap) -> Any:
        def hook(_: torch.nn.Module, given: Any, made: torch.Tensor) -> None:
            tap.given, tap.made = given[0], made

        return hook

    handles = [
        linear.register_forward_hook(listen(tap)) for linear, tap in zip(linears, taps, strict=True)
    ]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Call:
    """The arguments of a transformer layer, but for the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, layer: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """``(items, tokens, dim)`` -> the same."""
        found = layer(hidden, *self.args, **self.kwargs)
        made: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return made


def calls(
    module: torch.nn.Module, layers: Sequence[Layer], inputs: Inputs
) -> tuple[torch.Tensor, list[Call]]:
    """The hidden states that the first layer is given for *inputs*, and how each layer is called."""
    first: list[torch.Tensor] = []
    found: list[Call] = []

    def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, rest, named = split(args, kwargs)
        first.append(hidden)
        found.append(Call(rest, named))

    handles = [layer.module.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return first[0], found


def split(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]:
    """The hidden states among a layer's arguments, and the others."""
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest

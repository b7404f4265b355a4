"""Tensors from one name to another: all of them, each once, of the right shape."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgessl.encoders.original.reading import State
from edgessl.encoders.weights import some
from edgessl.errors import CheckpointError


@dataclass(frozen=True)
class Move:
    """``source`` of ``shape`` becomes ``targets``: several share it evenly along the first axis."""

    source: str
    targets: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Draft:
    """A converted encoder: config.json, tensors under the names that transformers saves.

    ``image_size``: height and width in pixels that the positions are made for.
    """

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    image_size: tuple[int, int]
    assumptions: list[str] = field(default_factory=list)


def carry(
    path: Path, state: State, moves: Iterable[Move], droppable: str
) -> dict[str, torch.Tensor]:
    """Carry out *moves*. *droppable*: regular expression; names that may be left behind.

    Raises:
        CheckpointError: names that are missing, of another shape, or that no move takes.
    """
    moves = list(moves)
    taken = {move.source for move in moves}
    if missing := [move.source for move in moves if move.source not in state]:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the encoder's {len(moves)} tensors: {some(missing)}. "
            "They would be random; get the complete checkpoint."
        )
    if extra := [name for name in state if name not in taken and not re.search(droppable, name)]:
        raise CheckpointError(
            f"{path} has {len(extra)} tensors that are not known in this network: {some(extra)}. "
            "It is a variant that edgessl does not convert; use a Hugging Face version of it."
        )
    wrong = [
        f"{move.source} is {list(state[move.source].shape)}, expected {list(move.shape)}"
        for move in moves
        if tuple(state[move.source].shape) != move.shape
    ]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} tensors have wrong shapes: {some(wrong)}.")
    return {
        target: part
        for move in moves
        for target, part in zip(
            move.targets,
            _float32(state[move.source]).chunk(len(move.targets))
            if len(move.targets) > 1
            else (_float32(state[move.source]),),
        )
    }


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def dimension(path: Path, state: State, name: str, axes: int) -> tuple[int, ...]:
    """Shape of *name*, from which the sizes of the network are read.

    Raises:
        CheckpointError: it is missing, or has another number of axes.
    """
    if name not in state:
        raise CheckpointError(f"{path} lacks {name}, which every such encoder has.")
    shape = tuple(state[name].shape)
    if len(shape) != axes:
        raise CheckpointError(f"{path}: {name} is {list(shape)}, expected {axes} axes.")
    return shape

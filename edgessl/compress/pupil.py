"""A student with what it learns by: taps on its layers, linear maps into the teacher's widths, and
the objectives by weight. And its teacher, whose vectors are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from edgessl.compress import flow
from edgessl.compress.objectives import KEPT, OBJECTIVES, Projections, Real
from edgessl.encoders.structures import Layer
from edgessl.errors import RecipeError, Unsupported

Inputs = Mapping[str, torch.Tensor]


class Seen(NamedTuple):
    """What an encoder made of a batch: its first output, and by number of layer the stream after it
    and its projections."""

    vector: torch.Tensor
    hidden: dict[int, torch.Tensor]
    projections: dict[int, Projections]

    def of(self, needs: str, layer: int) -> Any:
        return self.vector if needs == "vector" else getattr(self, needs)[layer]


@dataclass(frozen=True)
class View:
    """An encoder's ``module``, and the numbers of its ``layers`` to listen to, by need."""

    module: torch.nn.Module
    layers: Sequence[Layer]
    listen: Mapping[str, Sequence[int]]

    def __call__(self, inputs: Inputs) -> Seen:
        streams = [self.layers[number] for number in self.listen["hidden"]]
        looking = [self.layers[number] for number in self.listen["projections"]]
        linears = [
            layer.linear(name)
            for layer in looking
            for name in (layer.names.query, layer.names.key, layer.names.value)
        ]
        with flow.tapped([*(layer.module for layer in streams), *linears]) as taps:
            vector = self.module(**inputs)[0]
        made = [tap.made[0] if isinstance(tap.made, tuple) else tap.made for tap in taps]
        hidden = dict(zip(self.listen["hidden"], (one.float() for one in made), strict=False))
        rest = iter(made[len(streams) :])
        projections = {
            number: (next(rest).float(), _each(layer, next(rest)), _each(layer, next(rest)))
            for number, layer in zip(self.listen["projections"], looking, strict=True)
        }
        return Seen(vector, hidden, projections)


def _each(layer: Layer, made: torch.Tensor) -> torch.Tensor:
    """Keys or values, once for each query head that looks through them."""
    heads = made.float().reshape(*made.shape[:-1], -1, layer.head_dim)
    return heads.repeat_interleave(layer.queries, -2).flatten(-2)


def views(
    student: tuple[torch.nn.Module, Sequence[Layer]],
    teacher: tuple[torch.nn.Module, Sequence[Layer]],
    names: Sequence[str],
) -> tuple[View, View]:
    """Of both, what the objectives *names* need."""
    found = []
    for side, (module, layers) in enumerate((student, teacher)):
        listen: dict[str, list[int]] = {"hidden": [], "projections": []}
        for name in names:
            row = OBJECTIVES[name]
            numbers = [pair[side] for pair in row.pairs(len(student[1]), len(teacher[1]))]
            if numbers:
                listen[row.needs] = sorted({*listen[row.needs], *numbers})
        found.append(View(module, layers, listen))
    return found[0], found[1]


class Pupil(torch.nn.Module):
    """A student, and the linear maps that are thrown away once it has learnt.

    ``forward``: inputs of the student, what the teacher made of the same items, which tokens are
    real, and where something is masked, the same of the patches that both see -> the loss.

    Args:
        view, teacher: see ``views``. ``weights``: by name of objective.
        example: (what the student makes, what the teacher makes) of a few items: their widths.
        unit: only the direction of the vectors counts.
    """

    def __init__(
        self,
        view: View,
        teacher: View,
        weights: Mapping[str, float],
        example: tuple[Seen, Seen],
        unit: bool,
    ) -> None:
        super().__init__()
        self.student = view.module
        self.view = view
        self.weights = dict(weights)
        self.whole = any(not OBJECTIVES[name].partial for name in weights)
        self.unit = unit
        self.maps = torch.nn.ModuleDict()
        counts = len(view.layers), len(teacher.layers)
        self.pairs = {name: OBJECTIVES[name].pairs(*counts) or [(0, 0)] for name in weights}
        for name, pairs in self.pairs.items():
            row = OBJECTIVES[name]
            for pair in pairs if row.equal else ():
                widths = [seen.of(row.needs, n).shape[-1] for seen, n in zip(example, pair)]
                if widths[0] != widths[1]:
                    self.maps[f"{name}-{pair[0]}"] = _map(*widths)

    def train(self, mode: bool = True) -> Pupil:
        """Dropout stays off: the student learns what it will say when it is used."""
        super().train(mode)
        self.student.eval()
        return self

    def forward(
        self,
        inputs: Inputs,
        teacher: Seen | None,
        real: Real = None,
        partial: tuple[Inputs, Seen] | None = None,
    ) -> torch.Tensor:
        sides = {}
        if teacher is not None:
            sides[False] = self.view(inputs), teacher
        if partial is not None:
            sides[True] = self.view(partial[0]), partial[1]
        total = torch.zeros((), device=next(self.parameters()).device)
        for name, weight in self.weights.items():
            row = OBJECTIVES[name]
            said, told = sides[row.partial]
            losses = []
            for one, other in self.pairs[name]:
                mine, its = said.of(row.needs, one), told.of(row.needs, other)
                if (key := f"{name}-{one}") in self.maps:
                    mine = self.maps[key](mine)
                if name == "embedding" and self.unit:
                    mine, its = normalize(mine, dim=-1), normalize(its, dim=-1)
                losses.append(row.loss(mine, its, None if row.partial else real))
            total = total + weight * torch.stack(losses).mean()
        return total


def _map(narrow: int, wide: int) -> torch.nn.Linear:
    """A linear map that begins as a random rotation, so that distances are about kept."""
    found = torch.nn.Linear(narrow, wide)
    torch.nn.init.orthogonal_(found.weight)
    torch.nn.init.zeros_(found.bias)
    return found


class Teacher:
    """What the teacher makes of a batch. Its vectors are kept on disk, where they are all that is
    asked for: each item's is computed once.

    Args:
        kept: (file, items, dim) of the vectors; None: nothing is kept.
    """

    def __init__(self, view: View, kept: tuple[Path, int, int] | None, bf16: bool) -> None:
        self.view = view
        self.bf16 = bf16
        self.kept = None if kept is None else _opened(*kept)

    @torch.no_grad()
    def __call__(self, inputs: Inputs, rows: torch.Tensor | None = None) -> Seen:
        """*rows*: the items' numbers, under which vectors are kept."""
        if self.kept is None or rows is None:
            return self._run(inputs)
        numbers = rows.cpu().numpy()
        found = self.kept[numbers]
        if np.isnan(found[:, 0]).any():
            seen = self._run(inputs)
            self.kept[numbers] = seen.vector.float().cpu().numpy()
            return seen
        return Seen(torch.from_numpy(found).to(rows.device), {}, {})

    def _run(self, inputs: Inputs) -> Seen:
        device = next(iter(inputs.values())).device
        context = torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with context:
            return self.view(inputs)


def _opened(path: Path, items: int, dim: int) -> npt.NDArray[np.float32]:
    """The vectors in *path*, those that it does not have yet being NaN."""
    if not path.exists() or path.stat().st_size != items * dim * 4:
        # Written and not mapped at first, so that a full disk is an error and no signal.
        with path.open("wb") as stream:
            for _ in range(items):
                stream.write(np.full(dim, np.nan, np.float32).tobytes())
    return np.memmap(path, np.float32, "r+", shape=(items, dim))


def patches(inputs: Inputs, grid: tuple[int, int]) -> torch.Tensor:
    """``KEPT`` of the patches of each image, drawn by torch's generator: int64 ``(items, kept)``."""
    pixels = inputs["pixel_values"]
    count = math.prod(grid)
    noise = torch.rand(len(pixels), count, device=pixels.device)
    return noise.argsort(1)[:, : max(1, round(count * KEPT))]


def check_alike(example: tuple[Seen, Seen], same_inputs: bool, names: Sequence[str]) -> None:
    """Whether token by token the two can be compared, where *names* ask for it.

    Args:
        same_inputs: texts are cut into the same tokens; True for images.

    Raises:
        RecipeError: they cannot.
        Unsupported: an encoder that calls its projections in a way of its own.
    """
    for name in names:
        if not (needs := OBJECTIVES[name].needs) != "vector":
            continue
        shapes = []
        for seen in example:
            found: Any = next(iter(getattr(seen, needs).values()))
            one = found if needs == "hidden" else found[0]
            if one.ndim != 3 or len(one) != len(seen.vector):
                raise Unsupported(f"objective {name}: this encoder's layers cannot be listened to.")
            shapes.append(one.shape[1])
        if shapes[0] != shapes[1] or not same_inputs:
            raise RecipeError(
                f"objective {name} compares tokens, and student and teacher cut their inputs into "
                "different ones: use embedding and similarity, or a teacher with the same tokenizer "
                "and image size."
            )

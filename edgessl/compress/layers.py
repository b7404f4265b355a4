"""Leave out whole layers: those whose absence changes the vectors least."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgessl.errors import Unsupported
from edgessl.parity import cosine

# Encoders whose layers are alike, have weights of their own, and do not ask which one they are.
FAMILIES = frozenset(
    "bert roberta xlm-roberta camembert distilbert mpnet electra nomic_bert eurobert vit_mae vit "
    "deit dinov2 dinov2_with_registers dinov3_vit ijepa vit_msn".split()
)
COUNTS = ("num_hidden_layers", "n_layers")  # what config.json calls their number
_NUMBERED = re.compile(r"(?P<list>(?:.*\.)?(?:layers?|blocks?))\.(?P<number>\d+)\.(?P<rest>.+)")

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """``left_out``: a layer, by its number in the whole encoder; ``cosine``: mean, to the whole
    encoder's vectors, once it is gone too."""

    left_out: int
    cosine: float


def choose(
    holder: torch.nn.Module,
    name: str,
    keep: int,
    embed: Callable[[], Vectors],
    told: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[int], list[Step]]:
    """Leave out layers one by one, each time the one without which the vectors stay nearest to
    those of the whole encoder (greedy backward elimination).

    Args:
        holder, name: where the list is. *holder* has the kept layers afterwards.
        embed: vectors of some items, ``(n, dim)``, through *holder* as it is.
        told: is called with the trials that are done, and all.

    Returns:
        the numbers of the kept layers, and the steps.
    """
    layers = list(getattr(holder, name))
    whole = embed()
    kept = list(range(len(layers)))
    steps: list[Step] = []
    total = sum(range(keep + 1, len(layers) + 1))
    done = 0
    while len(kept) > keep:
        found: dict[int, float] = {}
        for candidate in kept:
            rest = [layers[number] for number in kept if number != candidate]
            setattr(holder, name, torch.nn.ModuleList(rest))
            found[candidate] = float(cosine(embed(), whole).mean())
            done += 1
            told(done, total)
        out = max(found, key=lambda candidate: found[candidate])
        kept.remove(out)
        steps.append(Step(out, found[out]))
    setattr(holder, name, torch.nn.ModuleList([layers[number] for number in kept]))
    return kept, steps


def renamed(tensors: Mapping[str, Any], count: int, kept: Sequence[int]) -> dict[str, Any]:
    """A checkpoint's tensors without those of layers that are not *kept*; the others are numbered
    anew.

    Raises:
        Unsupported: no names that number *count* layers.
    """
    numbers: dict[str, set[int]] = {}
    for name in tensors:
        if (match := _NUMBERED.fullmatch(name)) and "decoder" not in match["list"]:
            numbers.setdefault(match["list"], set()).add(int(match["number"]))
    lists = [name for name, found in numbers.items() if found == set(range(count))]
    if len(lists) != 1:
        raise Unsupported(f"its weights do not have one list of {count} layers.")
    new = {old: number for number, old in enumerate(kept)}
    found = {}
    for name, tensor in tensors.items():
        match = _NUMBERED.fullmatch(name)
        if match is None or match["list"] != lists[0]:
            found[name] = tensor
        elif int(match["number"]) in new:
            found[f"{lists[0]}.{new[int(match['number'])]}.{match['rest']}"] = tensor
    return found

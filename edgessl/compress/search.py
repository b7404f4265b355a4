"""How many heads and channels each layer keeps: the least error that a budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgessl.compress.costs import Costs
from edgessl.compress.obs import Removal
from edgessl.errors import RecipeError

_BINS = 20_000  # the budget is told so finely


@dataclass(frozen=True)
class Sizes:
    """By layer."""

    heads: list[int]
    channels: list[int]


def allocate(
    parts: Sequence[tuple[Removal, Removal]], costs: Costs, fraction: float, asked: str
) -> Sizes:
    """Sizes whose cost is at most *fraction* of the whole encoder's, with the least sum of errors:
    exact but for ``1 / _BINS`` of the budget, by dynamic programming (a multiple-choice knapsack).

    Args:
        parts: (heads, channels) of each layer. asked: the budget, as the user wrote it.

    Raises:
        RecipeError: the smallest sizes cost more; names what they cost.
    """
    layers = len(parts)
    most = costs.total([max(costs.heads)] * layers, [max(costs.channels)] * layers)
    least = costs.total([min(costs.heads)] * layers, [min(costs.channels)] * layers)
    if least > fraction * most:
        raise RecipeError(
            f"{asked} cannot be reached with all {layers} layers: the smallest is "
            f"{np.ceil(least / most * 100) / 100:.2f}x, with one head and {min(costs.channels)} "
            "channels in each; leave out layers first (--layers)."
        )
    unit = fraction * most / _BINS
    room = int((fraction * most - costs.fixed) / unit)
    menus = [
        [(size, removed.errors[len(removed.errors) - size], cost) for size, cost in menu.items()]
        for both in parts
        for removed, menu in zip(both, (costs.heads, costs.channels), strict=True)
    ]
    best = np.zeros(room + 1)  # least error of the menus so far, by what is spent at most
    chosen: list[np.ndarray] = []
    for menu in menus:
        rows = np.full((len(menu), room + 1), np.inf)
        for row, (_, error, cost) in zip(rows, menu, strict=True):
            price = int(np.ceil(cost / unit))
            if price <= room:
                row[price:] = best[: room + 1 - price] + error
        chosen.append(rows.argmin(0))
        best = rows.min(0)
    if not np.isfinite(best[room]):  # the bins rounded up what only just fits
        return Sizes([min(costs.heads)] * layers, [min(costs.channels)] * layers)
    sizes = []
    for menu, choice in zip(reversed(menus), reversed(chosen), strict=True):
        size, _, cost = menu[choice[room]]
        sizes.append(size)
        room -= int(np.ceil(cost / unit))
    sizes.reverse()
    return Sizes(sizes[::2], sizes[1::2])

"""The 2:4 pattern that sparse tensor cores take: what it is, for whoever makes, keeps or seeks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

GROUP, KEPT = 4, 2  # of every 4 weights in a row, along the inputs, at most 2 are not 0


def holds(weights: npt.NDArray[Any]) -> bool:
    """Whether *weights* ``(inputs, outputs)`` have the pattern."""
    if len(weights) % GROUP:
        return False
    groups = (weights != 0).reshape(-1, GROUP, weights.shape[1])
    return bool((np.count_nonzero(groups, axis=1) <= KEPT).all())

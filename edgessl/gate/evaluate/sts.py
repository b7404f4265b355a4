"""Semantic textual similarity: cosines of pairs against how alike people find them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError
from edgessl.gate.evaluate import bootstrap, spaces
from edgessl.gate.evaluate.bootstrap import Measured, Statistic
from edgessl.gate.evaluate.data import Data, vary
from edgessl.gate.evaluate.spaces import Space

_FEWEST = 5  # pairs of which a correlation says anything


def spearman(data: Data, own: Space, k: int, seed: int) -> Measured:
    """Spearman's rank correlation (Cer et al., SemEval 2017 task 1; MTEB)."""
    return _correlation(data, own, bootstrap.spearman)


def pearson(data: Data, own: Space, k: int, seed: int) -> Measured:
    """Pearson's correlation."""
    return _correlation(data, own, bootstrap.pearson)


def _correlation(
    data: Data, own: Space, kind: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Statistic]
) -> Measured:
    scores = np.asarray(data.scores)
    if len(scores) < _FEWEST:
        raise RecipeError(f"{data.name} has {len(scores)} pairs; it takes at least {_FEWEST}.")
    vary(scores, "score", data.name)
    left, right = (Space(own.rows[side::2], own.broken[side::2]) for side in (0, 1))
    found = spaces.cosines(left, right)
    near = np.round(found, 7)  # what float32 cannot tell apart is a tie
    if (near == near[0]).all():  # an encoder that says the same of everything
        return Measured(
            lambda counts: np.zeros(len(counts)), (len(scores),), facts={"unit": "pairs"}
        )
    return Measured(kind(near, scores), (len(scores),), facts={"unit": "pairs"})

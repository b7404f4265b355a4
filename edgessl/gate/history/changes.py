"""Where a series of figures went to another level: change points.

The method is kernel change-point detection (Arlot, Celisse and Harchaoui, "A Kernel Multiple
Change-point Algorithm via Model Selection", JMLR 20, 2019) as ``ruptures`` has it: the values are
cut so that those within a piece are alike by a Gaussian kernel, and each further piece has to be
worth a penalty. The kernel makes single outliers, which shared machines bring, count little.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgessl.errors import require
from edgessl.gate.history.series import Change

FEWEST = 6  # reports before which no change can be told
LEAST = 0.01  # of a change of a timed figure, as a fraction: less is of no interest
_PIECE = 3  # reports of a level
_NEWEST = 1000  # values that are looked at


def find(values: Sequence[float], least: float = LEAST) -> tuple[Change, ...]:
    """Changes of level in *values*, which are by time.

    A level has three values or more, so that a change is seen with the third report after it. The
    penalty is such that of series without a change about one in a hundred is given one, whatever
    the spread and for 10 to 500 values (``docs/history.md`` has the simulation).

    Args:
        least: smaller changes, as fractions of the level before, are left out.

    Raises:
        MissingDependency: ruptures is not installed.
    """
    skipped = max(0, len(values) - _NEWEST)
    newest = values[skipped:]
    scaled = np.asarray(newest, np.float64)
    if len(newest) < FEWEST or np.ptp(scaled) == 0:
        return ()
    if min(newest) > 0:  # figures vary by fractions of themselves
        scaled = np.log(scaled)
    ruptures = require("ruptures", "gate", "finding changes in a history")
    kernel = ruptures.KernelCPD(kernel="rbf", min_size=_PIECE, params={"gamma": _gamma(scaled)})
    cuts = kernel.fit(scaled[:, None]).predict(pen=penalty(len(newest)))[:-1]
    return tuple(
        replace(change, at=change.at + skipped)
        for change in _merged(newest, [int(cut) for cut in cuts], least)
    )


def penalty(count: int) -> float:
    """What a further piece of so many values must be worth."""
    return 0.8 + 0.4 * math.log(count)


def _gamma(values: npt.NDArray[np.float64]) -> float:
    """The kernel's, for a width of twice the median distance of values of one level.

    That median is taken from the lower quarter of all distances, which changes of level do not
    widen; of a normal distribution the two are 4.48 apart. Where a quarter of the values are equal
    there is no noise to speak of, and any difference counts.
    """
    first, second = np.triu_indices(len(values), 1)
    distances = (values[first] - values[second]) ** 2
    quarter = float(np.quantile(distances, 0.25))
    if quarter > 0:
        return 0.25 / (4.48 * quarter)
    return 0.7 / float(np.quantile(distances[distances > 0], 0.25))


def _merged(values: Sequence[float], cuts: list[int], least: float) -> list[Change]:
    """The cuts at which the median changes by *least*; the smallest below it goes first."""
    while True:
        edges = [0, *cuts, len(values)]
        levels = [statistics.median(values[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
        found = [
            Change(cut, before, after)
            for cut, before, after in zip(cuts, levels, levels[1:], strict=False)
        ]
        smallest = min(found, key=lambda change: abs(change.ratio), default=None)
        if smallest is None or abs(smallest.ratio) >= least:
            return found
        cuts = [cut for cut in cuts if cut != smallest.at]

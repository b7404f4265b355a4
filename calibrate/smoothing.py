"""What the channels of an activation tensor are divided by before they become int8.

Outlier channels make one scale for a whole tensor too coarse. Dividing them by factors that the
weights take over moves the difficulty into the weights (SmoothQuant; Xiao et al., ICML 2023);
moving channels to their middle uses both signs (Outlier Suppression+; Wei et al., EMNLP 2023).
The factors here minimize the sum of both rounding errors, written out for uniform rounding noise,
by gradient descent: better than a power of the range, and as quick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_STEPS = 80
_RATE = 0.08
_SHARPNESS = 24.0  # of the power mean that stands for a maximum
_COLUMNS = 256  # of the weights that the descent looks at
_GPTQ_SHARE = 0.3  # of the weights' rounding error that GPTQ leaves


def factors(
    weights: Floats, low: Floats, high: Floats, power: Floats, signed: bool
) -> tuple[Floats, float, float]:
    """Positive factors of K channels, 1 on (geometric) average.

    Args:
        weights: ``(K, N)``, their columns scaled to how much an error there matters.
        low, high: the channels' ranges, ``(K,)``.
        power: mean square of the channels, ``(K,)``.
        signed: codes are symmetric, so the range is twice the larger end.

    Returns:
        the factors, the error with them, and the error without any.
    """
    channels = len(weights)
    error, widest = objective(weights, low, high, power, signed)
    plain, _ = error(np.zeros(channels))
    u = 0.6 * (widest - widest.mean())
    first, second = np.zeros(channels), np.zeros(channels)
    best: tuple[float, Doubles] = (plain, np.zeros(channels))
    for number in range(1, _STEPS + 1):  # Adam (Kingma & Ba, 2015)
        value, slope = error(u)
        if value < best[0]:
            best = value, u
        slope = slope / max(value, 1e-300)
        first = 0.9 * first + 0.1 * slope
        second = 0.99 * second + 0.01 * np.square(slope)
        mean, spread = first / (1 - 0.9**number), np.sqrt(second / (1 - 0.99**number))
        u = u - _RATE * (1 - 0.7 * number / _STEPS) * mean / (spread + 1e-9)
        u = u - u.mean()
    return np.exp(best[1]).astype(np.float32), best[0], plain


def objective(
    weights: Floats, low: Floats, high: Floats, power: Floats, signed: bool
) -> tuple[Callable[[Doubles], tuple[float, Doubles]], Doubles]:
    """The error of the factors ``exp(u)`` with its slope, as a function of u ``(K,)``, and the
    logarithm of each channel's larger end. Arguments as of ``factors``."""
    top, bottom = np.maximum(high, 0).astype(float), np.maximum(-low, 0).astype(float)
    if signed:
        top = bottom = np.maximum(top, bottom)
    floor = max(float(top.max()), float(bottom.max()), 1e-20) * 1e-4
    ends = [np.log(np.maximum(end, floor)) for end in (top, bottom)]
    size = np.square(weights.astype(np.float64)).sum(axis=1)
    step = max(1, weights.shape[1] // _COLUMNS)
    logs = np.log(np.abs(weights[:, ::step]) + np.float32(1e-9)).astype(np.float32)
    several = weights.shape[1] / logs.shape[1]
    energy = power.astype(np.float64)

    def error(u: Doubles) -> tuple[float, Doubles]:
        square = np.exp(2 * u)
        spans = [_largest(end - u) for end in ends]
        span = sum(value for value, _ in spans) / 255
        passed = float((square * size).sum())
        rounding = span**2 / 12 * passed
        slope = span**2 / 6 * square * size
        slope -= passed / 6 * span * sum(v * share for v, share in spans) / 255
        tops, shares = _largest(logs + u[:, None].astype(np.float32))
        squares = np.square(tops.astype(np.float64)) * several / 127**2 / 12 * _GPTQ_SHARE
        held = energy / square
        weight_rounding = float(squares.sum() * held.sum())
        slope += 2 * (shares @ squares) * held.sum() - 2 * squares.sum() * held
        return rounding + weight_rounding, slope

    return error, np.maximum(*ends)


def _largest(logs: npt.NDArray[Any]) -> tuple[Any, npt.NDArray[Any]]:
    """The maximum of ``exp(logs)`` along the channels as a power mean, which has a slope, and how
    much each channel has in it."""
    peak = logs.max(axis=0)
    powers = np.exp(_SHARPNESS * (logs - peak))
    total = powers.sum(axis=0)
    return np.exp(peak) * total ** (1 / _SHARPNESS), powers / total

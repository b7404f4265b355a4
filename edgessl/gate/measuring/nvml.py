"""NVIDIA's management library, where it and its Python binding are installed.

``pip install nvidia-ml-py``; without it nothing here raises, and there is nothing to tell.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any


@functools.cache
def library() -> Any | None:
    """``pynvml``, initialised; None where it is not installed or finds no driver."""
    try:
        found = importlib.import_module("pynvml")
        found.nvmlInit()
    except Exception:  # no driver, another one than the library's, no permission: all the same
        return None
    return found


def handles(found: Any) -> list[Any]:
    return [found.nvmlDeviceGetHandleByIndex(i) for i in range(found.nvmlDeviceGetCount())]


def cards() -> list[dict[str, Any]]:
    """What does not change by itself: ``name``, ``driver``, ``clock`` (MHz) and ``power``."""
    found = library()
    if found is None:
        return []
    return [
        {
            "name": _text(found.nvmlDeviceGetName(card)),
            "driver": _text(found.nvmlSystemGetDriverVersion()),
            "clock": _told(
                max_sm_mhz=lambda: found.nvmlDeviceGetMaxClockInfo(card, found.NVML_CLOCK_SM),
                max_memory_mhz=lambda: found.nvmlDeviceGetMaxClockInfo(card, found.NVML_CLOCK_MEM),
                set_sm_mhz=lambda: found.nvmlDeviceGetApplicationsClock(card, found.NVML_CLOCK_SM),
            ),
            "power": _told(
                limit_w=lambda: found.nvmlDeviceGetEnforcedPowerLimit(card) // 1000,
                mig=lambda: found.nvmlDeviceGetMigMode(card)[0],
            ),
        }
        for card in handles(found)
    ]


def weather() -> list[dict[str, Any]]:
    """What changes: ``sm_mhz``, ``celsius``, ``throttled`` (NVML's reasons, bits), ``used_mb``."""
    found = library()
    if found is None:
        return []
    return [
        _told(
            sm_mhz=lambda: found.nvmlDeviceGetClockInfo(card, found.NVML_CLOCK_SM),
            celsius=lambda: found.nvmlDeviceGetTemperature(card, found.NVML_TEMPERATURE_GPU),
            throttled=lambda: found.nvmlDeviceGetCurrentClocksThrottleReasons(card),
            used_mb=lambda: round(found.nvmlDeviceGetMemoryInfo(card).used / 1e6),
        )
        for card in handles(found)
    ]


def _told(**questions: Callable[[], Any]) -> dict[str, Any]:
    """The answers of those that this card answers."""
    answers = {}
    for name, ask in questions.items():
        try:
            answers[name] = ask()
        except Exception:  # NVMLError_NotSupported and its kin; boards differ
            continue
    return answers


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)  # before pynvml 11.5

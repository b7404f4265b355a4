"""The one seam between a session and what runs the graph, and the options that cross it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError, nearest

MODES = ("latency", "throughput")

Arrays = dict[str, npt.NDArray[Any]]
Report = Callable[[str], None]  # takes one line of progress


def silent(_line: str) -> None:
    """A ``Report`` that says nothing."""


class Backend(Protocol):
    """An opened graph: numpy in, numpy out. Implemented once for each runtime library.

    ``streams``: how many threads may call ``run`` at once and each be served by cores, or a
    queue of the device, of its own; 1 in latency mode. ``run`` itself is safe from any number of
    threads.
    """

    @property
    def streams(self) -> int: ...

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Run the graph. Keys and dtypes as in the manifest's ``inputs`` and ``outputs``.

        The outputs are the caller's own; the inputs are not kept.
        """

    def describe(self) -> dict[str, Any]:
        """What really runs: ``runtime``, ``version``, ``device``, ``threads``, ..."""

    def close(self) -> None:
        """Give back what the runtime holds."""


@dataclass(frozen=True)
class RuntimeOptions:
    """How to open a bundle.

    ``device``: ``"cpu"``, ``"gpu"`` or ``"npu"``; None takes the target's own default
    (the CPU, or the GPU where the target has nothing else).
    ``mode``: ``"latency"``, one input as soon as possible, or ``"throughput"``, many in all.
    ``threads``: threads inside one inference. ``streams``: inferences that run at once.
    None: what suits this machine and the mode (``edgessl.cores``).
    ``cache``: whether what the runtime made of the bundle is kept on disk for the next process.

    Raises:
        RecipeError: an unknown mode, or a number below 1.
    """

    device: str | None = None
    mode: str = "latency"
    threads: int | None = None
    streams: int | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            near = nearest(str(self.mode), MODES)
            raise RecipeError(f"mode {self.mode!r} is neither {' nor '.join(MODES)}.{near}")
        for name in ("threads", "streams"):
            count = getattr(self, name)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
                raise RecipeError(f"{name} must be a whole number, not {count!r}.")
            if count is not None and count < 1:
                raise RecipeError(f"{name} must be at least 1, not {count}.")


@dataclass(frozen=True)
class BuildPlan:
    """What a target's builder has to know beside the ONNX.

    ``profiles``: per input, the smallest, the optimal and the largest shape an engine must
    take. ``workspace_mb``: scratch memory that a TensorRT build may use. ``timing``: where
    TensorRT's timings of kernels are kept between builds (``edgessl.cache``). ``repeat``: an output
    ``(batch, dim)`` that other libraries are to find as ``last_hidden_state``, ``(batch, 1, dim)``.
    """

    target: str
    precision: str
    profiles: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    workspace_mb: int = 1024
    compute_capabilities: tuple[str, ...] = ()  # "8.6", ...; empty: the builder's default
    report: Report = silent
    timing: Path | None = None
    repeat: str | None = None

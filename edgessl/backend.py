"""The one seam between a session and what runs the graph, and the options that cross it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Report = Callable[[str], None]  # takes one line of progress


def silent(_line: str) -> None:
    """A ``Report`` that says nothing."""


class Backend(Protocol):
    """An opened graph: numpy in, numpy out. Implemented once for each runtime library."""

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Run the graph. Keys and dtypes as in the manifest's ``inputs`` and ``outputs``."""

    def describe(self) -> dict[str, Any]:
        """What really runs: ``runtime``, ``version``, ``device``, ``threads``, ..."""

    def close(self) -> None:
        """Give back what the runtime holds."""


@dataclass(frozen=True)
class RuntimeOptions:
    """How to open a bundle.

    ``device``: ``"cpu"``, ``"gpu"`` or ``"npu"``; None takes the target's own default
    (the CPU, or the GPU where the target has nothing else).
    ``threads``: threads inside one inference; None leaves it to the runtime library.
    """

    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class BuildPlan:
    """What a target's builder has to know beside the ONNX.

    ``profiles``: per input, the smallest, the optimal and the largest shape an engine must
    take. ``workspace_mb``: scratch memory that a TensorRT build may use.
    """

    target: str
    precision: str
    profiles: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    workspace_mb: int = 1024
    compute_capabilities: tuple[str, ...] = ()  # "8.6", ...; empty: the builder's default
    report: Report = silent

"""The original encoder behind the same ``Session``, so that only the graph differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgessl import source
from edgessl.backend import Arrays
from edgessl.encoders import run
from edgessl.recipe import Recipe
from edgessl.runtimes.session import Session


class TorchBackend:
    """fp32 torch on the CPU."""

    streams = 1

    def __init__(self, model: Path) -> None:
        self.encoder = source.load_encoder(Recipe(model=str(model)))

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        return run.forward(self.encoder, dict(inputs))

    def describe(self) -> dict[str, Any]:
        return {"runtime": "torch", "version": torch.__version__, "device": "CPU"}

    def close(self) -> None:
        """Nothing to give back."""


def torch_session(model: Path, like: Session) -> Session:
    """A session over *model* in torch, preprocessing as *like* does."""
    return Session(like.manifest, TorchBackend(model), like.preprocessor)

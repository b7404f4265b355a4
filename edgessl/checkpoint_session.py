"""A checkpoint in torch, fp32, behind a ``Session``: what a bundle's vectors are compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays, Report, silent
from edgessl.bundle import Manifest
from edgessl.encoder import Encoder
from edgessl.errors import CheckpointError
from edgessl.recipe import Recipe
from edgessl.runtimes.session import Session, open_preprocessor
from edgessl.source import load_encoder

# Of a bundle's recipe what decides which vector an encoder gives, and not how exactly.
_SHARED = ("normalize", "max_length", "prompt", "dimensions", "tower", "max_seconds")
_EXACT = 1e-4  # largest difference of vectors that are the same


def load(model: str, like: Manifest | None = None, report: Report = silent) -> Encoder:
    """The encoder of a directory or hub id, read as the bundle *like* was: its pooling, length,
    image size and so on.

    Raises:
        EdgesslError: see ``edgessl.source.load_encoder``.
    """
    return load_encoder(Recipe(model=model, **(_options(like.recipe) if like else {})), report)


@contextmanager
def opened(encoder: Encoder) -> Iterator[Session]:
    """A session of *encoder*, with the preprocessing that its bundle would have."""
    with tempfile.TemporaryDirectory(prefix="edgessl-") as folder:
        for name, content in encoder.assets.items():
            (Path(folder) / name).write_bytes(content)
        feeder = open_preprocessor(Path(folder), encoder.spec)
    with Session(manifest(encoder), _Torch(encoder), feeder) as session:
        yield session


def embed(encoder: Encoder, items: Sequence[Any]) -> npt.NDArray[np.float32]:
    """Vectors ``(items, dim)``."""
    with opened(encoder) as session:
        return session.embed(items)


def prepare(encoder: Encoder, items: Sequence[Any]) -> list[Arrays]:
    """The encoder's inputs of each item alone."""
    with opened(encoder) as session:
        return [session.prepare([item]) for item in items]


def check(directory: Path, items: Sequence[Any], expected: npt.NDArray[np.float32]) -> None:
    """Read the checkpoint in *directory* as a user would; raises as ``same``."""
    same(embed(load_encoder(Recipe(model=str(directory))), items), expected)


def same(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Whether a smaller checkpoint that was read again gives the vectors that it should.

    Raises:
        CheckpointError: it does not.
    """
    if (off := float(abs(found - expected).max())) > _EXACT:
        raise CheckpointError(
            f"the smaller checkpoint gives other vectors when it is read again (off by {off:.2g}): "
            "this model cannot be made smaller in this way."
        )


def manifest(encoder: Encoder) -> Manifest:
    """What a bundle of *encoder* would say, as far as a session asks."""
    return Manifest(
        target="torch",
        precision="fp32",
        encoder=encoder.spec,
        provenance=encoder.provenance,
        variant="",
        recipe={},
        compatibility={},
        parity={},
        compute={},
    )


def _options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: recipe[name] for name in _SHARED if recipe.get(name) is not None}
    if recipe.get("probabilities"):  # which has no pooling
        found["probabilities"] = True
        found.pop("normalize", None)
    elif recipe.get("pooling"):
        found["pooling"] = recipe["pooling"]
    if recipe.get("image_size"):
        found["image_size"] = tuple(recipe["image_size"])
    return found


class _Torch:
    """A ``Backend``: torch on the CPU."""

    streams = 1

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        from edgessl.encoders import run

        return run.forward(self._encoder, dict(inputs))

    def describe(self) -> dict[str, Any]:
        import torch

        return {"runtime": "torch", "version": torch.__version__, "device": "CPU"}

    def close(self) -> None:
        """Nothing to give back."""

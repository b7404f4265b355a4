"""Weight files as they are, opened safely, and the one that is written."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgessl.encoders.weights import Weights, check_weights, find_weights
from edgessl.errors import CheckpointError

State = Mapping[str, torch.Tensor]

SUFFIXES = (".pth", ".pt", ".pth.tar", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True)
class Loaded:
    """``content``: names to tensors, or to more such mappings and what training left there."""

    content: Mapping[str, Any]
    weights: Weights


def read(path: Path) -> Loaded:
    """Content of the weights file *path*, or of the weights in the directory *path*.

    Raises:
        CheckpointError: missing, truncated, damaged, of another format, or with code in it.
    """
    if path.is_dir():
        weights = find_weights(path)
    elif not path.is_file():
        raise CheckpointError(f"{path}: there is no such file.")
    elif not path.name.lower().endswith(SUFFIXES):
        raise CheckpointError(f"{path} is none of the files that hold weights: {_suffixes()}.")
    else:
        kind = path.name.lower().endswith(".safetensors")
        weights = Weights((path,), "safetensors" if kind else "pickle")
    # The training checkpoints of MAE and DINO keep their command line in a Namespace: a bag of
    # attributes without behaviour. Nothing else is let in.
    with torch.serialization.safe_globals([argparse.Namespace]):
        check_weights(weights)
        content: dict[str, Any] = {}
        for file in weights.files:
            content.update(_load(file, weights.kind))
    return Loaded(content, weights)


def write(path: Path, tensors: State) -> None:
    """Save *tensors* as safetensors, each with memory of its own."""
    from safetensors.torch import save_file

    owned = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(owned, path, metadata={"format": "pt"})


def _load(file: Path, kind: str) -> dict[str, Any]:
    if kind == "safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    return dict(content)


def _suffixes() -> str:
    return ", ".join(SUFFIXES)

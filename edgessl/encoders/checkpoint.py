"""Open a local Hugging Face directory safely: what every family needs before it has a module."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch

from edgessl import sizes
from edgessl.encoders import resized
from edgessl.encoders.quiet import quiet_transformers
from edgessl.encoders.weights import (
    Weights,
    check_weights,
    find_weights,
    read_json,
    sha256,
    some,
)
from edgessl.errors import CheckpointError, EdgesslError, first_line

__all__ = [
    "Weights",
    "check_finite",
    "check_weights",
    "find_weights",
    "load_module",
    "read_config",
    "sha256",
]


def read_config(directory: Path) -> dict[str, Any]:
    """Content of config.json.

    Raises:
        CheckpointError: there is none, or it is not a JSON object.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{directory} has no config.json: not a Hugging Face model directory."
            f"{_where_else(directory)}"
        )
    return read_json(path)


def check_finite(named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse NaN and infinite values.

    Raises:
        CheckpointError: names the first such tensor, with the counts.
    """
    bad = [
        (name, count, tensor.numel())
        for name, tensor in named_tensors
        if (count := int((~torch.isfinite(tensor)).sum()))
    ]
    if bad:
        name, count, size = bad[0]
        more = f", and {len(bad) - 1} more tensors have such values" if len(bad) > 1 else ""
        raise CheckpointError(
            f"the weights are damaged: {count} of {size} values of {name} are NaN or "
            f"infinite{more}."
        )


def load_module(
    auto_class: Any,
    directory: Path,
    weights: Weights,
    *,
    allowed_missing: tuple[str, ...],
    **kwargs: Any,
) -> torch.nn.Module:
    """``auto_class.from_pretrained(directory)``: float32, on the CPU, in eval mode, quietly; with
    layers of sizes of their own where config.json says so (``edgessl.sizes``).

    *weights* are what ``find_weights`` found and ``check_weights`` passed. *allowed_missing*:
    regular expressions, searched in the names of parameters that the checkpoint need not have;
    transformers fills those with random values, so the caller must not use them. *kwargs* go to
    ``from_pretrained``.

    Raises:
        CheckpointError: parameters are missing or of another shape than config.json says, hold
            NaN, or transformers cannot load the directory.
    """
    options = {
        "local_files_only": True,
        "trust_remote_code": False,
        "dtype": torch.float32,
        "use_safetensors": weights.kind == "safetensors",
        "attn_implementation": "eager",
        "ignore_mismatched_sizes": True,  # reported below, all at once
        **kwargs,
    }
    config = read_config(directory)
    try:
        with quiet_transformers():
            if own := sizes.read(config):
                auto_class = resized.model_class(auto_class, directory, own)
            loaded, info = auto_class.from_pretrained(
                directory, output_loading_info=True, **options
            )
    except EdgesslError as err:
        raise type(err)(f"{directory}: {err}") from err
    except Exception as err:  # a foreign library: anything may come, and must become one line
        raise CheckpointError(
            f"{directory}: transformers cannot load it ({first_line(err)})."
        ) from err
    module: torch.nn.Module = loaded.eval()
    _require_shapes(directory, info["mismatched_keys"])
    missing = sorted(
        name
        for name in info["missing_keys"]
        if not any(re.search(pattern, name) for pattern in allowed_missing)
    )
    if missing:
        total = len(module.state_dict())
        raise CheckpointError(
            f"{directory}: the weights lack {len(missing)} of the {total} tensors that "
            f"config.json asks for ({some(missing)}); they would be random. Weights and "
            "config.json are not of the same model."
        )
    try:
        check_finite([*module.named_parameters(), *module.named_buffers()])
    except CheckpointError as err:
        raise CheckpointError(f"{directory}: {err}") from err
    return module


def _where_else(directory: Path) -> str:
    if not directory.is_dir():
        return " There is no such directory."
    children = some(sorted(path.parent.name for path in directory.glob("*/config.json")))
    modular = (directory / "modules.json").is_file()
    return (
        " It is the top of a sentence-transformers directory: the transformer lies below it."
        if modular
        else ""
    ) + (f" Did you mean a directory in it: {children}?" if children else "")


def _require_shapes(directory: Path, mismatched: Collection[tuple[Any, Any, Any]]) -> None:
    if mismatched:
        texts = [
            f"{name} is {list(stored)} in the weights and {list(asked)} by config.json"
            for name, stored, asked in sorted(mismatched, key=lambda entry: str(entry[0]))
        ]
        raise CheckpointError(
            f"{directory}: {len(texts)} tensors do not have the shapes that config.json asks "
            f"for: {some(texts)}."
        )

"""Modules whose layers have sizes of their own: made by transformers, cut before they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgessl.encoders import structures
from edgessl.encoders.shrink import shrink, shrink_stream
from edgessl.errors import CheckpointError, EdgesslError
from edgessl.sizes import ENTRY, Sizes


def model_class(auto_class: Any, directory: Path, sizes: Sizes) -> Any:
    """The class that *auto_class* chooses for *directory*; what it makes has layers of *sizes*.

    transformers reads the weights into it as into any other, and finds every shape as it should be.
    """
    from transformers import AutoConfig, PreTrainedModel

    plain = auto_class
    if not issubclass(auto_class, PreTrainedModel):
        config = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):
            plain = type(auto_class.from_config(config, trust_remote_code=False))

    class Resized(plain):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            try:
                _cut(self, config, sizes)
            except EdgesslError as err:
                raise CheckpointError(f"config.json: its entry {ENTRY!r}: {err}") from err

    Resized.__name__, Resized.__module__ = plain.__name__, plain.__module__
    return Resized


def _cut(module: torch.nn.Module, config: Any, sizes: Sizes) -> None:
    layers = structures.find(config.model_type, module, len(sizes.heads))
    for layer, heads, channels in zip(layers, sizes.heads, sizes.channels, strict=True):
        shrink(layer, heads, range(channels))
    if sizes.width is not None:
        shrink_stream(module, layers, range(sizes.width))

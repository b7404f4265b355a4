"""The noun ``Encoder``: a torch module that maps inputs to one vector, and what must travel with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgessl.spec import EncoderSpec, Provenance

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder.

    ``module`` is in eval mode, float32, on the CPU. Its ``forward`` takes the tensors of
    ``spec.inputs`` as keyword arguments and returns a tuple in the order of ``spec.outputs``:
    the vector ``(batch, dim)`` float32, pooled and normalised as the spec says, and/or the
    features ``(batch, tokens, dim)`` float32.

    ``assets`` are the small files that a bundle carries beside the graph: file name -> content
    (tokenizer.json and tokenizer_config.json, or preprocessor_config.json; config.json).

    ``plain``: the vector is the features pooled, and normalised at most: no layers in between.
    """

    module: torch.nn.Module
    spec: EncoderSpec
    provenance: Provenance
    assets: Mapping[str, bytes] = field(default_factory=dict)
    plain: bool = True

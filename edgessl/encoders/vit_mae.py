"""ViT-MAE (He et al., CVPR 2022) as an encoder.

The pretraining model drops 75 % of the patches at random and shuffles the rest, also at
inference. Here the decoder is left out and every patch is kept, in its place: the forward of
an ordinary ViT, the same every time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgessl.encoder import Encoder
from edgessl.encoders import vision
from edgessl.encoders.families import Family
from edgessl.encoders.options import LoadOptions
from edgessl.spec import Provenance


def load(
    directory: Path,
    config: dict[str, Any],
    family: Family,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    """Load a ViT-MAE encoder; as ``edgessl.encoders.vision.load``."""
    from transformers import ViTMAEModel

    return vision.load_as(ViTMAEModel, directory, family, options, source, _unmask)


def _unmask(backbone: Any) -> None:
    backbone.embeddings.random_masking = _keep_every_patch


def _keep_every_patch(
    sequence: torch.Tensor, noise: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stands in for the model's ``random_masking``: nothing masked, nothing moved."""
    batch, tokens, _ = sequence.shape
    order = torch.arange(tokens, device=sequence.device).expand(batch, tokens)
    return sequence, torch.zeros_like(order), order

"""ViT-MAE (He et al., CVPR 2022) as an encoder.

The pretraining model drops 75 % of the patches at random and shuffles the rest, also at
inference. Here the decoder is left out and every patch is kept, in its place: the forward of
an ordinary ViT, the same every time. Because the model learnt to see with a quarter of the
patches, a second input says which ones are looked at, and the rest costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgessl.encoder import Encoder
from edgessl.encoders import vision
from edgessl.encoders.families import Family
from edgessl.encoders.options import LoadOptions
from edgessl.encoders.tokens import take
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

    return vision.load_as(ViTMAEModel, directory, family, options, source, _unmask, "noise")


def _unmask(backbone: Any) -> None:
    backbone.embeddings.random_masking = _keep


def _keep(
    sequence: torch.Tensor, indices: torch.Tensor | None = None
) -> tuple[torch.Tensor, None, None]:
    """Stands in for the model's ``random_masking``: of the patches, which have their positions
    by now, those at *indices* ``(batch, kept)``, in that order; None: all of them, in theirs."""
    return sequence if indices is None else take(sequence, indices), None, None

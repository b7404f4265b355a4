"""VideoMAE and V-JEPA 2: the frames of a clip in, one vector out.

Both are encoders of every patch here: nothing is masked, and the decoder of the one and the
predictor of the other, which pretraining alone needs, are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgessl import image_config
from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head, HeadPlan
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.errors import BundleError, CheckpointError, Unsupported
from edgessl.spec import EncoderSpec, Provenance, TensorSpec, VideoSpec

POOLINGS = ("mean", "max", "none")


class VideoEncoder(torch.nn.Module):
    """``(batch, frames, channels, height, width)`` -> vector and/or features: the patches of the
    first frames row by row, then those of the next (a patch spans two frames)."""

    def __init__(self, backbone: Any, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dtype = next(self.backbone.parameters()).dtype
        (pixels,) = inputs.values()
        outputs: tuple[torch.Tensor, ...] = self.head(
            self.backbone(pixels.to(dtype)).last_hidden_state
        )
        return outputs


class VideoMae(VideoEncoder):
    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        return super().forward(pixel_values=pixel_values)

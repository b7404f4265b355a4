"""ViT-MAE (He et al., CVPR 2022) as an encoder.

The pretraining model drops 75 % of the patches at random and shuffles the rest, also at
inference. Here the decoder is left out and every patch is kept, in its place: the forward of
an ordinary ViT, the same every time.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.errors import CheckpointError, RecipeError
from edgessl.spec import EncoderSpec, ImageSpec, Provenance, TensorSpec


class ImageEncoder(torch.nn.Module):
    """``pixel_values`` -> vector and/or features (class token first, then patches row by row)."""

    def __init__(self, backbone: torch.nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dtype = next(self.backbone.parameters()).dtype
        hidden = self.backbone(pixel_values=pixel_values.to(dtype)).last_hidden_state
        outputs: tuple[torch.Tensor, ...] = self.head(hidden, None)
        return outputs


def load(
    directory: Path,
    config: dict[str, Any],
    family: Family,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    """Load a ViT-MAE encoder from a Hugging Face directory.

    Raises:
        CheckpointError: weights or preprocessor_config.json are missing or damaged.
        RecipeError: an option that only texts have.
    """
    from transformers import ViTMAEModel

    if options.max_length is not None:
        raise RecipeError("--max-length is for text encoders; this is an image encoder.")
    weights = checkpoint.find_weights(directory)
    checkpoint.check_weights(weights)
    backbone: Any = checkpoint.load_module(ViTMAEModel, directory, weights, allowed_missing=())
    backbone.embeddings.random_masking = _keep_every_patch
    height, width = _pair(config["image_size"])
    patch_height, patch_width = _pair(config["patch_size"])
    tokens = 1 + (height // patch_height) * (width // patch_width)
    pooling = options.pooling or "mean"
    normalized = bool(options.normalize) and pooling != "none"
    channels = int(config.get("num_channels", 3))
    spec = EncoderSpec(
        task="image",
        family=family.model_type,
        pooling=pooling,
        normalize=normalized,
        inputs=(TensorSpec("pixel_values", "float32", ("batch", channels, height, width)),),
        outputs=output_specs("image", pooling, options.features, config["hidden_size"], tokens),
        preprocessing=ImageSpec(height, width, channels),
    )
    return Encoder(
        module=ImageEncoder(backbone, Head(pooling, normalized, options.features)).eval(),
        spec=spec,
        provenance=replace(source, weights_sha256=checkpoint.sha256(weights)),
        assets={
            "preprocessor_config.json": _preprocessor(directory),
            "config.json": (directory / "config.json").read_bytes(),
        },
    )


def _keep_every_patch(
    sequence: torch.Tensor, noise: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stands in for the model's ``random_masking``: nothing masked, nothing moved."""
    batch, tokens, _ = sequence.shape
    order = torch.arange(tokens, device=sequence.device).expand(batch, tokens)
    return sequence, torch.zeros_like(order), order


def _preprocessor(directory: Path) -> bytes:
    path = directory / "preprocessor_config.json"
    try:
        content = path.read_bytes()
        json.loads(content)
    except (OSError, ValueError) as err:
        raise CheckpointError(
            f"{directory.name}: preprocessor_config.json cannot be read ({err}); it says how "
            "images are resized and scaled. Save it beside the weights with the model's "
            "image processor: processor.save_pretrained(DIRECTORY)."
        ) from err
    return content


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

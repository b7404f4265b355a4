"""Vision transformers of three layers with random weights, saved as checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from tests.builders import fill, save_mae

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 4,
}
WIDE = {**SIZES, "intermediate_size": 48}
CONFIGS: dict[str, Any] = {
    "vit": transformers.ViTConfig(**WIDE),
    "deit": transformers.DeiTConfig(**WIDE),
    "vit_msn": transformers.ViTMSNConfig(**WIDE),
    "ijepa": transformers.IJepaConfig(**WIDE),
    "vit_mae": transformers.ViTMAEConfig(**WIDE),
    "dinov2": transformers.Dinov2Config(**SIZES),
    "dinov2_with_registers": transformers.Dinov2WithRegistersConfig(**SIZES),
    "dinov3_vit": transformers.DINOv3ViTConfig(num_register_tokens=3, **WIDE),
    "clip_vision_model": transformers.CLIPVisionConfig(**WIDE),
}


def save(directory: Path, family: str) -> Any:
    """A checkpoint of *family* with random weights and 36 patches, and its model."""
    if family == "vit_mae":
        save_mae(directory, **WIDE)
        mae: Any = transformers.ViTMAEModel.from_pretrained(directory, mask_ratio=0.0)
        return mae.eval()
    auto: Any = transformers.AutoModel
    model = auto.from_config(CONFIGS[family]).eval()
    fill(model, seed=5)
    model.save_pretrained(directory)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return model

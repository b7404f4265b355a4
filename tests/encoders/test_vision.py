"""Every image family against transformers' own forward, from a saved checkpoint to two runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import edgessl
from edgessl import encoders
from edgessl.encoders import run
from edgessl.encoders.families import FAMILIES
from edgessl.encoders.options import LoadOptions
from edgessl.errors import RecipeError, Unsupported
from edgessl.spec import Provenance
from tests.builders import fill

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
NO_MLP = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}

# model_type -> (config, image size, what forward is told at another image size)
INTERPOLATE = {"interpolate_pos_encoding": True}
CASES: dict[str, tuple[Any, int, dict[str, bool]]] = {
    "vit": (transformers.ViTConfig(**SIZES), 32, INTERPOLATE),
    "deit": (transformers.DeiTConfig(**SIZES), 32, INTERPOLATE),
    "beit": (transformers.BeitConfig(use_relative_position_bias=True, **SIZES), 32, {}),
    "data2vec-vision": (
        transformers.Data2VecVisionConfig(use_relative_position_bias=True, **SIZES),
        32,
        {},
    ),
    "dinov2": (transformers.Dinov2Config(**NO_MLP), 32, {}),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersConfig(**NO_MLP), 32, {}),
    "dinov3_vit": (transformers.DINOv3ViTConfig(num_register_tokens=3, **SIZES), 32, {}),
    "dinov3_convnext": (transformers.DINOv3ConvNextConfig(**STAGES), 64, {}),
    "ijepa": (transformers.IJepaConfig(**SIZES), 32, INTERPOLATE),
    "vit_msn": (transformers.ViTMSNConfig(**SIZES), 32, INTERPOLATE),
    "clip_vision_model": (transformers.CLIPVisionConfig(**SIZES), 32, INTERPOLATE),
    "siglip_vision_model": (transformers.SiglipVisionConfig(**SIZES), 32, INTERPOLATE),
    "hiera": (
        transformers.HieraConfig(
            embed_dim=16, image_size=[64, 64], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]
        ),
        64,
        INTERPOLATE,
    ),
    "swin": (
        transformers.SwinConfig(
            embed_dim=16, image_size=64, depths=[1, 2], num_heads=[2, 4], window_size=4
        ),
        64,
        {},
    ),
    "convnextv2": (transformers.ConvNextV2Config(**STAGES), 64, {}),
    "resnet": (transformers.ResNetConfig(embedding_size=8, **STAGES), 64, {}),
}


def save(directory: Path, family: str) -> Any:
    """A checkpoint of *family* with random weights, and its model."""
    config, size, _ = CASES[family]
    torch.manual_seed(3)
    auto: Any = transformers.AutoModel
    model = auto.from_config(config).eval()
    fill(model, seed=5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_()
    model.save_pretrained(directory)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": size, "width": size},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.25],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def expected_vector(family: str, result: Any, model: Any) -> torch.Tensor:
    """The family's vector by its definition, from transformers' output."""
    hidden = result.last_hidden_state
    pooling = FAMILIES[family].pooling
    if pooling == "pooler":
        return result.pooler_output.flatten(1)  # type: ignore[no-any-return]
    skip = FAMILIES[family].prefix + getattr(model.config, "num_register_tokens", 0)
    return hidden[:, 0] if pooling == "cls" else hidden[:, skip:].mean(1)  # type: ignore[no-any-return]


def test_every_image_family_has_a_case() -> None:
    families = {name for name, row in FAMILIES.items() if row.task == "image"}
    assert families == {*CASES, "vit_mae"}


@pytest.mark.parametrize("family", CASES)
def test_equals_transformers_on_every_runtime(family: str, tmp_path: Path) -> None:
    model = save(tmp_path / "model", family)
    size = CASES[family][1]
    batches = [torch.randn(n, 3, size, size, generator=torch.manual_seed(n)) for n in (1, 3)]
    made = tmp_path / "model"
    for target in ("onnx", "openvino"):  # the second from the first's ONNX
        options: dict[str, Any] = {"features": True} if target == "onnx" else {}
        built = edgessl.build(made, target, tmp_path / target, **options)
        made = built.path
        assert built.parity.within
        with edgessl.load(built.path) as session:
            for pixels in batches:
                with torch.no_grad():
                    result = model(pixel_values=pixels)
                hidden = result.last_hidden_state
                if hidden.ndim == 4:
                    hidden = hidden.flatten(2).transpose(1, 2)
                outputs = session.run({"pixel_values": pixels.numpy()})
                vector = expected_vector(family, result, model).numpy()
                scale = max(1.0, np.abs(hidden.numpy()).max())
                assert np.abs(outputs["image_embedding"] - vector).max() <= 1e-4 * scale
                assert np.abs(outputs["last_hidden_state"] - hidden.numpy()).max() <= 1e-4 * scale
    engine = edgessl.build(tmp_path / "onnx", "tensorrt-rtx", tmp_path / "engine")
    assert engine.manifest.compatibility["engine"] == "model.engine"


@pytest.mark.parametrize("family", CASES)
def test_another_image_size(family: str, tmp_path: Path) -> None:
    """Positions are interpolated as the family's own code does it, and become constants."""
    model = save(tmp_path, family)
    height = CASES[family][1] * 3 // 2
    options = LoadOptions(image_size=(height, height))
    encoder = encoders.load(tmp_path, options, Provenance("tiny"))
    pixels = torch.randn(2, 3, height, height, generator=torch.manual_seed(1))
    with torch.no_grad():
        result = model(pixel_values=pixels, **CASES[family][2])
    ours = run.forward(encoder, {"pixel_values": pixels.numpy()})["image_embedding"]
    np.testing.assert_allclose(ours, expected_vector(family, result, model), atol=1e-5, rtol=1e-5)
    processor = json.loads(encoder.assets["preprocessor_config.json"])
    assert processor["size"] == {"height": height, "width": height}


def test_size_of_the_processor_wins_over_the_pretraining_size(tmp_path: Path) -> None:
    save(tmp_path, "dinov2")
    processor = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 28},
        "crop_size": {"height": 24, "width": 24},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = encoders.load(tmp_path, LoadOptions(), Provenance("tiny"))
    assert encoder.spec.inputs[0].shape == ("batch", 3, 24, 24)
    larger = encoders.load(tmp_path, LoadOptions(image_size=(48, 48)), Provenance("tiny"))
    changed = json.loads(larger.assets["preprocessor_config.json"])
    assert changed["crop_size"] == {"height": 48, "width": 48}
    assert changed["size"] == {"shortest_edge": 56}


def test_refusals(tmp_path: Path) -> None:
    save(tmp_path / "hiera", "hiera")
    with pytest.raises(Unsupported, match="no class token"):
        encoders.load(tmp_path / "hiera", LoadOptions(pooling="cls"), Provenance("tiny"))
    with pytest.raises(RecipeError, match="33 x 33"):
        encoders.load(tmp_path / "hiera", LoadOptions(image_size=(33, 33)), Provenance("tiny"))

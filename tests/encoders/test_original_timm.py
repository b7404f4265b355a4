"""Directories that timm saves: config.json with an architecture and how images are prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel

from edgessl.encoders.original import convert, is_original
from edgessl.errors import CheckpointError, Unsupported
from edgessl.image_config import read as read_preprocessing
from tests.release_models import Basic, ResNet, ViT, randomize

CONFIG = {
    "tag": "augreg_in21k",
    "input_size": [3, 16, 16],
    "interpolation": "bilinear",
    "crop_pct": 0.9,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.5, 0.6, 0.7],
}


def save(directory: Path, model: torch.nn.Module, architecture: str, **config: Any) -> Path:
    directory.mkdir()
    save_file(model.state_dict(), directory / "model.safetensors")
    content = {"architecture": architecture, "num_classes": 0, "pretrained_cfg": CONFIG, **config}
    (directory / "config.json").write_text(json.dumps(content))
    return directory


def vit(**options: Any) -> ViT:
    model = ViT(**options)
    randomize(model)
    return model.eval()


def expect_same(model: torch.nn.Module, directory: Path, height: int, width: int) -> None:
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        actual = AutoModel.from_pretrained(directory).eval()(pixel_values=pixels)
        torch.testing.assert_close(actual.last_hidden_state, model(pixels), atol=1e-5, rtol=1e-5)


def test_preprocessing_is_that_of_pretrained_cfg(tmp_path: Path) -> None:
    model = vit()
    source = save(tmp_path / "timm", model, "vit_base_patch16_224")
    assert is_original(source)
    converted = convert(source, tmp_path / "out")
    assert converted.origin == "timm vit_base_patch16_224.augreg_in21k"
    assert converted.assumptions == ()  # timm says it all
    pixels = read_preprocessing(tmp_path / "out" / "preprocessor_config.json")
    assert (pixels.size, pixels.crop, pixels.resample) == (17, (16, 16), 2)  # floor(16 / 0.9)
    assert (pixels.mean, pixels.std) == ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
    expect_same(model, tmp_path / "out", 16, 16)


def test_squash_resizes_without_keeping_the_ratio(tmp_path: Path) -> None:
    pretrained = {**CONFIG, "crop_mode": "squash", "crop_pct": 1.0}
    source = save(tmp_path / "timm", vit(), "vit_base_patch16_224", pretrained_cfg=pretrained)
    convert(source, tmp_path / "out")
    pixels = read_preprocessing(tmp_path / "out" / "preprocessor_config.json")
    assert (pixels.size, pixels.crop) == ((16, 16), (16, 16))


def test_old_config_without_pretrained_cfg(tmp_path: Path) -> None:
    source = save(tmp_path / "timm", vit(), "vit_base_patch16_224", mean=[0.1, 0.2, 0.3])
    content = json.loads((source / "config.json").read_text())
    del content["pretrained_cfg"]
    (source / "config.json").write_text(json.dumps(content))
    converted = convert(source, tmp_path / "out")
    pixels = read_preprocessing(tmp_path / "out" / "preprocessor_config.json")
    assert pixels.mean == (0.1, 0.2, 0.3)
    assert (
        "timm's defaults for input_size, std, interpolation, crop_pct" in converted.assumptions[0]
    )


def test_heads_of_model_args_and_of_odd_architectures(tmp_path: Path) -> None:
    four = vit(heads=4)
    source = save(tmp_path / "a", four, "vit_base_patch16_224", model_args={"num_heads": 4})
    convert(source, tmp_path / "a-out")
    expect_same(four, tmp_path / "a-out", 16, 16)
    odd = vit(width=768, heads=16, depth=1, cls=False)
    convert(save(tmp_path / "b", odd, "vit_base_patch16_gap_224"), tmp_path / "b-out")
    expect_same(odd, tmp_path / "b-out", 16, 16)


def test_resnet_of_timm(tmp_path: Path) -> None:
    model = ResNet(Basic, (2, 1, 1, 1))
    randomize(model)
    pretrained = {**CONFIG, "input_size": [3, 64, 64]}
    source = save(tmp_path / "timm", model.eval(), "resnet18", pretrained_cfg=pretrained)
    convert(source, tmp_path / "out")
    pixels = read_preprocessing(tmp_path / "out" / "preprocessor_config.json")
    assert (pixels.size, pixels.crop) == (71, (64, 64))
    expect_same(model, tmp_path / "out", 64, 64)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("vit_base_patch16_clip_224", "CLIP"),
        ("vit_base_patch16_siglip_gap_224", "SigLIP"),
        ("vit_base_patch16_rpn_224", "after each block"),
        ("vit_base_patch16_rope_ape_224", "rotary"),
        ("beitv2_base_patch16_224", "Of timm: ViT"),
    ],
)
def test_relatives_in_vit_names_are_refused(
    architecture: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=message):
        convert(save(tmp_path / "timm", vit(), architecture), tmp_path / "out")


@pytest.mark.parametrize("architecture", ["resnetblur50", "resnetaa50", "resnet50d", "seresnet50"])
def test_relatives_in_resnet_names_are_refused(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=architecture):
        source = save(tmp_path / "timm", ResNet(Basic, (1, 1, 1, 1)), architecture)
        convert(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_args": {"act_layer": "gelu_tanh"}}, Unsupported, "act_layer"),
        ({"pretrained_cfg": {**CONFIG, "crop_pct": 0}}, CheckpointError, "crop_pct"),
        ({"pretrained_cfg": {**CONFIG, "mean": "none"}}, CheckpointError, "mean"),
        ({"pretrained_cfg": {**CONFIG, "interpolation": "random"}}, Unsupported, "random"),
        ({"pretrained_cfg": {**CONFIG, "crop_mode": "border"}}, Unsupported, "border"),
        ({"pretrained_cfg": {**CONFIG, "input_size": [3, 16, 32]}}, Unsupported, "16 x 32"),
        ({"pretrained_cfg": []}, CheckpointError, "pretrained_cfg"),
    ],
)
def test_configs_that_are_refused(
    config: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    source = save(tmp_path / "timm", vit(), "vit_base_patch16_224", **config)
    with pytest.raises(error, match=message):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hugging_face_directories_are_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architecture": "x"}')
    assert not is_original(tmp_path)
    assert not is_original(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="Name the weights file itself"):
        convert(tmp_path, tmp_path / "out")

"""Vision transformers as their authors publish them, against the networks of their papers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from edgessl import encoders
from edgessl.encoders.options import LoadOptions
from edgessl.encoders.original import Converted, convert, is_original
from edgessl.image_config import read as read_preprocessing
from edgessl.spec import Provenance
from tests.release_models import ViT, prefixed, randomize

State = dict[str, Any]
HEAD = {"head.weight": torch.ones(5, 128), "head.bias": torch.ones(5)}
MAE_DECODER = {
    "mask_token": torch.ones(1, 1, 64),
    "decoder_pos_embed": torch.ones(1, 17, 64),
    "decoder_embed.weight": torch.ones(64, 128),
    "decoder_blocks.0.norm1.weight": torch.ones(64),
}


def network(seed: int = 11, **options: Any) -> ViT:
    model = ViT(**options)
    randomize(model, seed)
    return model.eval()


def zero_class_position(model: ViT) -> ViT:
    with torch.no_grad():
        model.pos_embed[:, 0] = 0
    return model


def plain(state: State) -> State:
    return state


def chunked(state: State) -> State:
    """DINOv2's block chunks, two blocks in each: the second number is the block's own."""

    def chunk(name: str) -> str:
        parts = name.split(".")
        return ".".join(["blocks", str(int(parts[1]) // 2), *parts[1:]])

    return {chunk(n) if n.startswith("blocks.") else n: v for n, v in state.items()}


def moco_v3(state: State) -> State:
    other = {name: value + 1 for name, value in state.items()}
    return {
        "epoch": 300,
        "state_dict": {
            **prefixed("module.base_encoder.", state),
            **prefixed("module.momentum_encoder.", other),
            "module.base_encoder.head.0.weight": torch.ones(8, 8),
            "module.predictor.0.weight": torch.ones(8, 8),
        },
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }


def dino_training(state: State) -> State:
    student = {name: value + 1 for name, value in state.items()}
    return {
        "student": prefixed("module.backbone.", student),
        "teacher": {**prefixed("backbone.", state), "head.mlp.0.weight": torch.ones(2, 2)},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_base", lr=0.1),
    }


def i_jepa(state: State) -> State:
    context = {name: value + 1 for name, value in state.items()}
    return {
        "encoder": prefixed("module.", context),
        "predictor": {"module.mask_token": torch.ones(1, 1, 8)},
        "target_encoder": prefixed("module.", state),
    }


# What the network is, how the file wraps its tensors, and what must come out.
CASES: dict[str, tuple[dict[str, Any], Callable[[State], State], str, str]] = {
    "mae": ({}, lambda s: {"model": s}, "vit_mae", "MAE release"),
    "mae-training": (
        {},
        lambda s: {"model": {**s, **MAE_DECODER}, "args": argparse.Namespace(lr=1), "epoch": 1},
        "vit_mae",
        "MAE training checkpoint",
    ),
    "dino": ({}, plain, "vit", "ViT in timm's names"),
    "dino-training": ({}, dino_training, "vit", "DINO training checkpoint"),
    "dinov2": (
        {"scale": True},
        lambda s: {**s, "mask_token": torch.ones(1, 128)},
        "dinov2",
        "DINOv2 release",
    ),
    "dinov2-registers": (
        {"scale": True, "registers": 4, "positions": "registers"},
        lambda s: {**s, "mask_token": torch.ones(1, 128)},
        "dinov2_with_registers",
        "DINOv2 release",
    ),
    "dinov2-giant": (
        {"scale": True, "gated": 344, "depth": 4},
        lambda s: {"teacher": prefixed("backbone.", chunked(s))},
        "dinov2",
        "DINOv2 training checkpoint",
    ),
    "moco-v3": ({}, moco_v3, "vit", "MoCo v3 release"),
    "moco-v3-small": ({"width": 384, "heads": 12, "depth": 1}, moco_v3, "vit", "MoCo v3 release"),
    "i-jepa": ({"cls": False}, i_jepa, "ijepa", "I-JEPA release"),
    "deit": ({}, lambda s: {"model": {**s, **HEAD}}, "vit", "DeiT release"),
    "deit-distilled": (
        {"dist": True},
        lambda s: {"model": {**s, **HEAD, "head_dist.bias": torch.ones(5)}},
        "deit",
        "DeiT release",
    ),
    "ibot": (
        {},
        lambda s: {"state_dict": {**s, "masked_embed": torch.ones(1, 128)}},
        "vit",
        "ViT in timm's names",
    ),
    "no-qkv-bias": ({"bias": False}, lambda s: {**s, **HEAD}, "vit", "ViT in timm's names"),
    "huge-heads": ({"width": 1280, "heads": 16, "depth": 1}, plain, "vit", "ViT in timm's names"),
    "no-class-position": ({"positions": "patches"}, plain, "vit", "ViT in timm's names"),
    "registers-with-positions": (
        {"registers": 4, "register_name": "reg_token"},
        plain,
        "dinov2_with_registers",
        "ViT in timm's names",
    ),
    "registers-without-positions": (
        {"registers": 2, "register_name": "reg_token", "positions": "patches", "scale": True},
        plain,
        "dinov2_with_registers",
        "ViT in timm's names",
    ),
}


def build(name: str) -> tuple[ViT, State]:
    options, wrap, _, _ = CASES[name]
    model = network(**options)
    if name.startswith("mae"):
        zero_class_position(model)
    return model, wrap(model.state_dict())


def hidden(directory: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What transformers computes; a masked autoencoder keeps every patch, in its place."""
    model = AutoModel.from_pretrained(directory).eval()
    options = {}
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
        options["noise"] = torch.arange(16.0)[None].expand(len(pixels), -1)
    with torch.no_grad():
        result: torch.Tensor = model(pixel_values=pixels, **options).last_hidden_state
    return result


def expect_same(model: torch.nn.Module, directory: Path, size: tuple[int, int] = (16, 16)) -> None:
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(pixels)
    assert expected.std() > 0.5  # it says something
    torch.testing.assert_close(hidden(directory, pixels), expected, atol=1e-5, rtol=1e-5)


def convert_saved(
    content: object, tmp_path: Path, name: str = "weights.pth"
) -> tuple[Path, Converted]:
    torch.save(content, tmp_path / name)
    return tmp_path / "out", convert(tmp_path / name, tmp_path / "out")


def config(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return content


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    model, content = build(name)
    directory, converted = convert_saved(content, tmp_path)
    assert config(directory)["model_type"] == CASES[name][2]
    assert converted.origin.startswith(CASES[name][3])
    expect_same(model, directory)


def pieces(tensors: Mapping[str, torch.Tensor]) -> list[bytes]:
    """The content of the tensors, row by row: what was cut or joined along the rows is equal."""
    return sorted(
        row.contiguous().numpy().tobytes()
        for tensor in tensors.values()
        for row in (tensor.float() if tensor.ndim > 1 else tensor[None].float())
    )


@pytest.mark.parametrize("name", ["mae", "dino-training", "deit-distilled", "i-jepa", "moco-v3"])
def test_every_weight_arrives_once(name: str, tmp_path: Path) -> None:
    model, content = build(name)
    directory, _ = convert_saved(content, tmp_path)
    source = dict(model.state_dict())
    for key in [key for key in source if key.endswith("qkv.bias")]:
        for part, values in zip("qkv", source.pop(key).chunk(3)):
            source[f"{key}.{part}"] = values
    assert pieces(load_file(directory / "model.safetensors")) == pieces(source)


@pytest.mark.parametrize("name", ["mae", "dino", "dinov2-registers", "deit-distilled", "i-jepa"])
def test_edgessl_loads_the_result(name: str, tmp_path: Path) -> None:
    model, content = build(name)
    directory, _ = convert_saved(content, tmp_path)
    encoder = encoders.load(directory, LoadOptions(pooling="none"), Provenance("here"))
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = encoder.module(pixels)[-1]
        torch.testing.assert_close(features, model(pixels), atol=1e-5, rtol=1e-5)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    model = network().to(torch.bfloat16)
    directory, _ = convert_saved(model.state_dict(), tmp_path)
    assert {t.dtype for t in load_file(directory / "model.safetensors").values()} == {torch.float32}
    expect_same(model.float(), directory)


def test_safetensors_and_the_old_torch_format(tmp_path: Path) -> None:
    model = network()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.save(model.state_dict(), tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.bin"):
        assert is_original(tmp_path / name)
        converted = convert(tmp_path / name, tmp_path / f"{name}-out")
        assert converted.files == (tmp_path / name,)
        expect_same(model, tmp_path / f"{name}-out")


def test_what_a_release_does_not_say_is_listed(tmp_path: Path) -> None:
    _, content = build("moco-v3-small")
    _, converted = convert_saved(content, tmp_path)
    text = "\n".join(converted.assumptions)
    assert "12 heads of 32: the file does not say" in text
    assert "state_dict > module.base_encoder.*" in text
    assert "module.momentum_encoder., module.predictor." in text
    assert "ImageNet mean and std" in text
    assert len(converted.sha256) == 64


def test_dinov2_is_used_at_224_pixels(tmp_path: Path) -> None:
    model = network(width=64, heads=1, depth=1, grid=(37, 37), patch=14, scale=True)
    content = {**model.state_dict(), "mask_token": torch.ones(1, 64)}
    directory, converted = convert_saved(content, tmp_path)
    assert any("positions are interpolated" in line for line in converted.assumptions)
    assert config(directory)["image_size"] == 518
    pixels = read_preprocessing(directory / "preprocessor_config.json")
    assert (pixels.size, pixels.crop, pixels.resample) == (256, (224, 224), 3)
    assert pixels.mean == (0.485, 0.456, 0.406)
    assert pixels.std == (0.229, 0.224, 0.225)

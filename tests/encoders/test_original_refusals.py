"""Files that are not converted: which one it is, what was seen in it, and what would do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgessl.encoders.original import convert
from edgessl.errors import CheckpointError, OutputError, Unsupported
from tests.release_models import Basic, ResNet, ViT, randomize

State = dict[str, Any]


def state_of(**options: Any) -> State:
    model = ViT(depth=1, **options)
    randomize(model)
    return dict(model.state_dict())


def refuse(content: object, tmp_path: Path, error: type[Exception]) -> str:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(error) as caught:
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_unknown_names_are_shown_beside_the_accepted_ones(tmp_path: Path) -> None:
    content = {"state_dict": {"generator.up.weight": torch.ones(2), "step": 3}}
    text = refuse(content, tmp_path, CheckpointError)
    assert "1 tensors: generator.up.weight" in text
    assert "patch_embed.proj.weight" in text
    assert "layer1.0.conv1.weight" in text
    assert "holds no tensors" in refuse({"epoch": 1}, tmp_path, CheckpointError)


def test_transformers_names_point_to_the_directory(tmp_path: Path) -> None:
    content = {"bert.encoder.layer.0.attention.self.query.weight": torch.ones(2)}
    assert "name the directory" in refuse(content, tmp_path, CheckpointError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.0.blocks.0.attn.relative_position_bias_table", "Swin"),
        ("stages.0.blocks.0.conv_dw.weight", "ConvNeXt"),
        ("pos_embed_window", "Hiera"),
        ("visual.conv1.weight", "CLIP"),
        ("conv_proj.weight", "torchvision"),
    ],
)
def test_known_networks_that_are_not_converted(name: str, message: str, tmp_path: Path) -> None:
    assert message in refuse({name: torch.ones(2)}, tmp_path, Unsupported)


@pytest.mark.parametrize(
    "name", ["norm.weight", "blocks.0.attn.proj.bias", "patch_embed.proj.bias"]
)
def test_a_missing_tensor_is_named_and_never_random(name: str, tmp_path: Path) -> None:
    state = state_of()
    del state[name]
    text = refuse(state, tmp_path, CheckpointError)
    assert re.search(rf"lacks 1 of the encoder's \d+ tensors: {name}\.", text)


def test_a_missing_block_between_others(tmp_path: Path) -> None:
    state = dict(ViT(depth=3).state_dict())
    missing = {name for name in state if name.startswith("blocks.1.")}
    content = {name: tensor for name, tensor in state.items() if name not in missing}
    assert f"lacks {len(missing)} of" in refuse(content, tmp_path, CheckpointError)


def test_a_missing_resnet_layer(tmp_path: Path) -> None:
    state = dict(ResNet(Basic, (1, 1, 1, 1)).state_dict())
    del state["layer3.0.bn2.running_var"]
    assert "layer3.0.bn2.running_var" in refuse(state, tmp_path, CheckpointError)
    content = {name: tensor for name, tensor in state.items() if not name.startswith("layer4")}
    assert "lacks layer4" in refuse(content, tmp_path, CheckpointError)


def test_an_unknown_tensor_inside_the_encoder(tmp_path: Path) -> None:
    content = {**state_of(), "blocks.0.attn.temperature": torch.ones(1)}
    assert "blocks.0.attn.temperature" in refuse(content, tmp_path, CheckpointError)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("blocks.0.mlp.fc2.bias", (64,), r"blocks.0.mlp.fc2.bias is \[64\], expected \[128\]"),
        ("cls_token", (1, 128), r"cls_token is \[1, 128\], expected \[1, 1, 128\]"),
        ("pos_embed", (1, 15, 128), "15 rows"),
        ("pos_embed", (17, 128), "expected 3 axes"),
        ("patch_embed.proj.weight", (128, 48), "expected 4 axes"),
    ],
)
def test_wrong_shapes(name: str, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    text = refuse({**state_of(), name: torch.ones(shape)}, tmp_path, CheckpointError)
    assert re.search(message, text)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"norm.weight": None, "fc_norm.weight": 128}, "after pooling"),
        ({}, {"norm_pre.weight": 128}, "CLIP"),
        ({}, {"blocks.0.attn.q_norm.weight": 64}, "queries and keys"),
        ({}, {"blocks.0.gamma_1": 128}, "BEiT or EVA"),
        ({}, {"pos_embed": None}, "no position table"),
        ({"cls": False, "scale": True}, {}, "layer scale and no class token"),
        ({"dist": True, "scale": True}, {}, "layer scale and a distillation token"),
        ({"scale": True, "gated": 200}, {}, "gated MLP is 200 wide"),
    ],
)
def test_relatives_of_vit(
    options: dict[str, Any], change: dict[str, int | None], message: str, tmp_path: Path
) -> None:
    changed = {name: size and torch.ones(size) for name, size in change.items()}
    state = {**state_of(**options), **changed}
    content = {name: tensor for name, tensor in state.items() if tensor is not None}
    assert message in refuse(content, tmp_path, Unsupported)


def test_video_encoders(tmp_path: Path) -> None:
    state = {**state_of(), "patch_embed.proj.weight": torch.ones(128, 3, 2, 4, 4)}
    content = {"target_encoder": {f"module.backbone.{name}": v for name, v in state.items()}}
    assert "encodes video" in refuse(content, tmp_path, Unsupported)


def test_widths_without_a_rule_for_heads(tmp_path: Path) -> None:
    text = refuse(state_of(width=72), tmp_path, CheckpointError)
    assert "how many attention heads its width of 72 has" in text


class Code:
    """Unpickled by a careless reader, it makes a directory."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_pickles_run_no_code(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = refuse({"model": state_of(), "args": Code(trace)}, tmp_path, CheckpointError)
    assert "mkdir" in text
    assert not trace.exists()


def test_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state_of(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="truncated, damaged"):
        convert(path, tmp_path / "out")


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        convert(tmp_path / "missing.pth", tmp_path / "out")
    (tmp_path / "weights.npz").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        convert(tmp_path / "weights.npz", tmp_path / "out")


def test_the_destination_must_be_empty(tmp_path: Path) -> None:
    torch.save(state_of(), tmp_path / "weights.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="not an empty directory"):
        convert(tmp_path / "weights.pth", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"

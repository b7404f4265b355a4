"""A ViT's tensors under timm's names and under those that transformers saves, and its config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgessl.encoders.original.moves import Move
from edgessl.encoders.original.reading import State

EPSILON = 1e-6  # in timm, MAE, DINO, DINOv2, MoCo v3, I-JEPA and DeiT alike
_CLASSES = {
    "vit": "ViTModel",
    "vit_mae": "ViTMAEModel",
    "deit": "DeiTModel",
    "ijepa": "IJepaModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
_VIT_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_DINOV2_NAMES = {"norm1": "norm1", "norm2": "norm2"}


@dataclass(frozen=True)
class Shape:
    family: str
    width: int
    depth: int
    hidden: int  # of the MLP, as transformers counts it
    heads: int
    patch: int
    channels: int
    grid: tuple[int, int]
    qkv_bias: bool
    gated: bool


def special(state: State) -> list[str]:
    """The tokens before the patches, in their order."""
    return [name for name in ("cls_token", "dist_token") if name in state]


def keeps_mask(state: State, shape: Shape) -> bool:
    return shape.family.startswith("dinov2") and "mask_token" in state


def moves(state: State, shape: Shape) -> Iterator[Move]:
    width, hidden = shape.width, shape.hidden
    positions = shape.grid[0] * shape.grid[1] + len(special(state))
    embeddings = "embeddings."

    def one(source: str, target: str, *sizes: int) -> Move:
        return Move(source, (target,), sizes)

    def layer(source: str, target: str, out: int, into: int | None = None) -> Iterator[Move]:
        yield one(
            f"{source}.weight", f"{target}.weight", *((out,) if into is None else (out, into))
        )
        yield one(f"{source}.bias", f"{target}.bias", out)

    if "cls_token" in state:
        yield one("cls_token", f"{embeddings}cls_token", 1, 1, width)
    if "dist_token" in state:
        yield one("dist_token", f"{embeddings}distillation_token", 1, 1, width)
    if "reg_token" in state:
        count = state["reg_token"].shape[1]
        yield one("reg_token", f"{embeddings}register_tokens", 1, count, width)
    if keeps_mask(state, shape):
        yield one("mask_token", f"{embeddings}mask_token", 1, width)
    yield one("pos_embed", f"{embeddings}position_embeddings", 1, positions, width)
    projection = f"{embeddings}patch_embeddings.projection"
    kernel = (width, shape.channels, shape.patch, shape.patch)
    yield one("patch_embed.proj.weight", f"{projection}.weight", *kernel)
    yield one("patch_embed.proj.bias", f"{projection}.bias", width)
    names = _DINOV2_NAMES if shape.family.startswith("dinov2") else _VIT_NAMES
    for number in range(shape.depth):
        old, new = f"blocks.{number}", f"encoder.layer.{number}"
        qkv = tuple(f"{new}.attention.attention.{part}" for part in ("query", "key", "value"))
        sizes = {"weight": (3 * width, width), "bias": (3 * width,)}
        for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
            targets = tuple(f"{part}.{kind}" for part in qkv)
            yield Move(f"{old}.attn.qkv.{kind}", targets, sizes[kind])
        yield from layer(f"{old}.attn.proj", f"{new}.attention.output.dense", width, width)
        yield from layer(f"{old}.norm1", f"{new}.{names['norm1']}", width)
        yield from layer(f"{old}.norm2", f"{new}.{names['norm2']}", width)
        into, out = ("weights_in", "weights_out") if shape.gated else ("fc1", "fc2")
        wide = 2 * hidden if shape.gated else hidden
        yield from layer(f"{old}.mlp.fc1", f"{new}.{names.get('fc1', f'mlp.{into}')}", wide, width)
        yield from layer(f"{old}.mlp.fc2", f"{new}.{names.get('fc2', f'mlp.{out}')}", width, hidden)
        if shape.family.startswith("dinov2"):
            for scale in ("1", "2"):
                source, target = f"{old}.ls{scale}.gamma", f"{new}.layer_scale{scale}.lambda1"
                yield one(source, target, width)
    yield from layer("norm", "layernorm", width)


def config(state: State, shape: Shape, image_size: tuple[int, int]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "architectures": [_CLASSES[shape.family]],
        "model_type": shape.family,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": EPSILON,
        "image_size": image_size[0] if image_size[0] == image_size[1] else list(image_size),
        "patch_size": shape.patch,
        "num_channels": shape.channels,
        "qkv_bias": shape.qkv_bias,
    }
    if shape.family.startswith("dinov2"):
        content["mlp_ratio"] = 4 if shape.gated else shape.hidden // shape.width
        content["use_swiglu_ffn"] = shape.gated
    else:
        content["intermediate_size"] = shape.hidden
    if shape.family == "dinov2":
        content["use_mask_token"] = "mask_token" in state
    if shape.family == "dinov2_with_registers":
        content["num_register_tokens"] = int(state["reg_token"].shape[1])
    return content

"""timm's config.json: which architecture, and what is done to images before it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.encoders.original.preprocessing import (
    CROP,
    IMAGENET_MEAN,
    IMAGENET_STD,
    processor,
)
from edgessl.encoders.weights import read_json
from edgessl.errors import CheckpointError, Unsupported

_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
# Heads of the architectures that do not follow the rule of their width.
_HEADS = {"test_vit": 2, "vit_base_patch16_gap_224": 16}
# What these architectures do cannot be seen in the names of their tensors.
_DIFFERENT = {
    "clip": "CLIP's normalisation and activation",
    "siglip": "SigLIP's activation",
    "rpn": "normalisation after each block",
    "rope": "rotary positions",
    "dinov3": "rotary positions",
    "radio": "RADIO's patch generator",
}
_VIT = r"^(vit|deit|deit3|flexivit|test_vit)_?"
_RESNET = r"^(tv_)?resnet(18|26|34|50|101|152)$"
# Arguments of a changed architecture that the tensors show, or that do nothing at inference.
_VISIBLE = frozenset(
    "img_size patch_size in_chans num_classes embed_dim depth num_heads mlp_ratio qkv_bias "
    "init_values class_token no_embed_class reg_tokens global_pool fc_norm drop_rate "
    "proj_drop_rate attn_drop_rate pos_drop_rate patch_drop_rate drop_path_rate dynamic_img_size "
    "weight_init fix_init features_only pretrained".split()
)


@dataclass(frozen=True)
class TimmModel:
    """``name``: architecture and tag. ``heads``: None where the rule holds.

    ``image_size``: height and width; ``preprocessing``: preprocessor_config.json.
    """

    name: str
    architecture: str
    heads: int | None
    image_size: tuple[int, int]
    preprocessing: dict[str, Any]
    assumptions: tuple[str, ...]


def is_timm(directory: Path) -> bool:
    """Whether config.json is there, and names an architecture instead of a model_type."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(config, dict)
        and isinstance(config.get("architecture"), str)
        and "model_type" not in config
    )


def read(directory: Path) -> TimmModel:
    """Read *directory*/config.json.

    Raises:
        CheckpointError: a value that makes no sense.
        Unsupported: an architecture or a preprocessing that edgessl does not have.
    """
    path = directory / "config.json"
    config = read_json(path)
    architecture = str(config["architecture"])
    inner = config.get("pretrained_cfg", config)  # old files have it all at the top
    arguments = config.get("model_args", {})
    if not isinstance(inner, dict) or not isinstance(arguments, dict):
        raise CheckpointError(f"{path}: pretrained_cfg and model_args must be objects.")
    if hidden := sorted(set(arguments) - _VISIBLE):
        raise Unsupported(
            f"{path}: model_args has {', '.join(hidden)}, which changes what {architecture} "
            "computes."
        )
    heads = arguments.get("num_heads", _HEADS.get(architecture))
    tag = inner.get("tag")
    pixels, image_size, assumptions = _preprocessing(path, inner)
    return TimmModel(
        name=f"{architecture}.{tag}" if tag else architecture,
        architecture=architecture,
        heads=None if heads is None else int(heads),
        image_size=image_size,
        preprocessing=pixels,
        assumptions=assumptions,
    )


def check(source: Path, model: TimmModel, layout: str) -> None:
    """Refuse relatives whose tensors have the names of another network.

    Raises:
        Unsupported: says what is different.
    """
    known = re.match(_VIT if layout == "vit" else _RESNET, model.architecture)
    for word, what in _DIFFERENT.items():
        if layout == "vit" and word in model.architecture.split("_"):
            raise Unsupported(f"{source}: timm {model.architecture} is not converted ({what}).")
    if not known:
        raise Unsupported(
            f"{source}: timm {model.architecture} is not converted. Of timm: ViT, DeiT and "
            "FlexiViT (vit_*, deit*_*, flexivit_*) and resnet18 to resnet152. Use a Hugging Face "
            "version."
        )


def _preprocessing(
    path: Path, config: dict[str, Any]
) -> tuple[dict[str, Any], tuple[int, int], tuple[str, ...]]:
    defaults: dict[str, Any] = {
        "input_size": (3, 224, 224),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "interpolation": "bicubic",
        "crop_pct": CROP,
    }
    silent = [key for key in defaults if config.get(key) is None]
    values = {key: default if key in silent else config[key] for key, default in defaults.items()}
    try:
        _, height, width = (int(side) for side in values["input_size"])
        mean, std = (tuple(float(v) for v in values[key]) for key in ("mean", "std"))
        crop_pct = float(values["crop_pct"])
        if not crop_pct > 0 or min(height, width) < 1:
            raise ValueError("must be positive")
        edges = [math.floor(side / crop_pct) for side in (height, width)]
    except (TypeError, ValueError, OverflowError) as err:
        raise CheckpointError(
            f"{path}: input_size, mean, std or crop_pct makes no sense ({err})."
        ) from err
    if values["interpolation"] not in _RESAMPLE:
        raise Unsupported(f"{path}: interpolation {values['interpolation']!r} is not supported.")
    mode = config.get("crop_mode") or "center"
    if mode == "squash":
        size = {"height": edges[0], "width": edges[1]}
    elif mode == "center" and height == width:
        size = {"shortest_edge": edges[0]}
    else:
        raise Unsupported(f"{path}: crop_mode {mode!r} at {height} x {width} is not supported.")
    resample = _RESAMPLE[values["interpolation"]]
    lines = (
        (f"timm's defaults for {', '.join(silent)}: config.json does not say",) if silent else ()
    )
    return processor((height, width), size, resample, mean, std), (height, width), lines

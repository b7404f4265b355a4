"""Where in whose files the encoder lies: a row each. Adding a release is adding a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch

from edgessl.encoders.original.reading import State
from edgessl.encoders.weights import some
from edgessl.errors import CheckpointError, Unsupported

BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling


@dataclass(frozen=True)
class Origin:
    """A kind of file.

    Attributes:
        layout: whose names the tensors have: "vit" (timm's, shared by MAE, DINO, MoCo v3, ...) or
            "resnet" (torchvision's).
        container: keys to follow from the top of the file to the state dict.
        prefix: what the encoder's names begin with there.
        needs, lacks: regular expressions; one name, or none, must match them after the prefix.
        suits: a last look at the tensors.
        family: model_type where the names alone do not decide.
        heads: of a width, where this release does not follow the rule.
        resample: how its authors resize images for evaluation.
        crop: the side, in pixels, at which it is used, where it is not that of its positions.
    """

    name: str
    layout: Literal["vit", "resnet"]
    container: tuple[str, ...] = ()
    prefix: str = ""
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    suits: Callable[[State], bool] | None = None
    family: str = "vit"
    heads: Mapping[int, int] = field(default_factory=dict)
    resample: int = BICUBIC
    crop: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The encoder's part of a file, its names without the prefix, and what was left out."""

    origin: Origin
    state: State
    assumptions: tuple[str, ...]


def _class_position_is_zero(state: State) -> bool:
    """MAE's fixed positions: sines and cosines, and nothing at the class token."""
    positions = state.get("pos_embed")
    return positions is not None and positions.ndim == 3 and not bool(positions[0, 0].any())


_DINOV2 = {518: 224}  # positions for 37 x 37 patches of 14, used at 224
_LS = (r"^blocks\.(\d+\.)+ls1\.gamma$",)

# The first row that fits is taken: the more a row asks for, the earlier it stands.
_NAMED = (
    Origin("MAE training checkpoint", "vit", ("model",), needs=("^decoder_embed",),
           family="vit_mae"),
    Origin(
        "MAE release", "vit", ("model",),
        lacks=("^head", "^fc_norm", "^dist_token", *_LS), suits=_class_position_is_zero,
        family="vit_mae",
    ),
    Origin("DeiT release", "vit", ("model",), needs=("^head",)),
    Origin("I-JEPA release", "vit", ("target_encoder",), "module.", lacks=("^cls_token",),
           resample=BILINEAR),
    Origin("MoCo v3 release", "vit", ("state_dict",), "module.base_encoder.", heads={384: 12},
           resample=BILINEAR),
    Origin("DINOv2 training checkpoint", "vit", ("teacher",), "backbone.", needs=_LS, crop=_DINOV2),
    Origin("DINOv2 release", "vit", needs=(*_LS, "^mask_token"), crop=_DINOV2),
    Origin("DINO training checkpoint", "vit", ("teacher",), "module.backbone."),
    Origin("DINO training checkpoint", "vit", ("teacher",), "backbone."),
    Origin("DINO training checkpoint", "resnet", ("teacher",), "module.backbone."),
    Origin("DINO training checkpoint", "resnet", ("teacher",), "backbone."),
    Origin("MoCo v3 release", "resnet", ("state_dict",), "module.base_encoder."),
    Origin("MoCo release", "resnet", ("state_dict",), "module.encoder_q."),
    Origin("Barlow Twins or VICReg training checkpoint", "resnet", ("model",), "module.backbone."),
    Origin("SwAV release", "resnet", (), "module.", needs=("^(prototypes|projection_head)",)),
    Origin("SwAV training checkpoint", "resnet", ("state_dict",), "module.",
           needs=("^(prototypes|projection_head)",)),
    Origin("VISSL checkpoint", "resnet", ("classy_state_dict", "base_model", "model", "trunk"),
           "_feature_blocks."),
)  # fmt: skip

# Files that name no project: the same networks in the usual wrappings (SimCLR, BYOL, iBOT, timm's
# own training, ...). Online, base and teacher encoders come before what follows them.
_CONTAINERS: tuple[tuple[str, ...], ...] = (
    (), ("state_dict",), ("model",), ("model_state_dict",), ("teacher",), ("target_encoder",),
    ("encoder",), ("net",), ("online_network_state_dict",),
)  # fmt: skip
_WRAPPERS = (
    "", "backbone.", "encoder.", "base_encoder.", "encoder_q.", "convnet.", "resnet.", "model.",
    "online_encoder.net.", "online_encoder.encoder.", "online_encoder.", "online_network.encoder.",
    "online_network.", "teacher.backbone.", "teacher.", "target_encoder.", "_feature_blocks.",
)  # fmt: skip
_LAYOUT_NAMES: tuple[tuple[Literal["vit", "resnet"], str, int], ...] = (
    ("vit", "ViT in timm's names (DINO, iBOT, MSN, DeiT, timm, ...)", BICUBIC),
    ("resnet", "ResNet in torchvision's names (DINO, Barlow Twins, VICReg, SimCLR, ...)", BILINEAR),
)

_ANCHORS = {
    "vit": (r"^patch_embed\.proj\.weight$", r"^blocks\.(\d+\.)+norm1\.weight$"),
    "resnet": (r"^conv1(\.0)?\.weight$", r"^layer1\.0\.conv1\.weight$"),
}

# The children of a torchvision ResNet in an nn.Sequential, as many SimCLR codes keep it.
_SEQUENTIAL = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}

_REFUSED = (
    (r"relative_position_bias_table$", "Swin, or BEiT in its own names"),
    (r"^stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw|grn|gamma)", "ConvNeXt in its own names"),
    (
        r"^(mask_unit|pos_embed_spatial|pos_embed_window|blocks\.\d+\.proj)",
        "Hiera in its own names",
    ),
    (r"^(visual|transformer\.resblocks)\.", "CLIP in its own names"),
    (r"^encoder\.(layers|pos_embedding)|^conv_proj\.", "a ViT in torchvision's names"),
)
_HUGGING_FACE = (
    r"(^|\.)encoder\.(layer|stages)\.0\.|embeddings\.(word|patch)_embeddings|^layers\.0\."
)


def find(path: Path, content: Mapping[str, Any]) -> Found:
    """The encoder in the *content* of the file *path*.

    Raises:
        CheckpointError: no row fits; says which names were seen and what is accepted.
        Unsupported: names of a network that is known but not converted.
    """
    for origin in _rows():
        state = _follow(content, origin.container)
        if state is None:
            continue
        inner = _without(state, origin.prefix)
        if origin.layout == "resnet":
            inner = _unroll(inner)
        if _fits(origin, inner):
            return Found(origin, inner, tuple(_say(origin, state, inner)))
    _refuse(path, content)


def _rows() -> Iterator[Origin]:
    yield from _NAMED
    for container in _CONTAINERS:
        for wrapper in _WRAPPERS:
            for module in ("module.", ""):
                for layout, name, resample in _LAYOUT_NAMES:
                    yield Origin(name, layout, container, module + wrapper, resample=resample)


def _follow(content: Mapping[str, Any], container: tuple[str, ...]) -> State | None:
    inner: Any = content
    for key in container:
        if not isinstance(inner, Mapping) or key not in inner:
            return None
        inner = inner[key]
    if not isinstance(inner, Mapping):
        return None
    return {str(k): v for k, v in inner.items() if isinstance(v, torch.Tensor)}


def _without(state: State, prefix: str) -> State:
    cut = len(prefix)
    return {name[cut:]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def _unroll(state: State) -> State:
    if "0.weight" not in state or "4.0.conv1.weight" not in state:
        return state
    names = {}
    for name, tensor in state.items():
        number, _, rest = name.partition(".")
        known = _SEQUENTIAL.get(int(number)) if number.isdecimal() else None
        names[f"{known}.{rest}" if known else name] = tensor
    return names


def _fits(origin: Origin, state: State) -> bool:
    def any_name(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in state)

    return (
        all(any_name(pattern) for pattern in (*_ANCHORS[origin.layout], *origin.needs))
        and not any(any_name(pattern) for pattern in origin.lacks)
        and (origin.suits is None or origin.suits(state))
    )


def _say(origin: Origin, state: State, inner: State) -> Iterator[str]:
    if origin.container or origin.prefix:
        where = " > ".join((*origin.container, f"{origin.prefix}*" if origin.prefix else "*"))
        yield f"the encoder is what the file holds at {where}"
    if beside := sorted({_top(name) for name in state if not name.startswith(origin.prefix)}):
        count = len(state) - len(inner)
        yield f"{count} tensors beside the encoder are dropped ({some(beside)})"


def _top(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "module" else 1]) + ("." if len(parts) > 1 else "")


def _refuse(path: Path, content: Mapping[str, Any]) -> NoReturn:
    names = sorted(_names(content))
    for pattern, what in _REFUSED:
        if any(re.search(pattern, name) for name in names):
            raise Unsupported(
                f"{path} holds {what}, which edgessl does not convert: use the Hugging Face "
                "version of that model."
            )
    if any(re.search(_HUGGING_FACE, name) for name in names):
        raise CheckpointError(
            f"{path} has the names of transformers: name the directory that holds it and "
            "config.json instead of the file."
        )
    seen = f"It has {len(names)} tensors: {some(names)}." if names else "It holds no tensors."
    raise CheckpointError(
        f"{path}: no encoder that edgessl knows. {seen} Accepted: a ViT in timm's names "
        "(patch_embed.proj.weight, blocks.0.norm1.weight: MAE, DINO, DINOv2, MoCo v3, I-JEPA, "
        "timm) or a ResNet in torchvision's (conv1.weight, layer1.0.conv1.weight: DINO, MoCo, "
        "SwAV, Barlow Twins, VICReg, SimCLR, BYOL), also under state_dict, model, teacher or "
        "target_encoder and behind module., backbone. or encoder."
    )


def _names(content: Mapping[str, Any], depth: int = 5) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            yield str(key)
        elif isinstance(value, Mapping) and depth:
            yield from _names(value, depth - 1)

"""Vision transformers in timm's names -> ``vit``, ``vit_mae``, ``deit``, ``ijepa``, ``dinov2*``.

Which of them it becomes, the tensors say: a distillation token, no class token, layer scale or
registers. All of these are the same pre-norm transformer with a fused ``qkv`` at the source.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from edgessl.encoders.original.moves import Draft, carry, dimension
from edgessl.encoders.original.origins import Found
from edgessl.encoders.original.reading import State
from edgessl.encoders.original.timm_model import TimmModel
from edgessl.encoders.original.vit_names import EPSILON, Shape, config, keeps_mask, moves, special
from edgessl.errors import CheckpointError, Unsupported

_HEADS = (
    r"^(head|heads|head_dist|fc|classifier|projector|projection_head|predictor|prototypes|"
    r"decoder\w*|dino_head|ibot_head|mask_token|masked_embed|queue|queue_ptr)(\.|$)"
)
_HEAD_WIDTH = 64
_HEADS_OF_WIDTH = {1152: 16, 1280: 16, 1408: 16, 1664: 16}  # so400m, huge, giant, gigantic

_REFUSED = (
    (r"^fc_norm\.", "it normalises after pooling (fc_norm), the ViT of transformers before"),
    (r"^norm_pre\.", "it normalises before the first block (CLIP)"),
    (r"^attn_pool\.", "it pools by attention (SigLIP)"),
    (r"^patch_embed\.backbone\.", "a convolutional network makes its patches"),
    (r"^patch_embed\.proj\.0\.", "a stack of convolutions makes its patches"),
    (r"\.attn\.(q_norm|k_norm)\.", "it normalises queries and keys"),
    (r"\.attn\.(q_bias|q_proj)|\.gamma_1$|rel_pos", "it is of the BEiT or EVA family"),
    (r"\.attns\.0\.|\.attn_out_proj\.|\.in_proj\.weight$", "its blocks are parallel"),
)


def convert(path: Path, found: Found, model: TimmModel | None) -> Draft:
    """The encoder without its classifier, projector or decoder.

    Raises:
        CheckpointError: tensors are missing, unknown or of wrong shapes.
        Unsupported: a relative of ViT that transformers has no model for.
    """
    state = _renamed(path, found.state)
    _require_plain(path, state)
    assumptions: list[str] = []
    shape = _shape(path, state, found, model, assumptions)
    _place_positions(path, state, shape)
    if shape.family.startswith("dinov2"):
        _fill_dinov2(state, shape)
    droppable = _HEADS.replace("mask_token|", "") if keeps_mask(state, shape) else _HEADS
    tensors = carry(path, state, list(moves(state, shape)), droppable)
    image_size = (shape.grid[0] * shape.patch, shape.grid[1] * shape.patch)
    if model is None:
        assumptions.append(f"exact GELU and layer norms with epsilon {EPSILON:g}, as at its origin")
    if shape.family == "dinov2" and image_size[0] in found.origin.crop and model is None:
        assumptions.append(
            "positions are interpolated as transformers does it, without the offset of 0.1 that "
            "DINOv2's own code adds: vectors differ by about 1e-5 in cosine"
        )
    return Draft(config(state, shape, image_size), tensors, image_size, assumptions)


def _renamed(path: Path, state: State) -> dict[str, torch.Tensor]:
    """Without DINOv2's chunks (``blocks.0.5.`` is block 5), and with one name for registers."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        plain = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)
        plain = re.sub(r"^(register_tokens|register_token)$", "reg_token", plain)
        plain = re.sub(r"\.mlp\.w12\.", ".mlp.fc1.", plain)
        plain = re.sub(r"\.mlp\.w3\.", ".mlp.fc2.", plain)
        if plain in renamed:
            raise CheckpointError(f"{path} has {plain} twice, in chunks of its blocks.")
        renamed[plain] = tensor
    return renamed


def _require_plain(path: Path, state: State) -> None:
    if "patch_embed.proj.weight" in state and state["patch_embed.proj.weight"].ndim == 5:
        raise Unsupported(
            f"{path} encodes video: its patches span frames (V-JEPA, VideoMAE). Such files say "
            "neither frame count nor image size: use the Hugging Face version of that model."
        )
    for pattern, why in _REFUSED:
        if any(re.search(pattern, name) for name in state):
            raise Unsupported(f"{path}: {why}; no plain ViT of transformers can hold it.")
    if "pos_embed" not in state:
        raise Unsupported(
            f"{path} has no position table (pos_embed): a ViT with rotary or relative positions, "
            "which no plain ViT of transformers can hold."
        )


def _shape(
    path: Path, state: State, found: Found, model: TimmModel | None, assumptions: list[str]
) -> Shape:
    width, channels, *patch = dimension(path, state, "patch_embed.proj.weight", 4)
    if patch[0] != patch[1]:
        raise Unsupported(f"{path}: its patches are {patch[0]} x {patch[1]}, not square.")
    first = dimension(path, state, "blocks.0.mlp.fc1.weight", 2)[0]
    second = dimension(path, state, "blocks.0.mlp.fc2.weight", 2)[1]
    gated = first == 2 * second
    family = _family(path, state, found.origin.family, gated)
    numbers = [int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))]
    shape = Shape(
        family=family,
        width=width,
        depth=max(numbers) + 1,
        hidden=second,
        heads=_heads(path, width, found, model, assumptions),
        patch=patch[0],
        channels=channels,
        grid=_grid(path, state, model, patch[0]),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        gated=gated,
    )
    if family.startswith("dinov2"):
        _require_dinov2(path, shape)
    return shape


def _family(path: Path, state: State, named: str, gated: bool) -> str:
    scaled, registers = "blocks.0.ls1.gamma" in state, "reg_token" in state
    extras = [
        what
        for what, there in (
            ("layer scale", scaled),
            ("registers", registers),
            ("a gated MLP", gated),
            ("a distillation token", "dist_token" in state),
        )
        if there
    ]
    if "cls_token" not in state:
        if extras:
            raise Unsupported(
                f"{path} has {' and '.join(extras)} and no class token: no model of transformers "
                "has that."
            )
        return "ijepa"
    if "dist_token" in state:
        if len(extras) > 1:
            raise Unsupported(f"{path} has {' and '.join(extras)}: no model of transformers has.")
        return "deit"
    if registers:
        return "dinov2_with_registers"
    return "dinov2" if extras else named


def _heads(
    path: Path, width: int, found: Found, model: TimmModel | None, assumptions: list[str]
) -> int:
    if model is not None and model.heads is not None:
        heads = model.heads
    else:
        known = found.origin.heads.get(width, _HEADS_OF_WIDTH.get(width))
        heads = known if known is not None else width // _HEAD_WIDTH
        if known is None and width % _HEAD_WIDTH:
            heads = 0
    if heads < 1 or width % heads:
        raise CheckpointError(
            f"{path} does not say how many attention heads its width of {width} has, and it is no "
            f"multiple of {_HEAD_WIDTH}. Save it with timm's config.json, or as a Hugging Face "
            "model."
        )
    if model is None:
        assumptions.append(f"{heads} heads of {width // heads}: the file does not say")
    return heads


def _grid(path: Path, state: State, model: TimmModel | None, patch: int) -> tuple[int, int]:
    count = dimension(path, state, "pos_embed", 3)[1]
    tokens = len(special(state))
    registers = dimension(path, state, "reg_token", 3)[1] if "reg_token" in state else 0
    choices = (count - tokens, count, count - tokens - registers)
    if model is not None:
        grid = (model.image_size[0] // patch, model.image_size[1] // patch)
        if grid[0] * grid[1] in choices:
            return grid
    for patches in choices:
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            return (math.isqrt(patches), math.isqrt(patches))
    raise CheckpointError(
        f"{path}: pos_embed has {count} rows, which is no square of patches beside {tokens} class "
        f"and distillation tokens and {registers} registers."
    )


def _place_positions(path: Path, state: dict[str, torch.Tensor], shape: Shape) -> None:
    """One position for each token but registers, as transformers has it; sums stay the same."""
    positions = state["pos_embed"].float()
    tokens, patches = len(special(state)), shape.grid[0] * shape.grid[1]
    if positions.shape[1] == patches and tokens:  # timm's no_embed_class: none before the patches
        state["pos_embed"] = torch.nn.functional.pad(positions, (0, 0, tokens, 0))
    elif positions.shape[1] > tokens + patches:  # registers have positions of their own
        last = positions.shape[1] - patches
        registers = state["reg_token"].float()
        if registers.shape != positions[:, tokens:last].shape:
            raise CheckpointError(f"{path}: reg_token and pos_embed do not fit together.")
        state["reg_token"] = registers + positions[:, tokens:last]
        state["pos_embed"] = torch.cat((positions[:, :tokens], positions[:, last:]), dim=1)


def _require_dinov2(path: Path, shape: Shape) -> None:
    ratio, rest = divmod(shape.hidden, shape.width)
    gated = (int(shape.width * 4 * 2 / 3) + 7) // 8 * 8
    if shape.gated and shape.hidden != gated:
        raise Unsupported(f"{path}: its gated MLP is {shape.hidden} wide; DINOv2's is {gated}.")
    if not shape.gated and (rest or not ratio):
        raise Unsupported(
            f"{path}: its MLP of {shape.hidden} is no multiple of its width {shape.width}, which "
            "transformers' DINOv2 needs."
        )


def _fill_dinov2(state: dict[str, torch.Tensor], shape: Shape) -> None:
    """What DINOv2 has and this has not, so that nothing changes: scales of 1, an unused token."""
    if not any(re.search(r"\.ls[12]\.gamma$", name) for name in state):
        for number in range(shape.depth):
            for name in ("ls1", "ls2"):
                state[f"blocks.{number}.{name}.gamma"] = torch.ones(shape.width)
    if shape.family == "dinov2_with_registers" and "mask_token" not in state:
        state["mask_token"] = torch.zeros(1, shape.width)

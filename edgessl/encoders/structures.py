"""What a head and a channel are, family by family: all that pruning has to know of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from edgessl.encoder import Encoder
from edgessl.errors import Unsupported


@dataclass(frozen=True)
class Names:
    """The linear layers of one transformer layer, by their path in it. ``up``: one, or gate and
    up, whose product is what ``down`` takes. ``post_norm``: the stream is normalised after each
    part, as in BERT, and not before it. ``shared_bias``: layers are given what to add to the scores
    of each head, ``(batch, heads, tokens, tokens)``."""

    query: str
    key: str
    value: str
    out: str
    up: tuple[str, ...]
    down: str
    post_norm: bool = False
    shared_bias: bool = False

    @property
    def linears(self) -> tuple[str, ...]:
        return (self.query, self.key, self.value, self.out, *self.up, self.down)


def _names(
    attention: str, letters: Sequence[str], up: Sequence[str], down: str, post_norm: bool = False
) -> Names:
    query, key, value, out = (f"{attention}.{name}" for name in letters)
    return Names(query, key, value, out, tuple(up), down, post_norm)


_PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")
_BERT = _names(
    "attention",
    ("self.query", "self.key", "self.value", "output.dense"),
    ["intermediate.dense"],
    "output.dense",
    post_norm=True,
)
_VIT = _names("attention", _PROJ, ["mlp.fc1"], "mlp.fc2")
_GATED = _names("self_attn", _PROJ, ["mlp.gate_proj", "mlp.up_proj"], "mlp.down_proj")
_DINOV3 = _names("attention", _PROJ, ["mlp.up_proj"], "mlp.down_proj")
_VIDEOMAE = replace(
    _BERT,
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    post_norm=False,
)
_OUT_PROJ = ("q_proj", "k_proj", "v_proj", "out_proj")
_WAV2VEC2 = _names(
    "attention",
    _OUT_PROJ,
    ["feed_forward.intermediate_dense"],
    "feed_forward.output_dense",
    post_norm=True,
)
_TOWERS = ("clip_text_model", "clip_vision_model", "siglip_text_model", "siglip_vision_model")
FAMILIES: dict[str, Names] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": _names(
        "attention",
        ("q_lin", "k_lin", "v_lin", "out_lin"),
        ["ffn.lin1"],
        "ffn.lin2",
        post_norm=True,
    ),
    "mpnet": replace(
        _names("attention.attn", "qkvo", ["intermediate.dense"], "output.dense"),
        post_norm=True,
        shared_bias=True,
    ),
    "deberta-v2": replace(
        _BERT,
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
    ),
    "nomic_bert": replace(_GATED, post_norm=True),
    "eurobert": _GATED,
    **dict.fromkeys(("vit_mae", "vit", "deit", "ijepa", "vit_msn"), _VIT),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), _VIT),
    "beit": replace(_VIT, shared_bias=True),
    "videomae": _VIDEOMAE,
    "data2vec-vision": replace(_VIDEOMAE, shared_bias=True),
    "dinov3_vit": _DINOV3,
    "vjepa2": _names("attention", ("query", "key", "value", "proj"), ["mlp.fc1"], "mlp.fc2"),
    **dict.fromkeys(_TOWERS, _names("self_attn", _OUT_PROJ, ["mlp.fc1"], "mlp.fc2")),
    **dict.fromkeys(("wav2vec2", "hubert", "data2vec-audio"), _WAV2VEC2),
}
# Of families that config.json can build in another way.
_OTHERWISE = {"dinov3_vit": replace(_DINOV3, up=("mlp.gate_proj", "mlp.up_proj"))}
# Of what is added to the stream, after attention and after the feed-forward part.
_SCALES = (("layer_scale1.lambda1", "layer_scale2.lambda1"), ("lambda_1", "lambda_2"))
_HEAD_DIM = ("attention_head_size", "head_dim")


@dataclass(frozen=True)
class Layer:
    """One transformer layer. A *head* is what can be removed alone: one key and value head and the
    ``queries`` query heads that look through it (1, but for grouped-query attention)."""

    module: torch.nn.Module
    names: Names
    head_dim: int
    queries: int

    def linear(self, name: str) -> torch.nn.Linear:
        """By its path, as ``names`` has it."""
        found = self.module.get_submodule(name)
        assert isinstance(found, torch.nn.Linear)  # find has looked
        return found

    @property
    def attention(self) -> torch.nn.Module:
        """What holds the query, key and value projections."""
        return self.module.get_submodule(self.names.query.rpartition(".")[0])

    @property
    def heads(self) -> int:
        return self.linear(self.names.key).out_features // self.head_dim

    @property
    def channels(self) -> int:
        return self.linear(self.names.down).in_features

    def scales(self) -> tuple[torch.Tensor, torch.Tensor]:
        """By what the attention's output and the feed-forward part's are multiplied before they are
        added to the stream; 1 but for layer scale (Touvron et al., ICCV 2021)."""
        parameters = dict(self.module.named_parameters())
        for first, second in _SCALES:
            if first in parameters:
                return parameters[first].detach(), parameters[second].detach()
        return torch.ones(1), torch.ones(1)

    @property
    def width(self) -> int:
        """Of the stream."""
        return self.linear(self.names.down).out_features

    @property
    def context(self) -> int:
        """Numbers that one head hands to the output projection."""
        return self.head_dim * self.queries


def of(encoder: Encoder) -> list[Layer]:
    """The layers of *encoder*; raises as ``find``."""
    backbone: Any = encoder.module.backbone
    return find(encoder.spec.family, backbone, int(backbone.config.num_hidden_layers))


def find(family: str, backbone: torch.nn.Module, count: int) -> list[Layer]:
    """The *count* layers of *backbone*.

    Raises:
        Unsupported: a family without a description, or layers that are not as it says.
    """
    names = FAMILIES.get(family)
    if names is None:
        able = ", ".join(sorted(FAMILIES))
        raise Unsupported(f"pruning: heads and channels of {family} are not described; of: {able}.")
    holder, where = listed(backbone, count)
    modules = list(getattr(holder, where))
    other = _OTHERWISE.get(family)
    if other is not None and _linears(modules[0]) == set(other.linears):
        names = other
    if getattr(getattr(backbone, "config", None), "do_stable_layer_norm", False):
        names = replace(names, post_norm=False)  # of wav2vec 2.0 the large ones
    return [_layer(module, names, number) for number, module in enumerate(modules)]


def listed(module: torch.nn.Module, count: int) -> tuple[torch.nn.Module, str]:
    """The module that holds the list of *count* layers, and the list's name in it.

    Raises:
        Unsupported: there is no such list, or more than one.
    """
    found = [
        name
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.ModuleList) and len(child) == count and "decoder" not in name
    ]
    if len(found) != 1:
        raise Unsupported(f"its layers cannot be told: {len(found)} lists of {count} modules.")
    parent, _, name = found[0].rpartition(".")
    return module.get_submodule(parent), name


def _linears(module: torch.nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}


def _layer(module: torch.nn.Module, names: Names, number: int) -> Layer:
    found = _linears(module)
    if absent := set(names.linears) - found:
        raise Unsupported(f"pruning: layer {number} has no linear layer {min(absent)}.")
    if more := found - set(names.linears):
        raise Unsupported(f"pruning: layer {number} has a linear layer too many: {min(more)}.")
    attention = module.get_submodule(names.query.rpartition(".")[0])
    dim = next((int(getattr(attention, name)) for name in _HEAD_DIM if hasattr(attention, name)), 0)
    query, key, value, out = (
        module.get_submodule(name) for name in (names.query, names.key, names.value, names.out)
    )
    widths = [int(query.out_features), int(key.out_features), int(value.out_features)]  # type: ignore[arg-type]
    if not dim or any(width % dim for width in widths) or widths[1] != widths[2]:
        raise Unsupported(f"pruning: layer {number}: {widths} are not whole heads of {dim}.")
    if widths[0] % widths[1] or out.in_features != widths[0]:
        raise Unsupported(
            f"pruning: layer {number}: its query heads do not share key heads evenly."
        )
    return Layer(module, names, dim, widths[0] // widths[1])

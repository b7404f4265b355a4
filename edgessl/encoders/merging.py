"""Token merging (ToMe; Bolya et al., ICLR 2023) in vision transformers of transformers.

Each layer, between attention and MLP, halves its patches into two sets by turns, finds for each
patch of the first its most similar one in the second, by the cosine of their attention keys, and
merges the R most similar pairs: means weighted by how many patches a token stands for. Attention
counts a token as often as it stands for patches (the logarithm of that is added to its scores).
Class, distillation and register tokens take no part.

The counts are fixed when the encoder is loaded, so that the graph's shapes are. What the paper
scatters is a product with a matrix of ones and zeros here, which every target has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch

from edgessl.encoders.attention import attend
from edgessl.encoders.families import FAMILIES, Family
from edgessl.encoders.options import LoadOptions
from edgessl.encoders.tokens import take
from edgessl.errors import RecipeError, Unsupported
from edgessl.spec import PROBABILITIES

# How the families name the parts of a layer: the norms, the attention and its last projection.
_NAMES = (
    ("layernorm_before", "attention", "layernorm_after"),
    ("norm1", "attention", "norm2"),
    ("layer_norm1", "self_attn", "layer_norm2"),
)


@dataclass(eq=False)
class Merging:
    """What the layers of one encoder share.

    ``tokens``: of an image, before the first layer and after each. ``prefix``: tokens before the
    patches. ``sizes``: how many patches each token stands for after the last layer that ran,
    ``(batch, tokens, 1)``; None: one each.
    """

    tokens: list[int]
    prefix: int
    sizes: torch.Tensor | None = field(default=None, repr=False)
    paused: bool = False

    @contextmanager
    def off(self) -> Iterator[None]:
        """The encoder as it was, inside the block."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False


def check(options: LoadOptions, family: Family, pooling: str, drops: bool) -> None:
    """Refuse fewer tokens than there are patches where the encoder is not made for it.

    *drops*: it was pretrained with patches left out.

    Raises:
        RecipeError, Unsupported: says what to leave out, or what has it.
    """
    name = family.model_type
    if options.patch_dropping and not drops:
        raise Unsupported(
            f"--patch-dropping: {name} was not pretrained with patches left out, and has no input "
            f"for it; vit_mae has.{' See --merge-tokens.' if family.merges else ''}"
        )
    if options.merge_tokens is None:
        return
    if options.patch_dropping:
        raise RecipeError(
            "--patch-dropping and --merge-tokens: merging needs to know how many tokens there are; "
            "choose one."
        )
    if not family.merges:
        able = ", ".join(row.model_type for row in FAMILIES.values() if row.merges)
        raise Unsupported(f"--merge-tokens: not for {name}, whose layers differ. It is for {able}.")
    if options.features or pooling == "none":
        raise RecipeError(
            "--merge-tokens gives one vector: of merged patches there are no features. Leave out "
            "--features, and --pooling none."
        )
    if pooling == PROBABILITIES and name not in ("vit", "deit", "vit_msn"):
        raise Unsupported(f"--merge-tokens: the classifier of {name} averages all patches.")


def install(backbone: Any, count: int, patches: int, prefix: int) -> Merging:
    """Let each layer of *backbone* merge *count* tokens, or half of its patches if they are fewer.

    Raises:
        RecipeError: more than half of *patches*.
        Unsupported: layers that are not built as those of a vision transformer usually are.
    """
    if count > patches // 2:
        raise RecipeError(
            f"--merge-tokens {count}: these images have {patches} patches, of which one layer can "
            f"merge at most half, {patches // 2}."
        )
    layers = _layers(backbone)
    tokens = [prefix + patches]
    for _ in layers:
        tokens.append(tokens[-1] - min(count, (tokens[-1] - prefix) // 2))
    merging = Merging(tokens, prefix)
    for number, (layer, names) in enumerate(layers):
        # Plain objects: no part of the module's parameters, and no change of their names.
        layer.merging, layer.place = merging, (number, *names)
        layer.forward = MethodType(_forward, layer)
    return merging


def merge(
    tokens: torch.Tensor,
    sizes: torch.Tensor | None,
    keys: torch.Tensor,
    count: int,
    prefix: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge *count* of the *tokens* ``(batch, n, dim)`` after the first *prefix*.

    Args:
        sizes: how many patches each stands for, ``(batch, n, 1)``; None: one.
        keys: by whose cosine tokens are similar, ``(batch, n, any)``.

    Returns:
        tokens ``(batch, n - count, dim)`` and their sizes: first those before *prefix*, then of the
        patches at even places among all tokens those that were not merged, then those at odd ones.
    """
    first = prefix % 2  # as in the paper's code, where the class token is at place 0
    keys = keys[:, prefix:]
    keys = keys / keys.square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)
    scores = keys[:, first::2] @ keys[:, 1 - first :: 2].transpose(1, 2)
    best, partner = scores.max(dim=-1)
    order = best.topk(best.shape[1]).indices
    chosen, rest = order[:, :count], order[:, count:]
    # TopK again: what stays, in its order. Places are small enough for float32, which TensorRT sorts.
    rest = rest.float().topk(rest.shape[1], largest=False).values.long()

    sizes = torch.ones_like(tokens[:, :, :1]) if sizes is None else sizes
    sums = torch.cat((tokens * sizes, sizes), dim=2)
    patches = sums[:, prefix:]
    even, odd = patches[:, first::2], patches[:, 1 - first :: 2]
    targets = partner.gather(1, chosen)
    places = torch.arange(odd.shape[1], device=tokens.device).view(1, -1, 1)
    joins = (targets.unsqueeze(1) == places).to(tokens.dtype)  # (batch, odd, count)
    odd = odd + joins @ take(even, chosen)
    sums = torch.cat((sums[:, :prefix], take(even, rest), odd), dim=1)
    sizes = sums[:, :, -1:]
    return sums[:, :, :-1] / sizes, sizes


def _layers(backbone: Any) -> list[tuple[Any, tuple[str, ...]]]:
    """The layers, and the names of norm, attention, norm in each."""
    for part in backbone.modules():
        if isinstance(part, torch.nn.ModuleList) and len(part):
            for names in _NAMES:
                wanted = (*names, "mlp")
                if all(all(hasattr(layer, name) for name in wanted) for layer in part):
                    return [(layer, names) for layer in part]
    raise Unsupported(
        f"--merge-tokens: the layers of {type(backbone).__name__} in this version of transformers "
        "are not built as edgessl expects."
    )


def _forward(
    layer: Any, hidden_states: torch.Tensor, attention_mask: Any = None, **_: Any
) -> torch.Tensor:
    """The forward of a layer, with the merging between attention and MLP."""
    merging, (number, norm, attention, second_norm) = layer.merging, layer.place
    part = getattr(layer, attention)
    sizes = merging.sizes if number else None
    count = 0 if merging.paused else merging.tokens[number] - merging.tokens[number + 1]

    batch, tokens = hidden_states.shape[:2]
    normed = getattr(layer, norm)(hidden_states)
    query, key, value = (
        projection(normed).view(batch, tokens, -1, part.head_dim).transpose(1, 2)
        for projection in (part.q_proj, part.k_proj, part.v_proj)
    )
    scaling = getattr(part, "scaling", None) or part.scale
    bias = None if sizes is None else sizes.log().transpose(1, 2).unsqueeze(1)
    attended = attend(query, key, value, scaling, bias).reshape(batch, tokens, -1)
    attended = getattr(part, "o_proj" if hasattr(part, "o_proj") else "out_proj")(attended)
    hidden_states = hidden_states + _scaled(layer, 1, attended)

    if count:
        hidden_states, sizes = merge(hidden_states, sizes, key.mean(1), count, merging.prefix)
    merging.sizes = sizes
    return hidden_states + _scaled(layer, 2, layer.mlp(getattr(layer, second_norm)(hidden_states)))


def _scaled(layer: Any, which: int, branch: torch.Tensor) -> torch.Tensor:
    scale = getattr(layer, f"layer_scale{which}", None)
    scaled: torch.Tensor = branch if scale is None else scale(branch)
    return scaled

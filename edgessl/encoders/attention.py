"""Attention without a mask. Images have no padding, but transformers gives some of their encoders a
mask of zeros when they are exported, which every layer would add to its scores."""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AttentionInterface

_NAME = "edgessl_unmasked"  # transformers makes no mask for attention that it does not know


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(batch, heads, tokens, dim)`` each -> ``(batch, tokens, heads, dim)``.

    *bias* is added to the scores ``(batch, heads, tokens, tokens)``, or what broadcasts to them.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if bias is not None:
        scores = scores + bias
    weights = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous()


def _interface(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, scaling, attention_mask), None


AttentionInterface.register(_NAME, _interface)


def unmask(backbone: Any) -> None:
    """Let an image encoder of transformers, loaded with eager attention, make no mask."""
    if hasattr(sys.modules[type(backbone).__module__], "create_bidirectional_mask"):
        backbone.config._attn_implementation = _NAME

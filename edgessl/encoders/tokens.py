"""Some tokens of each item, in torch and in a form that every target's importer takes."""

from __future__ import annotations

import torch


def take(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Row ``indices[b, k]`` of ``tokens[b]``: ``(batch, kept, dim)``.

    Args:
        tokens: ``(batch, count, dim)``.
        indices: int64 ``(batch, kept)``, or ``(1, kept)`` for the same ones of each item.
    """
    batch, count, dim = tokens.shape
    first = torch.arange(batch, device=tokens.device).unsqueeze(1) * count
    # One Gather of whole rows: gather() would need an index for every element.
    return torch.nn.functional.embedding(indices + first, tokens.reshape(batch * count, dim))

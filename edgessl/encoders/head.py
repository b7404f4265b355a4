"""From token features to the vector: pooling and normalisation, inside the graph."""

from __future__ import annotations

import torch


def pool(
    hidden: torch.Tensor, mask: torch.Tensor | None, pooling: str, prefix: int = 1
) -> torch.Tensor:
    """Pool token features to one vector.

    Args:
        hidden: ``(batch, tokens, dim)`` float32.
        mask: ``(batch, tokens)``, 1 for real tokens; None for images, whose tokens are all real.
        pooling: ``cls``, ``mean`` or ``max``; for texts the sentence-transformers definitions
            (Reimers & Gurevych, 2019), special tokens included.
        prefix: images only: how many tokens before the patches (class, distillation, registers)
            take no part in ``mean`` and ``max``.

    Returns:
        ``(batch, dim)`` float32.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if mask is None:
        patches = hidden[:, prefix:]
        return patches.mean(dim=1) if pooling == "mean" else patches.amax(dim=1)
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "mean":
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
    return (hidden + (1.0 - weight) * -1e9).amax(dim=1)


def normalize(vector: torch.Tensor) -> torch.Tensor:
    """Scale each row of ``(batch, dim)`` to unit length, as ``torch.nn.functional.normalize``.

    Written out because ReduceL2 has no form that older opsets share with newer ones.
    """
    return vector / vector.square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-12)


class Head(torch.nn.Module):
    """Features ``(batch, tokens, dim)`` -> the encoder's outputs, always in float32."""

    def __init__(self, pooling: str, normalized: bool, features: bool, prefix: int = 1) -> None:
        super().__init__()
        self.pooling = pooling
        self.normalized = normalized
        self.features = features or pooling == "none"
        self.prefix = prefix

    def forward(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """*pooled*: the model's own vector, which pooling ``pooler`` puts out."""
        hidden = hidden.float()
        outputs: tuple[torch.Tensor, ...] = ()
        if self.pooling != "none":
            if pooled is not None:
                vector = pooled.float()
            else:
                vector = pool(hidden, mask, self.pooling, self.prefix)
            outputs += (normalize(vector) if self.normalized else vector,)
        return outputs + (hidden,) if self.features else outputs

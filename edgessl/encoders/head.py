"""From token features to the vector: pooling and normalisation, inside the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from edgessl.errors import Unsupported

CLASSIFIERS = ("ForSequenceClassification", "ForImageClassification")


def pool(
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    pooling: str,
    prefix: int = 1,
    left_padded: bool = False,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pool token features to one vector.

    Args:
        hidden: ``(batch, tokens, dim)`` float32.
        mask: ``(batch, tokens)``, 1 for real tokens; None for images, whose tokens are all real.
        pooling: ``cls``, ``mean`` or ``max``; for texts the sentence-transformers definitions
            (Reimers & Gurevych, 2019), special tokens included; also ``weightedmean`` (weights
            1, 2, 3, ...) and ``lasttoken``, for texts.
        prefix: images only: how many tokens before the patches (class, distillation, registers)
            take no part in ``mean`` and ``max``.
        left_padded: texts only: padding comes first, so that the class token moves.
        sizes: images only: ``(batch, tokens, 1)``, how many patches each token stands for; None:
            one. ``mean`` is over the patches.

    Returns:
        ``(batch, dim)`` float32.
    """
    if pooling == "cls" and not left_padded:
        return hidden[:, 0]
    if mask is None:
        patches = hidden[:, prefix:]
        if sizes is not None and pooling == "mean":
            shares = sizes[:, prefix:]
            return (patches * shares).sum(dim=1) / shares.sum(dim=1)
        return patches.mean(dim=1) if pooling == "mean" else patches.amax(dim=1)
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling in ("cls", "lasttoken", "weightedmean"):
        place = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)
        real = place.view(1, -1, 1) * weight  # 1, 2, 3, ... and 0 where there is padding
        if pooling == "weightedmean":
            return (hidden * real).sum(dim=1) / real.sum(dim=1).clamp(min=1e-9)
        if pooling == "cls":  # the first real token: the largest once counted from the right
            real = (hidden.shape[1] + 1 - place).view(1, -1, 1) * weight
        chosen = (real == real.amax(dim=1, keepdim=True)).to(hidden.dtype) * weight
        return (hidden * chosen).sum(dim=1)
    if pooling == "mean":
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
    return (hidden + (1.0 - weight) * -1e9).amax(dim=1)


def normalize(vector: torch.Tensor) -> torch.Tensor:
    """Scale each row of ``(batch, dim)`` to unit length, as ``torch.nn.functional.normalize``.

    Written out because ReduceL2 has no form that older opsets share with newer ones.
    """
    return vector / vector.square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-12)


class Dense(torch.nn.Module):
    """A sentence-transformers Dense module: linear, then an activation of ``torch.nn``."""

    def __init__(self, linear: torch.nn.Linear, activation: torch.nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(self.linear(vector))
        return result


def own_vector(result: Any) -> torch.Tensor:
    """The vector that a model of transformers puts out itself: projected into the space that two
    towers share where it does that, else its pooler's."""
    for name in ("image_embeds", "text_embeds"):
        if getattr(result, name, None) is not None:
            projected: torch.Tensor = getattr(result, name)
            return projected
    pooled: torch.Tensor = result.pooler_output.flatten(1)
    return pooled


def probabilities(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What a classifier's *logits* ``(batch, labels)`` say, by its config's ``problem_type``:
    softmax, or a sigmoid for each label on its own where several may be true."""
    if getattr(config, "problem_type", None) == "multi_label_classification":
        return logits.float().sigmoid()
    return logits.float().softmax(dim=-1)


def require_classifier(config: Any, source: str) -> None:
    """Raise unless *config* is that of a fine-tuned classifier.

    Raises:
        Unsupported: a model without a classification head, or one that regresses.
    """
    kinds = [str(name) for name in getattr(config, "architectures", None) or ()]
    if not any(name.endswith(CLASSIFIERS) for name in kinds):
        raise Unsupported(
            f"{source}: --probabilities needs a fine-tuned classifier "
            f"({', '.join('*' + name for name in CLASSIFIERS)}), and this is "
            f"{', '.join(kinds) or 'of unknown kind'}."
        )
    if getattr(config, "problem_type", None) == "regression" or config.num_labels < 2:
        raise Unsupported(f"{source}: it gives a number, not probabilities of labels.")


@dataclass(frozen=True)
class HeadPlan:
    """What follows the transformer, in this order: pool, ``dense``, cut to ``dimensions``,
    normalise. ``prefix`` and ``left_padded`` as for ``pool``."""

    pooling: str
    normalized: bool = False
    features: bool = False
    prefix: int = 1
    left_padded: bool = False
    dense: tuple[Dense, ...] = ()
    dimensions: int | None = None


class Head(torch.nn.Module):
    """Features ``(batch, tokens, dim)`` -> the encoder's outputs, always in float32."""

    def __init__(self, plan: HeadPlan) -> None:
        super().__init__()
        self.plan = plan
        self.dense = torch.nn.Sequential(*plan.dense)

    def forward(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
        sizes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """*pooled*: the model's own vector, which pooling ``pooler`` puts out. *sizes*: as for
        ``pool``."""
        plan, hidden = self.plan, hidden.float()
        if plan.pooling == "none":
            return (hidden,)
        if pooled is not None:
            vector = pooled.float()
        else:
            vector = pool(hidden, mask, plan.pooling, plan.prefix, plan.left_padded, sizes)
        vector = self.dense(vector)
        if plan.dimensions is not None:
            vector = vector[:, : plan.dimensions]
        if plan.normalized:
            vector = normalize(vector)
        return (vector, hidden) if plan.features else (vector,)

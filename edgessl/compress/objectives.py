"""What a student is taught: how far what it makes of a batch is from what its teacher makes of it.

``embedding``: the vectors. ``similarity``: which items are near which. ``hidden``: the stream after
each layer. ``attention`` and ``tokens``: how tokens relate to each other. ``masked``: the stream,
where both see few of the patches. ``logits``: a classifier's answer. None needs labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cosine_similarity, kl_div, normalize

from edgessl.errors import RecipeError, nearest

Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # query, key, value
Real = torch.Tensor | None  # bool (items, tokens): which tokens are no padding; None: every one
Pairs = Callable[[int, int], list[tuple[int, int]]]

RELATION_HEADS = 12
TEMPERATURE = 2.0
KEPT = 0.25  # of the patches, for ``masked``
_DEPTH = 0.75  # of the teacher: its last layers serve what it was pretrained for
_NEVER = -1e4  # a score that softmax makes 0, and of which differences are finite
_TINY = 1e-30


@dataclass(frozen=True)
class Objective:
    """``needs``: of student and teacher, ``vector`` ``(items, dim)``; ``hidden``, the stream
    ``(items, tokens, width)`` after a layer; or ``projections``, a layer's queries, keys and values.
    ``loss``: of one of them, student and teacher. ``equal``: they have to be of equal width.
    ``pairs``: (student's layers, teacher's) -> which of its layers learns from which. ``partial``:
    both see ``KEPT`` of the patches."""

    needs: str
    loss: Callable[[Any, Any, Real], torch.Tensor]
    pairs: Pairs = lambda student, teacher: []
    equal: bool = False
    partial: bool = False


def read(given: Sequence[str]) -> dict[str, float]:
    """``name=weight`` or ``name``, which is 1 -> weights by name.

    Raises:
        RecipeError: an unknown name, or a weight that is no number above 0.
    """
    weights: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in OBJECTIVES:
            raise RecipeError(
                f"unknown objective {name!r}.{nearest(name, OBJECTIVES)} "
                f"Known: {', '.join(OBJECTIVES)}."
            )
        try:
            weight = float(number or 1)
        except ValueError:
            weight = -1.0
        if not 0 < weight < math.inf:
            raise RecipeError(f"objective {text!r}: the weight should be a number above 0.")
        weights[name] = weight
    if not weights:
        raise RecipeError(f"no objective; known: {', '.join(OBJECTIVES)}.")
    return weights


def embedding(student: torch.Tensor, teacher: torch.Tensor, _: Real = None) -> torch.Tensor:
    """1 - cosine, and the squared distance as a share of the teacher's squared length.

    Args:
        student, teacher: ``(items, dim)``.
    """
    near = cosine_similarity(student, teacher, dim=-1).mean()
    return 1 - near + _apart(student, teacher)


def similarity(student: torch.Tensor, teacher: torch.Tensor, _: Real = None) -> torch.Tensor:
    """The mean squared difference of the items' cosines to each other: relational distillation (Park
    et al., CVPR 2019) in the form of Tung & Mori (ICCV 2019), with angles in place of distances.

    Args:
        student, teacher: ``(items, dim)``, dims may differ.
    """
    gaps = [
        normalize(vectors, dim=-1) @ normalize(vectors, dim=-1).T for vectors in (student, teacher)
    ]
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    return (gaps[0] - gaps[1])[others].square().sum() / max(1, int(others.sum()))


def hidden(student: torch.Tensor, teacher: torch.Tensor, real: Real = None) -> torch.Tensor:
    """The squared distance of the streams as a share of the teacher's squared length: TinyBERT's
    (Jiao et al., EMNLP Findings 2020), of the same size whatever the layer.

    Args:
        student, teacher: ``(items, tokens, width)``.
    """
    if real is None:
        return _apart(student.flatten(0, 1), teacher.flatten(0, 1))
    return _apart(student[real], teacher[real])


def attention(student: Projections, teacher: Projections, real: Real = None) -> torch.Tensor:
    """Relations among queries, among keys and among values: MiniLMv2 (Wang et al., ACL Findings
    2021).

    Args:
        student, teacher: each ``(items, tokens, width)``; cut into relation heads anew, so that
            the heads of the two may differ in number and size.
    """
    kinds = [(part, part) for part in range(3)]
    return _relations(student, teacher, kinds, real)


def tokens(student: Projections, teacher: Projections, real: Real = None) -> torch.Tensor:
    """Relations of queries to keys and among values: TinyMIM (Ren et al., CVPR 2023).

    Args:
        student, teacher: as for ``attention``.
    """
    return _relations(student, teacher, [(0, 1), (2, 2)], real)


def logits(student: torch.Tensor, teacher: torch.Tensor, _: Real = None) -> torch.Tensor:
    """KL divergence of a classifier's answers at ``TEMPERATURE``, times its square (Hinton et al.,
    2015).

    Args:
        student, teacher: probabilities ``(items, classes)`` that sum to 1; their logarithms are the
            logits, up to a constant.
    """
    said, wanted = (
        (chances.clamp(min=_TINY).log() / TEMPERATURE).log_softmax(-1)
        for chances in (student, teacher)
    )
    return kl_div(said, wanted, reduction="batchmean", log_target=True) * TEMPERATURE**2


def evenly(student: int, teacher: int) -> list[tuple[int, int]]:
    """Last layers together, the others evenly spread."""
    return [(layer, (layer + 1) * teacher // student - 1) for layer in range(student)]


def last(student: int, teacher: int) -> list[tuple[int, int]]:
    return [(student - 1, teacher - 1)]


def deep(student: int, teacher: int) -> list[tuple[int, int]]:
    """The student's last from a layer at ``_DEPTH`` of the teacher."""
    return [(student - 1, math.ceil(teacher * _DEPTH) - 1)]


def both_deep(student: int, teacher: int) -> list[tuple[int, int]]:
    """At ``_DEPTH`` of both."""
    return [(math.ceil(student * _DEPTH) - 1, math.ceil(teacher * _DEPTH) - 1)]


OBJECTIVES: Mapping[str, Objective] = {
    "embedding": Objective("vector", embedding, equal=True),
    "similarity": Objective("vector", similarity),
    "hidden": Objective("hidden", hidden, evenly, equal=True),
    "attention": Objective("projections", attention, last),
    "tokens": Objective("projections", tokens, deep),
    # DMAE (Bai et al., CVPR 2023)
    "masked": Objective("hidden", hidden, both_deep, equal=True, partial=True),
    "logits": Objective("vector", logits),
}


def _apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student - teacher).square().sum() / teacher.square().sum().clamp(min=_TINY)


def _relations(
    student: Projections,
    teacher: Projections,
    kinds: Sequence[tuple[int, int]],
    real: Real,
) -> torch.Tensor:
    """The mean over *kinds* of the KL divergence of the student's relations from the teacher's, the
    mean over heads and real tokens."""
    shared = math.gcd(*(part.shape[-1] for part in (*student, *teacher)))
    heads = next(n for n in range(min(RELATION_HEADS, shared), 0, -1) if shared % n == 0)
    found = []
    for one, other in kinds:
        said, wanted = (
            relation(seen[one], seen[other], heads, real) for seen in (student, teacher)
        )
        gaps = kl_div(said, wanted, reduction="none", log_target=True).sum(-1).mean(1)
        found.append(gaps.mean() if real is None else gaps[real].mean())
    return torch.stack(found).mean()


def relation(rows: torch.Tensor, columns: torch.Tensor, heads: int, real: Real) -> torch.Tensor:
    """How each token looks at the others: the logarithm of the softmax of scaled products.

    Args:
        rows, columns: ``(items, tokens, width)``.

    Returns:
        ``(items, heads, tokens, tokens)``.
    """
    first, second = (
        part.reshape(*part.shape[:-1], heads, -1).transpose(1, 2) for part in (rows, columns)
    )
    scores: torch.Tensor = first @ second.transpose(2, 3) / math.sqrt(first.shape[-1])
    if real is not None:
        scores = scores.masked_fill(~real[:, None, None, :], _NEVER)
    return scores.float().log_softmax(-1)

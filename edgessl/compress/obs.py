"""Which heads and channels go first, and what each costs: Optimal Brain Surgeon, in groups.

Hassibi and Stork (1993); for structures as in ZipLM (Kurtic et al., NeurIPS 2023): what is removed
is made up for, as well as a linear map can, by the weights of those that stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgessl.compress.fisher import Part

_DAMPING = 1e-2  # of the mean of the diagonal
_FLAT = 1e-3  # of the metric's, so that its square root exists
_STEPS = 1024  # in which a part is taken apart, at most
_COMPACT = 0.75


@dataclass(frozen=True)
class Removal:
    """``order``: groups, the first to go first; the last one is never removed. ``errors[k]``: what
    it costs when the first k of them are gone; ``errors[0]`` is 0."""

    order: tuple[int, ...]
    errors: tuple[float, ...]

    def kept(self, count: int) -> list[int]:
        """The groups that stay, when so many do, in their old order."""
        return sorted(set(range(len(self.errors))) - set(self.order[: len(self.errors) - count]))


def removal(part: Part, weight: torch.Tensor, size: int) -> Removal:
    """Take *part* apart group by group, each time what costs least (greedily).

    Args:
        weight: ``(out, in)``, of the linear layer that ``part`` is of.
        size: neighbouring inputs that go together: a head's, or 1.
    """
    count = weight.shape[1] // size
    eye = torch.eye(len(part.gram), dtype=torch.float64)
    gram = part.gram + eye * (_DAMPING * part.gram.diagonal().mean()).clamp(min=1e-12)
    inverse = torch.linalg.inv(gram).float()
    left = weight.detach().T.double() @ _root(part.metric)
    left = left.float()
    alive = torch.arange(count)
    step = max(1, count // _STEPS)
    order: list[int] = []
    errors = [0.0]
    present = torch.ones(count, dtype=torch.bool)
    while len(order) < count - 1:
        groups = len(alive)
        blocks = inverse.view(groups, size, groups, size).diagonal(dim1=0, dim2=2)
        blocks = blocks.permute(2, 0, 1)
        rows = left.view(groups, size, -1)
        solved = torch.linalg.solve(blocks, rows) if size > 1 else rows / blocks
        scores = (rows * solved).sum((1, 2))
        scores[~present] = float("inf")
        some = min(step, count - 1 - len(order))
        gone = scores.topk(some, largest=False).indices
        columns = (gone[:, None] * size + torch.arange(size)).flatten()
        order += alive[gone].tolist()
        total = errors[-1]
        errors += [total + float(score) for score in scores[gone].clamp(min=0).cumsum(0)]
        update = inverse[:, columns] @ torch.linalg.inv(inverse[columns][:, columns])
        left = left - update @ left[columns]
        inverse = inverse - update @ inverse[columns]
        present[gone] = False
        # what is gone keeps a harmless place until there is enough to close the ranks
        inverse[columns, columns] = 1.0
        if present.sum() < _COMPACT * groups:
            stay = present.nonzero().flatten()
            rows_left = (stay[:, None] * size + torch.arange(size)).flatten()
            inverse, left = inverse[rows_left][:, rows_left].contiguous(), left[rows_left]
            alive, present = alive[stay], torch.ones(len(stay), dtype=torch.bool)
    return Removal(tuple(order), tuple(errors))


def _root(metric: torch.Tensor) -> torch.Tensor:
    """L with L L^T = metric."""
    floor = (_FLAT * metric.diagonal().mean()).clamp(min=1e-12)
    eye = torch.eye(len(metric), dtype=torch.float64)
    root: torch.Tensor = torch.linalg.cholesky(metric + eye * floor)
    return root

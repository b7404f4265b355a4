"""An encoder with fewer heads and channels as a checkpoint: which of its tensors are others now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edgessl.errors import Unsupported
from edgessl.sizes import Sizes

Kept = Sequence[tuple[Sequence[int], Sequence[int]]]  # heads and channels, of each layer


def tensors(
    old: Mapping[str, torch.Tensor], whole: torch.nn.Module, small: torch.nn.Module
) -> dict[str, torch.Tensor]:
    """The tensors *old* of a checkpoint, with those that are others in *small*, in their old dtypes.

    Args:
        whole: the backbone that was read from them.
        small: its copy, changed.

    Raises:
        Unsupported: a parameter that is not among *old*, as it was and by its name there.
    """
    before, after = named(whole), named(small)
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    if not changed:
        return dict(old)
    prefix = _prefix(old, {name: before[name] for name in changed})
    new = {prefix + name: after[name].to(old[prefix + name].dtype) for name in changed}
    return {**old, **new}


def sizes(before: Sizes | None, kept: Kept) -> Sizes:
    """Of what is *kept* of layers that had the sizes *before*."""
    heads = [
        tuple(before.heads[layer][head] for head in some) if before else tuple(some)
        for layer, (some, _) in enumerate(kept)
    ]
    width = before.width if before else None
    return Sizes(tuple(heads), tuple(len(channels) for _, channels in kept), width)


def named(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """By the names that transformers gives them in a file (it has renamed and split some)."""
    from transformers.core_model_loading import revert_weight_conversion

    found: dict[str, torch.Tensor] = revert_weight_conversion(module, module.state_dict())  # type: ignore[arg-type]
    return found


def _prefix(old: Mapping[str, torch.Tensor], named: Mapping[str, torch.Tensor]) -> str:
    """What the names in *old* begin with: another in a model with a head than in a backbone."""
    first = next(iter(named))
    ends = [name[: -len(first)] for name in old if f".{name}".endswith(f".{first}")]
    for prefix in ends:
        if all(
            (stored := old.get(prefix + name)) is not None
            and torch.equal(stored.to(tensor.dtype), tensor)
            for name, tensor in named.items()
        ):
            return prefix
    raise Unsupported(
        f"its weights do not have {first} and the like by the names that they should."
    )

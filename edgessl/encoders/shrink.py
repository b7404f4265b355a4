"""Take heads and channels out of a layer, in place: its matrices are smaller afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edgessl.encoders.structures import Layer
from edgessl.errors import RecipeError

# What attention modules know of themselves and use.
_HEADS = ("num_attention_heads", "num_heads", "n_heads")
_WIDTHS = ("all_head_size",)
_TABLE = "relative_position_bias_table"  # (distances, heads), where each layer has its own


def shrink(layer: Layer, heads: Sequence[int], channels: Sequence[int]) -> dict[str, torch.Tensor]:
    """Keep these heads and channels of *layer*, in this order.

    Returns:
        of the linear layers that read the stream, by their path: which outputs are kept.

    Raises:
        RecipeError: none of either, or one that the layer does not have.
    """
    _check("head", heads, layer.heads)
    _check("channel", channels, layer.channels)
    names = layer.names
    keys = _rows(heads, layer.head_dim)
    looking = _rows(heads, layer.queries).tolist()  # query heads
    queries = _rows(looking, layer.head_dim)
    _keep_biases(layer, looking)
    attention = layer.attention
    for name in _HEADS:
        if hasattr(attention, name):
            setattr(attention, name, len(looking))
    for name in _WIDTHS:
        if hasattr(attention, name):
            setattr(attention, name, len(queries))
    index = torch.tensor(list(channels), device="cpu")
    readers = {names.query: queries, names.key: keys, names.value: keys}
    readers |= dict.fromkeys(names.up, index)
    for name, rows in readers.items():
        _keep_outputs(layer.linear(name), rows)
    _keep_inputs(layer.linear(names.out), queries)
    _keep_inputs(layer.linear(names.down), index)
    return readers


def _check(what: str, kept: Sequence[int], count: int) -> None:
    if not kept:
        raise RecipeError(f"a layer keeps one {what} at least.")
    if absent := [number for number in kept if not 0 <= number < count]:
        raise RecipeError(f"there is no {what} {absent[0]}: the layer has {count}.")


def _rows(groups: Sequence[int], size: int) -> torch.Tensor:
    found = [group * size + place for group in groups for place in range(size)]
    return torch.tensor(found, device="cpu")  # whatever the device is on which modules are made


def _keep_biases(layer: Layer, heads: Sequence[int]) -> None:
    """Of what is added to the scores of each head: the layer's own table, or what it is given."""
    for part in layer.module.modules():
        table = getattr(part, _TABLE, None)
        if table is not None:
            setattr(part, _TABLE, torch.nn.Parameter(table.detach()[:, list(heads)].clone()))
    if not layer.names.shared_bias:
        return
    whole, kept = layer.heads * layer.queries, list(heads)

    def own(value: Any) -> Any:
        by_head = isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[1] == whole
        return value[:, kept] if by_head else value

    def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(map(own, args)), {name: own(value) for name, value in kwargs.items()}

    layer.module.register_forward_pre_hook(hook, with_kwargs=True)


def _keep_outputs(linear: torch.nn.Linear, index: torch.Tensor) -> None:
    linear.weight = torch.nn.Parameter(linear.weight.detach()[index].clone())
    if linear.bias is not None:
        linear.bias = torch.nn.Parameter(linear.bias.detach()[index].clone())
    linear.out_features = len(index)


def _keep_inputs(linear: torch.nn.Linear, index: torch.Tensor) -> None:
    linear.weight = torch.nn.Parameter(linear.weight.detach()[:, index].clone())
    linear.in_features = len(index)


def shrink_stream(backbone: torch.nn.Module, layers: Sequence[Layer], kept: Sequence[int]) -> None:
    """Keep these dimensions, in place, in every parameter that has an axis for them: the outputs and
    inputs of linear layers, the outputs of patch projections, and the last axis of all else
    (tables, tokens, positions, normalisations, layer scales); but for the axes inside a layer, of
    heads and channels.

    Raises:
        RecipeError: none, or more than there are.
    """
    size, index = layers[0].width, torch.as_tensor(list(kept))
    if not kept or not 0 <= min(kept) <= max(kept) < size:
        raise RecipeError(f"the stream has {size} dimensions: keep some of them.")
    inner = {
        (layer.linear(name), axis)
        for layer in layers
        for names, axis in (
            ((layer.names.query, layer.names.key, layer.names.value, *layer.names.up), 0),
            ((layer.names.out, layer.names.down), 1),
        )
        for name in names
    }
    for module in backbone.modules():
        for name, tensor in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]:
            new = tensor.detach()
            for axis in _axes(module, tensor):
                outside = (module, axis) not in inner
                if outside and tensor.is_floating_point() and tensor.shape[axis] == size:
                    new = new.index_select(axis, index.to(new.device))
            if new.shape != tensor.shape:
                parameter = isinstance(tensor, torch.nn.Parameter)
                setattr(module, name, torch.nn.Parameter(new) if parameter else new)
        _say(module, size, len(index))


def _axes(module: torch.nn.Module, tensor: torch.Tensor) -> tuple[int, ...]:
    if isinstance(module, torch.nn.Linear):
        return tuple(range(tensor.ndim))
    if isinstance(module, torch.nn.Conv2d):
        return (0,)
    return (tensor.ndim - 1,) if tensor.ndim else ()


def _say(module: torch.nn.Module, old: int, new: int) -> None:
    """What modules know of their own sizes."""
    if isinstance(module, torch.nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, torch.nn.Conv2d):
        module.out_channels = module.weight.shape[0]
    elif isinstance(module, torch.nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, torch.nn.LayerNorm) and module.normalized_shape == (old,):
        module.normalized_shape = (new,)

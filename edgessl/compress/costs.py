"""What a transformer layer costs by its size: in operations, parameters, or measured seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgessl.encoders.structures import Layer

STEP = 32  # channels: what the kernels of the targets like; fewer are padded there


@dataclass(frozen=True)
class Costs:
    """``heads``, ``channels``: how many a layer keeps -> cost of its attention, and of its
    feed-forward part; the keys are the sizes to choose from, the whole size among them. Layers are
    alike. ``fixed``: of all that is not pruned, of the whole encoder."""

    unit: str
    fixed: float
    heads: Mapping[int, float]
    channels: Mapping[int, float]

    def total(self, heads: list[int], channels: list[int]) -> float:
        """Of an encoder whose layers have these sizes."""
        parts = [self.heads[n] for n in heads] + [self.channels[n] for n in channels]
        return self.fixed + sum(parts)


def flops(layers: Sequence[Layer], tokens: int, whole: int) -> Costs:
    """Floating-point operations, 2 a multiply-add, of one item of *tokens* tokens.

    Args:
        whole: of the whole encoder, as ``edgessl.encoders.run.compute`` counts them.
    """

    def head(layer: Layer) -> int:
        projections = 2 * tokens * _weights_of_a_head(layer)
        return projections + 2 * 2 * tokens * tokens * layer.context  # scores, weighted values

    def channel(layer: Layer) -> int:
        return 2 * tokens * _weights_of_a_channel(layer)

    return _by_size("FLOPs", layers, head, channel, whole)


def parameters(layers: Sequence[Layer], whole: int) -> Costs:
    """Weights of *layers*, of *whole* in all; biases are taken for none."""
    return _by_size("parameters", layers, _weights_of_a_head, _weights_of_a_channel, whole)


def sizes(layer: Layer) -> tuple[list[int], list[int]]:
    """Heads and channels to choose from: any number, and multiples of what kernels like."""
    steps = {*range(STEP, layer.channels, STEP), layer.channels}
    return list(range(1, layer.heads + 1)), sorted(steps)


def _by_size(
    unit: str,
    layers: Sequence[Layer],
    head: Callable[[Layer], int],
    channel: Callable[[Layer], int],
    whole: int,
) -> Costs:
    layer = layers[0]
    heads, channels = sizes(layer)
    most = layer.heads * head(layer) + layer.channels * channel(layer)
    return Costs(
        unit,
        float(whole - len(layers) * most),
        {count: float(count * head(layer)) for count in heads},
        {count: float(count * channel(layer)) for count in channels},
    )


def _weights_of_a_head(layer: Layer) -> int:
    width = layer.linear(layer.names.out).out_features
    return 2 * width * (layer.context + layer.head_dim)  # query and output; key and value


def _weights_of_a_channel(layer: Layer) -> int:
    return layer.linear(layer.names.down).out_features * (len(layer.names.up) + 1)

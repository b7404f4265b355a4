"""The operators of an ONNX graph that int8 kernels can take, and what stands around them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

    from edgessl.calibrate.splitting import Split

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Operator:
    """A matrix product or convolution of an activation tensor with constant weights.

    ``activations`` and ``output`` are tensors, ``weight`` is an initializer: float32 ``(K, N)``,
    ``(N, K)`` where ``transposed``, or of a Conv ``(N, C, kernel...)``. ``bias`` is the
    initializer that is added to the product, ``adder`` the node that adds it (a Gemm and a Conv
    do it themselves), and ``output`` comes after it.
    """

    node: str
    kind: str
    layer: str
    activations: str
    weight: str
    output: str
    bias: str | None = None
    adder: str | None = None
    transposed: bool = False


class Graph:
    """An fp32 ONNX graph with its neighbourhoods."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.nodes = {node.name: node for node in graph.node}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.outputs = {value.name for value in graph.output}
        self.inputs = {value.name for value in graph.input}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.splits: dict[str, Split] = {}  # by activation tensor; see splitting.py

    def array(self, name: str) -> Array | None:
        """The initializer *name*, or None."""
        from onnx import numpy_helper

        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def weight(self, operator: Operator) -> npt.NDArray[np.float32]:
        """Its weights as ``(K, N)``, with rows for split channels; of a Conv ``(C * kernel, N)``."""
        weight = self.array(operator.weight)
        if weight is None:
            raise KeyError(operator.weight)
        if operator.kind == "Conv":
            return weight.reshape(len(weight), -1).T
        split = self.splits.get(operator.activations)
        weight = weight.T if operator.transposed else weight
        return weight if split is None else split.rows(weight)

    @cached_property
    def operators(self) -> list[Operator]:
        """All of them, in graph order."""
        found = (self._operator(node) for node in self.model.graph.node)
        return [operator for operator in found if operator is not None]

    def _operator(self, node: onnx.NodeProto) -> Operator | None:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or not node.name:
            return None
        weight = self._tensors.get(node.input[1])
        wrong_rank = weight is None or (node.op_type != "Conv" and len(weight.dims) != 2)
        if weight is None or wrong_rank or weight.data_type != 1 or node.input[0] in self._tensors:
            return None
        output, bias, adder, transposed = node.output[0], None, None, False
        if node.op_type == "MatMul":
            bias, adder, output = self._bias(output, int(weight.dims[1]))
        else:
            attributes = {a.name: a for a in node.attribute}
            if node.op_type == "Gemm":
                plain = all(attributes[n].f == 1 for n in ("alpha", "beta") if n in attributes)
                if not plain or ("transA" in attributes and attributes["transA"].i):
                    return None
                transposed = "transB" in attributes and bool(attributes["transB"].i)
            elif not self._worthwhile(node, attributes):
                return None
            if len(node.input) > 2 and node.input[2]:
                if node.input[2] not in self._tensors:
                    return None
                bias, adder = node.input[2], node.name
        layer = _layer(bias) or _layer(node.input[1]) or node.name
        return Operator(
            node.name,
            node.op_type,
            layer,
            node.input[0],
            node.input[1],
            output,
            bias,
            adder,
            transposed,
        )

    def _bias(self, product: str, width: int) -> tuple[str | None, str | None, str]:
        """The bias that is added to *product*, the node that does it, and its output."""
        readers = self.readers[product]
        if len(readers) == 1 and readers[0].op_type == "Add" and product not in self.outputs:
            other = [name for name in readers[0].input if name != product]
            tensor = self._tensors.get(other[0]) if len(other) == 1 else None
            if tensor is not None and list(tensor.dims) == [width]:
                return other[0], readers[0].name, str(readers[0].output[0])
        return None, None, product

    def _worthwhile(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> bool:
        """Convolutions of pixels or samples have too few channels for int8 kernels to gain, and
        their error reaches everything behind them; of depthwise ones the arithmetic is nothing."""
        groups = attributes["group"].i if "group" in attributes else 1
        return groups == 1 and self._tensors[node.input[1]].dims[1] >= 16

    def normalization_behind(self, operator: Operator) -> Any:
        """The LayerNormalization node that reads the operator's output, alone or with a residual;
        or None."""
        name = operator.output
        for _ in range(2):
            for reader in self.readers[name]:
                if reader.op_type == "LayerNormalization" and reader.input[0] == name:
                    return reader
            sums = [reader for reader in self.readers[name] if reader.op_type == "Add"]
            if len(sums) != 1:
                return None
            name = sums[0].output[0]
        return None

    def groups(self, operators: Sequence[Operator]) -> list[list[Operator]]:
        """Of *operators*, those that share activations or weights, and therefore smoothing."""
        groups: list[list[Operator]] = []
        for operator in operators:
            same = [
                group
                for group in groups
                if any(
                    other.activations == operator.activations or other.weight == operator.weight
                    for other in group
                )
            ]
            for group in same:
                groups.remove(group)
            groups.append([*(o for group in same for o in group), operator])
        return groups

    def shared(self) -> Counter[str]:
        """How many operators read each weight."""
        return Counter(operator.weight for operator in self.operators)


def _layer(initializer: str | None) -> str | None:
    """The torch module that an initializer's name tells of."""
    if initializer is None or "." not in initializer:
        return None
    return initializer.rpartition(".")[0].removeprefix("backbone.")

"""Q/DQ graphs for the tests of int8, a tensor at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """Q/DQ graphs, a tensor at a time."""

    def __init__(self, **inputs: list[Any]) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ]

    def constant(self, array: Any) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, **options: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"n_{output}", **options))
        return output

    def quantize(self, x: str, scale: float, zero: Any) -> str:
        parameters = self.constant(np.float32(scale)), self.constant(zero)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *parameters), *parameters)

    def weights(self, array: Array, axis: int, scale: float = 1.0) -> str:
        scales = self.constant(np.full(array.shape[axis], scale, np.float32))
        zeros = self.constant(np.zeros(array.shape[axis], np.int8))
        return self.add("DequantizeLinear", self.constant(array), scales, zeros, axis=axis)

    def model(self, *outputs: str) -> Any:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ZERO_POINTS = [np.uint8(0), np.uint8(117), np.int8(0)]
LIMITS = {np.uint8: (0, 256), np.int8: (-128, 128)}


def stored(shape: tuple[int, ...], zero: Any, seed: int = 1) -> Array:
    """Integers of the zero point's type, over all of its range."""
    drawn = np.random.default_rng(seed).integers(*LIMITS[type(zero)], shape)
    return drawn.astype(zero.dtype)


def full_range(*shape: int) -> Array:
    return np.random.default_rng(2).integers(-127, 128, shape).astype(np.int8)


def run(model: Any, feed: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, feed), strict=True))

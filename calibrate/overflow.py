"""Which operators of an fp32 ONNX do not fit into fp16, seen over real inputs.

fp16 ends at 65,504 and loses digits below 6.1e-5; T5-like encoders pass the upper end in their
feed-forward layers and residual sums. What is found goes into ``keep`` of
``edgessl.export.half.convert``. bf16 has fp32's range: nothing overflows there, and what its 8
bits of mantissa cost is a question for a parity check, not for ranges.

Every fp32 value gets an Abs and a ReduceMax, so that a run puts out one number a value and
holds no more memory than the encoder itself does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import takewhile
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from edgessl.backend import Arrays
from edgessl.errors import RecipeError, Unsupported, first_line, nearest, require

if TYPE_CHECKING:
    import onnx

# dtype -> largest finite value, smallest value with all its digits
RANGES = {"fp16": (65504.0, 2.0**-14), "bf16": (3.3895313892515355e38, 2.0**-126)}
_MASKED = 1e30  # beyond it: the fill of an attention mask, not something computed
_PREFIX = "overflow_"


@dataclass(frozen=True)
class Overflow:
    """A node whose output, or a constant of which, does not fit.

    ``kind`` is ``overflow`` (a value beyond the range, or within the margin of it), ``weight``
    (a constant is) or ``underflow`` (every value is so small that digits are lost).
    ``largest`` is the largest absolute value seen.
    """

    node: str
    operator: str
    layer: str  # the torch module, "" where no parameter is near
    kind: str
    largest: float

    def __str__(self) -> str:
        where = self.layer or self.node
        return f"{where} ({self.operator} {self.node}): {self.kind}, up to {self.largest:.3g}"


def find(
    model: onnx.ModelProto | str | PathLike[str],
    feeds: Iterable[Arrays],
    dtype: str = "fp16",
    margin: float = 4.0,
    ignore: Collection[str] = (),
) -> list[Overflow]:
    """Name the nodes of an fp32 ONNX that need more range than *dtype* has, in graph order.

    Args:
        model: the graph, or its file; left as it is.
        feeds: the graph's inputs, a dict a batch.
        dtype: ``fp16`` or ``bf16``.
        margin: overflow is reported from 1/*margin* of the range on: other inputs will go
            further than these.
        ignore: names of nodes that stay fp32 in any case, outputs and all, as
            ``edgessl.export.half.never_rounded`` gives them.

    Values of constants and of masks are not reported, nor the infinities and fills (beyond
    1e30) that masks put into scores. A score with such a fill is measured without it.

    Raises:
        MissingDependency: onnx or onnxruntime is not installed.
        RecipeError: an unknown dtype, a margin below 1, or no feeds.
        Unsupported: ONNX Runtime cannot run the graph on these feeds.
    """
    onnx = require("onnx", "compress", "looking for overflow")
    if dtype not in RANGES:
        raise RecipeError(
            f"no half precision {dtype!r}.{nearest(dtype, RANGES)} Known: fp16, bf16."
        )
    if not margin >= 1:
        raise RecipeError(f"margin {margin}: must be 1 or more.")
    loaded = onnx.load(str(model)) if isinstance(model, (str, PathLike)) else model
    graph = loaded.graph
    seen = _run(loaded, _observed(loaded, ignore), feeds)
    limit, smallest = RANGES[dtype][0] / margin, RANGES[dtype][1]
    weights = _weights(graph, limit, smallest)
    found = []
    for node, layer in zip(graph.node, _layers(graph), strict=True):
        problem = _problem(node, seen, weights, limit, smallest)
        if problem is not None and node.name not in ignore:
            found.append(Overflow(node.name, node.op_type, layer, *problem))
    return found


def _problem(
    node: onnx.NodeProto,
    seen: dict[str, float],
    weights: dict[str, tuple[str, float]],
    limit: float,
    smallest: float,
) -> tuple[str, float] | None:
    largest = max((seen[name] for name in node.output if name in seen), default=0.0)
    if largest > limit:
        return "overflow", largest
    if 0 < largest < smallest:
        return "underflow", largest
    return next((weights[name] for name in node.input if name in weights), None)


def _observed(model: onnx.ModelProto, ignore: Collection[str]) -> list[str]:
    """Names of the fp32 values that come, at least in part, from data or from a table."""
    from onnx import TensorProto, shape_inference

    graph = model.graph
    try:
        inferred = shape_inference.infer_shapes(_without_weights(model)).graph
    except shape_inference.InferenceError as err:
        raise Unsupported(f"looking for overflow: types unknown: {first_line(err)}") from err
    floats = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    data = {v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    observed = []
    for node in graph.node:
        table = node.op_type == "Gather" and constants.get(node.input[0]) == TensorProto.FLOAT
        dequantized = node.op_type == "DequantizeLinear" and node.input[0] not in constants
        if table or dequantized or any(name in data for name in node.input):
            names = [name for name in node.output if name in floats]
            data.update(names)
            if node.name not in ignore:
                observed += names
    return observed


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its large constants declared and not held: enough for types."""
    import onnx
    from onnx import helper

    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.name = "types"
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= 64:
            bare.graph.initializer.append(tensor)
        else:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            bare.graph.input.append(value)
    return bare


def _run(model: onnx.ModelProto, values: list[str], feeds: Iterable[Arrays]) -> dict[str, float]:
    """The largest absolute value of each of *values* over *feeds*, mask fills left out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ort = require("onnxruntime", "onnx", "looking for overflow")
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    graph = probed.graph
    del graph.output[:]
    # Before opset 18 as after it, ReduceMax without axes is over everything.
    for name, number in (("masked", _MASKED), ("zero", 0.0)):
        graph.initializer.append(
            numpy_helper.from_array(np.array(number, np.float32), _PREFIX + name)
        )
    for number, value in enumerate(values):
        size, fits, kept, top = (
            f"{_PREFIX}{part}_{number}" for part in ("abs", "fits", "kept", "max")
        )
        graph.node.extend(
            [
                helper.make_node("Abs", [value], [size]),
                helper.make_node("Less", [size, _PREFIX + "masked"], [fits]),
                helper.make_node("Where", [fits, size, _PREFIX + "zero"], [kept]),
                helper.make_node("ReduceMax", [kept], [top], keepdims=0),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(top, TensorProto.FLOAT, []))
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    largest = np.zeros(len(values))
    batches = 0
    try:
        session = ort.InferenceSession(
            probed.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        del probed, graph
        for feed in feeds:
            batches += 1
            largest = np.maximum(largest, np.array(session.run(None, feed), np.float64))
    except Exception as err:  # its exception types live in a private module
        raise Unsupported(f"looking for overflow: ONNX Runtime fails: {first_line(err)}") from err
    if not batches:
        raise RecipeError("looking for overflow needs inputs, and there are none.")
    return dict(zip(values, largest.tolist(), strict=True))


def _weights(graph: onnx.GraphProto, limit: float, smallest: float) -> dict[str, tuple[str, float]]:
    """Weights (two dimensions or more) beyond the range, or below it as a whole."""
    from onnx import TensorProto, numpy_helper

    found = {}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        sizes = np.abs(numpy_helper.to_array(tensor))
        largest = float(sizes.max(initial=0.0, where=sizes < _MASKED))
        if largest > limit:
            found[tensor.name] = ("weight", largest)
        elif 0 < largest < smallest:
            found[tensor.name] = ("underflow", largest)
    return found


def _layers(graph: onnx.GraphProto) -> list[str]:
    """For each node, the torch module that it comes from.

    That is the module of its own parameter, or of the bias that is added to it; of a product of
    two computed values what both their modules lie in, of one with a nameless weight what the
    module before it lies in; else the module of the latest value that it reads.
    """
    names = {
        tensor.name: tensor.name.removeprefix("backbone.").rpartition(".")[0]
        for tensor in graph.initializer
    }
    modules = set(names.values())

    def own(node: onnx.NodeProto) -> str:
        return next((names[name] for name in node.input if names.get(name)), "")

    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    layers: list[str] = []
    producers: dict[str, int] = {}
    for node in graph.node:
        layer = own(node)
        sources = [producers[name] for name in node.input if name in producers]
        above = [layers[i] for i in sorted(sources) if layers[i]]
        next_ones = [reader for name in node.output for reader in readers.get(name, ())]
        if not layer and node.op_type in ("MatMul", "Conv") and len(next_ones) == 1:
            layer = own(next_ones[0])
        if not layer and node.op_type == "MatMul" and above:
            parts = zip(above[0].split("."), above[-1].split("."))
            layer = ".".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], parts))
            layer = layer.rpartition(".")[0] if layer in modules else layer
        producers.update(dict.fromkeys(node.output, len(layers)))
        layers.append(layer or (above[-1] if above else ""))
    return layers

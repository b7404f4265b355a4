"""int8 into the graph: QuantizeLinear and DequantizeLinear where a target's kernels fuse them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgessl.calibrate import gptq
from edgessl.calibrate.observe import Observed
from edgessl.calibrate.onnx_edit import add_constants, make_node, select_by_booleans
from edgessl.calibrate.operators import Graph, Operator
from edgessl.calibrate.quantizers import Quantizer
from edgessl.calibrate.splitting import Split

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Weights:
    """int8 ``(K, N)`` and scales ``(N,)`` float32; times the smoothing already."""

    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    @property
    def values(self) -> npt.NDArray[np.float32]:
        return self.codes * self.scale


@dataclass(frozen=True)
class Plan:
    """How *operators* become int8: quantizers and splits by activation tensor, weights by
    initializer; by node what is added to its bias, and its output's signal-to-noise ratio in
    decibels on the calibration data's rows."""

    operators: Sequence[Operator]
    quantizers: Mapping[str, Quantizer]
    weights: Mapping[str, Weights]
    corrections: Mapping[str, npt.NDArray[np.float32]]
    splits: Mapping[str, Split]
    snr: Mapping[str, float]


def plan(
    graph: Graph,
    operators: Sequence[Operator],
    quantizers: Mapping[str, Quantizer],
    seen: Mapping[str, Observed],
    saturating: bool,
) -> Plan:
    """Round the weights and correct the biases to go with *quantizers*."""
    weights = round_weights(graph, operators, quantizers, seen, saturating)
    corrections = bias_corrections(graph, operators, quantizers, weights, seen)
    snr = _signal_to_noise(graph, operators, quantizers, weights, seen)
    return Plan(operators, quantizers, weights, corrections, dict(graph.splits), snr)


def _signal_to_noise(
    graph: Graph,
    operators: Sequence[Operator],
    quantizers: Mapping[str, Quantizer],
    weights: Mapping[str, Weights],
    seen: Mapping[str, Observed],
) -> dict[str, float]:
    """Decibels of each product's variance over that of its error."""
    found = {}
    for operator in operators:
        if operator.kind == "Conv":
            continue
        rows, one = seen[operator.activations].rows, quantizers[operator.activations]
        exact = rows @ graph.weight(operator)
        error = one.inside(rows) @ weights[operator.weight].values - exact
        signal, noise = float(exact.var(axis=0).sum()), float(error.var(axis=0).sum())
        found[operator.node] = 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
    return found


def round_weights(
    graph: Graph,
    operators: Sequence[Operator],
    quantizers: Mapping[str, Quantizer],
    seen: Mapping[str, Observed],
    saturating: bool,
) -> dict[str, Weights]:
    """Each weight that *operators* read, in int8, fitted to what the activations will be."""
    found: dict[str, Weights] = {}
    for operator in operators:
        if operator.weight in found:
            continue
        readers = [other for other in operators if other.weight == operator.weight]
        weights = graph.weight(operator)
        smooth = quantizers[operator.activations].smooth
        if smooth is not None:
            weights = weights * smooth[:, None]
        if operator.kind == "Conv":
            found[operator.weight] = _plain_weights(weights, saturating)
            continue
        grams = [_gram(seen[o.activations], quantizers[o.activations]) for o in readers]
        scale = gptq.scales(weights, saturating)
        codes = gptq.quantize(weights, np.sum(grams, axis=0), scale, saturating)
        found[operator.weight] = Weights(codes, scale)
    return found


def _plain_weights(weights: npt.NDArray[np.float32], saturating: bool) -> Weights:
    """Rounded to nearest. Kernels of convolutions pair channels or pixels, each its own way, so
    where pairs saturate 7 bits are what is safe."""
    top = 63 if saturating else 127
    widest = np.abs(weights).max(axis=0) / top
    scale = np.where(widest > 0, widest, 1).astype(np.float32)
    return Weights(np.rint(weights / scale).astype(np.int8), scale)


def _gram(seen: Observed, one: Quantizer) -> npt.NDArray[np.float64]:
    """The products of channels as the integer product will see them: smoothed, shifted, rounded."""
    if seen.gram is None or seen.total is None:
        raise ValueError("statistics without products of channels")
    gram, total = seen.gram, seen.total
    if one.smooth is not None:
        gram = gram / np.outer(one.smooth, one.smooth)
        total = total / one.smooth
    if one.shift is not None:
        cross = np.outer(total, one.shift)
        gram = gram - cross - cross.T + seen.counted * np.outer(one.shift, one.shift)
    result: npt.NDArray[np.float64] = gram + seen.counted * one.scale**2 / 12 * np.eye(len(gram))
    return result


def bias_corrections(
    graph: Graph,
    operators: Sequence[Operator],
    quantizers: Mapping[str, Quantizer],
    weights: Mapping[str, Weights],
    seen: Mapping[str, Observed],
) -> dict[str, npt.NDArray[np.float32]]:
    """What each operator's output loses on average, and what a shift took from it (Nagel et al.,
    "Data-free quantization through weight equalization and bias correction", ICCV 2019)."""
    found = {}
    for operator in operators:
        if operator.kind == "Conv":
            continue
        rows, one = seen[operator.activations].rows, quantizers[operator.activations]
        split = graph.splits.get(operator.activations)
        mean = rows.mean(axis=0, dtype=np.float64) if split is None else split.mean
        exact = mean @ graph.weight(operator)
        rounded = one.inside(rows).mean(axis=0, dtype=np.float64) @ weights[operator.weight].values
        found[operator.node] = (exact - rounded).astype(np.float32)
    return found


def place(model: onnx.ModelProto, plan: Plan, nodes: Collection[str] | None = None) -> None:
    """Rewrite the fp32 *model* in place: products become those of int8.

    Args:
        nodes: the operators of *plan* to take; None takes all.
    """
    graph = Graph(model)
    chosen = {o.node: o for o in plan.operators if nodes is None or o.node in nodes}
    activations = {operator.activations for operator in chosen.values()}
    # A tensor stays whole where its consumers stay in float: only codes clip the copies.
    splits = {s.producer.node: s for name, s in plan.splits.items() if name in activations}
    weights = {
        o.weight: _widened(plan.weights[o.weight], splits.get(o.node)) for o in chosen.values()
    }
    biases = _biases(graph, chosen, plan, splits)
    adders = {o.adder: o for o in graph.operators if o.adder and o.node in biases}
    for node, split in splits.items():
        if node not in chosen:
            _widen_floats(graph, split)
    proto = model.graph
    placed: dict[str, str] = {}
    rewritten: list[Any] = []
    for node in proto.node:
        operator = chosen.get(node.name)
        if operator is not None:
            name, weight = operator.activations, operator.weight
            if name not in placed:
                placed[name] = _activations(proto, rewritten, name, plan.quantizers[name])
            if weight not in placed:
                placed[weight] = _weights(proto, rewritten, operator, weights[weight])
            node.input[0], node.input[1] = placed[name], placed[weight]
        rewritten.append(node)
        gemm = operator is not None and operator.kind == "Gemm"
        if operator is not None and gemm:  # the kernels fuse MatMul and Add
            node.op_type = "MatMul"
            del node.attribute[:], node.input[2:]
        if node.name in adders and not gemm:
            _set_bias(proto, node, adders[node.name], biases)
        elif operator is not None and operator.node in biases and (gemm or not operator.adder):
            rewritten.append(_append_bias(proto, node, biases[operator.node]))
    del proto.node[:]
    proto.node.extend(rewritten)
    _forget(proto, {name for split in splits.values() for name in split.path}, graph)
    select_by_booleans(proto)


def _widened(weights: Weights, split: Split | None) -> Weights:
    """With the columns that a split behind the operator asks for."""
    if split is None:
        return weights
    return Weights(split.columns(weights.codes), split.columns(weights.scale))


def _widen_floats(graph: Graph, split: Split) -> None:
    """The same for an operator that stays in float."""
    from onnx import numpy_helper

    name = split.producer.weight
    tensor = next(t for t in graph.model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(split.columns(numpy_helper.to_array(tensor)), name))


def _biases(
    graph: Graph,
    chosen: Mapping[str, Operator],
    plan: Plan,
    splits: Mapping[str, Split],
) -> dict[str, npt.NDArray[np.float32]]:
    """New biases by operator: corrected, and as wide as its split."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for operator in graph.operators:
        node = operator.node
        constant = graph.array(operator.bias) if operator.bias else None
        bias = np.zeros(1, np.float32) if constant is None else constant
        if node in chosen and node in plan.corrections:
            found[node] = (bias + plan.corrections[node]).astype(np.float32)
        if node in splits:
            found[node] = splits[node].bias(found.get(node, bias))
    return found


def _forget(proto: Any, widened: set[str], graph: Graph) -> None:
    """Constants that nothing reads now, and the noted shapes of tensors that are wider."""
    read = {name for node in proto.node for name in node.input} | graph.outputs
    for tensor in [t for t in proto.initializer if t.name not in read]:
        proto.initializer.remove(tensor)
    for value in [v for v in proto.value_info if v.name in widened]:
        proto.value_info.remove(value)


def _activations(proto: Any, nodes: list[Any], name: str, one: Quantizer) -> str:
    current = name
    for part, kind, values in (
        ("smooth", "Mul", None if one.smooth is None else 1 / one.smooth),
        ("shift", "Sub", one.shift),
    ):
        if values is not None:
            constants = add_constants(proto, name, {part: values.astype(np.float32)})
            nodes.append(make_node(kind, [current, *constants], f"{name}_{part}", f"{name}_{part}"))
            current = f"{name}_{part}"
    zero = np.int8(0) if one.signed else np.uint8(one.zero_point)
    parts: dict[str, npt.NDArray[Any]] = {
        "scale": np.array(one.scale, np.float32),
        "zero_point": np.array(zero),
    }
    constants = add_constants(proto, name, parts)
    for kind, suffix in (("QuantizeLinear", "q"), ("DequantizeLinear", "dq")):
        output = f"{name}_{suffix}"
        nodes.append(make_node(kind, [current, *constants], output, output))
        current = output
    return current


def _weights(proto: Any, nodes: list[Any], operator: Operator, one: Weights) -> str:
    codes, axis = one.codes, 1
    if operator.kind == "Conv":
        shape = next(t.dims for t in proto.initializer if t.name == operator.weight)
        codes, axis = codes.T.reshape(tuple(shape)), 0
    name = operator.weight
    parts: dict[str, npt.NDArray[Any]] = {
        "int8": codes,
        "int8.scale": one.scale,
        "int8.zero_point": np.zeros_like(one.scale, np.int8),
    }
    constants = add_constants(proto, name, parts)
    nodes.append(make_node("DequantizeLinear", constants, f"{name}_dq", f"{name}_dq", axis=axis))
    return f"{name}_dq"


def _set_bias(
    proto: Any, node: Any, operator: Operator, biases: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    (name,) = add_constants(proto, operator.node, {"bias": biases[operator.node]})
    for position, existing in enumerate(node.input):
        if existing == operator.bias:
            node.input[position] = name


def _append_bias(proto: Any, node: Any, bias: npt.NDArray[np.float32]) -> Any:
    """The operator has no bias: one is added behind it, under its output's old name."""
    output = node.output[0]
    node.output[0] = f"{output}_product"
    (name,) = add_constants(proto, node.name, {"bias": bias})
    return make_node("Add", [f"{output}_product", name], output, f"{node.name}_bias")

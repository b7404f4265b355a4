"""A Q/DQ model as a sequence of int8 operators and of what lies between them.

The pieces between run in ONNX Runtime, as they are, so that only the operators differ.
"""

from __future__ import annotations

from typing import Any

from edgessl.backend import Arrays
from edgessl.calibrate.int8_operators import Operator, Product, operator, product, stays_float
from edgessl.errors import RecipeError, first_line, require


class Floats:
    """Nodes that ONNX Runtime runs together."""

    def __init__(self, model: Any, nodes: list[Any], outputs: list[str]) -> None:
        made = {name for node in nodes for name in node.output}
        known = {tensor.name for tensor in model.graph.initializer}
        used = {name for node in nodes for name in reads(node)}
        self._model, self._nodes, self._outputs = model, nodes, outputs
        self._inputs = sorted(used - made - known)
        self._constants = used & known
        self._session: Any = None

    def run(self, values: Arrays) -> None:
        """Take the inputs from *values* and put the outputs there."""
        feed = {name: values[name] for name in self._inputs}
        try:
            if self._session is None:  # now the inputs' types are known
                self._session = self._open(feed)
            values.update(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as err:  # onnxruntime's exception types live in a private module
            raise RecipeError(
                f"ONNX Runtime cannot run this model on these inputs: {first_line(err)}."
            ) from err

    def _open(self, feed: Arrays) -> Any:
        onnx, ort = require("onnx", "compress", "int8"), require("onnxruntime", "onnx", "int8")
        types = onnx.helper.np_dtype_to_tensor_dtype
        graph = onnx.helper.make_graph(
            self._nodes,
            "between",
            [
                onnx.helper.make_tensor_value_info(name, types(array.dtype), [None] * array.ndim)
                for name, array in feed.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in self._outputs],
            [tensor for tensor in self._model.graph.initializer if tensor.name in self._constants],
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=self._model.opset_import,
            functions=self._model.functions,
            ir_version=self._model.ir_version,
        )
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        # what is left in integers must be exact on the machine at hand, too
        settings.add_session_config_entry("session.x64quantprecision", "1")
        return ort.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )


def plan(model: Any, target: str, every: bool = False) -> list[Floats | Operator | Product]:
    """The steps that compute a model on *target*, ``onnx`` or ``openvino``.

    A ``Product`` is one on OpenVINO; ONNX Runtime's are exact. *every*: also the operators that
    ONNX Runtime would leave in float.

    Raises:
        RecipeError: a node reads what nothing makes.
    """
    constants = _constants(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    steps: list[Any] = []
    for node in model.graph.node:
        found = operator(node, makers, constants)
        if target == "openvino":
            steps.append(found or product(node, makers, constants) or node)
            continue
        float_here = found and not every and stays_float(node, found.signed, makers, readers)
        steps.append(node if float_here else found or node)
    outputs = {value.name for value in model.graph.output}
    steps = _needed(steps, outputs)
    there = {value.name for value in model.graph.input} | {""}
    there |= {tensor.name for tensor in model.graph.initializer}
    groups: list[list[Any]] = []
    while steps:
        before = len(steps)
        # everything that can run in floats, then every operator that can
        for wanted in (False, True):
            group, later = [], []
            for step in steps:
                if isinstance(step, (Operator, Product)) == wanted and reads(step) <= there:
                    group.append(step)
                    there |= writes(step)
                else:
                    later.append(step)
            steps = later
            if group:
                groups.append(group)
        if len(steps) == before:
            missing = sorted(reads(steps[0]) - there)
            raise RecipeError(f"not a valid ONNX graph: nothing makes {', '.join(missing)}.")
    planned: list[Floats | Operator | Product] = []
    for index, group in enumerate(groups):
        if isinstance(group[0], (Operator, Product)):
            planned += group
            continue
        after = outputs.union(*(reads(step) for later in groups[index + 1 :] for step in later))
        made = [name for node in group for name in node.output if name in after]
        planned.append(Floats(model, group, made))
    return planned


def reads(step: Any) -> set[str]:
    """Names that an operator or a node takes from outside, its subgraphs included."""
    if isinstance(step, (Operator, Product)):
        return step.reads
    names = {name for name in step.input if name}
    for attribute in step.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {name for node in graph.node for name in reads(node)}
            own = {name for node in graph.node for name in node.output}
            own |= {value.name for value in (*graph.input, *graph.initializer)}
            names |= inner - own
    return names


def writes(step: Any) -> set[str]:
    return {step.output} if isinstance(step, (Operator, Product)) else set(step.output)


def _needed(steps: list[Any], outputs: set[str]) -> list[Any]:
    """Without the steps that nothing uses: the DequantizeLinear nodes before an operator."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if writes(step) & wanted:
            kept.append(step)
            wanted |= reads(step)
    return kept[::-1]


def _constants(model: Any) -> dict[str, Any]:
    """The tensors of initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found

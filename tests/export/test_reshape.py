"""Computed shapes become constants where, and only where, they say the same for every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.export import reshape

Shape = list["int | str"]
CONSTANTS = {"first": [0], "second": [1], "end": [2], "minus": [-1], "two": [2], "six": [6]}


def graph(before: Shape, after: Shape, sizes: list[str], noted: bool = True) -> onnx.ModelProto:
    """``y = (2 x)`` reshaped to the concatenation of *sizes*, where ``batch`` and ``tokens`` are
    computed from x, as torch's exporter writes it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], "b", end=1),
        helper.make_node("Shape", ["x"], ["tokens"], "t", start=1, end=2),
        helper.make_node("Add", ["x", "x"], ["doubled"], "add"),
        helper.make_node("Concat", sizes, ["shape"], "concat", axis=0),
        helper.make_node("Reshape", ["doubled", "shape"], ["y"], "reshape", allowzero=1),
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, before)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, after)],
        [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in CONSTANTS.items()],
        value_info=[helper.make_tensor_value_info("doubled", TensorProto.FLOAT, before)]
        if noted
        else [],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: Any, output: int = 0) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[output]


def shape_of(model: onnx.ModelProto) -> list[int]:
    constants = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    (node,) = [node for node in model.graph.node if node.op_type == "Reshape"]
    found: list[int] = constants[node.input[1]]
    return found


@pytest.mark.parametrize(
    ("after", "sizes", "expected"),
    [
        (["batch", "tokens", 2, 6], ["batch", "tokens", "two", "six"], [0, 0, 2, 6]),
        (["batch", "tokens", 2, 6], ["batch", "tokens", "minus", "six"], [0, 0, 2, 6]),
        (["batch", "12*tokens"], ["batch", "minus"], [0, -1]),
        (["batch*tokens", 2, 6], ["minus", "two", "six"], [-1, 2, 6]),
        (["batch", 2, "tokens", 6], ["batch", "two", "tokens", "six"], [0, 2, -1, 6]),
    ],
)
def test_the_same_for_every_size(after: Shape, sizes: list[str], expected: list[int]) -> None:
    model = graph(["batch", "tokens", 12], after, sizes)
    plain = onnx.ModelProto.FromString(model.SerializeToString())
    assert reshape.plain(plain) == 1
    onnx.checker.check_model(plain, full_check=True)
    assert shape_of(plain) == expected
    assert [node.op_type for node in plain.graph.node] == ["Add", "Reshape"]  # the rest is gone
    for batch, tokens in ((1, 1), (2, 3), (5, 1), (3, 7)):
        x = np.random.default_rng(batch).normal(size=(batch, tokens, 12)).astype(np.float32)
        np.testing.assert_array_equal(run(plain, x), run(model, x))


def test_one_computed_shape_may_be_read_for_two() -> None:
    """Grouped attention: as many heads as there are, for queries and for fewer keys."""
    model = graph(
        ["batch", "tokens", 12], ["batch", "tokens", 2, 6], ["batch", "tokens", "minus", "six"]
    )
    model.graph.node.insert(
        3, helper.make_node("Concat", ["doubled", "doubled"], ["wide"], "wide", axis=2)
    )
    model.graph.node.append(helper.make_node("Reshape", ["wide", "shape"], ["z"], "other"))
    shapes: dict[str, Shape] = {"wide": ["batch", "tokens", 24], "z": ["batch", "tokens", 4, 6]}
    for name, shape in shapes.items():
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        (model.graph.output if name == "z" else model.graph.value_info).append(value)
    plain = onnx.ModelProto.FromString(model.SerializeToString())
    assert reshape.plain(plain) == 2
    onnx.checker.check_model(plain, full_check=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
    for output in (0, 1):
        np.testing.assert_array_equal(run(plain, x, output), run(model, x, output))


def test_what_has_to_be_computed_is_left() -> None:
    swapped = graph(["batch", "tokens", 12], ["tokens", "batch", 12], ["tokens", "batch", "minus"])
    unknown = graph(
        ["batch", "tokens", 12], ["batch", "tokens", 12], ["batch", "tokens", "minus"], noted=False
    )
    for model in (swapped, unknown):
        before = model.SerializeToString()
        assert reshape.plain(model) == 0
        assert model.SerializeToString() == before


def test_a_name_for_nobody_knows_what_is_no_size() -> None:
    model = graph(["unk__0", "unk__1", 12], ["unk__0", "unk__2"], ["batch", "minus"])
    assert reshape.plain(model) == 0

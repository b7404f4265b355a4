"""Which nodes of a graph int8 kernels can take, and what stands around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgessl.calibrate.operators import Graph, Operator
from tests.float_graphs import Net, blocks, weight

SIX = np.arange(6, dtype=np.float32)


def found(net: Net, *outputs: str) -> list[Operator]:
    return Graph(net.model(*outputs)).operators


def test_a_linear_layer_with_its_bias() -> None:
    net = Net(4)
    y = net.linear("x", weight(4, 6, 0), SIX, "backbone.encoder.layer.0.dense")
    (one,) = found(net, net.add("Relu", y))
    assert one == Operator(
        node="node_t0",
        kind="MatMul",
        layer="encoder.layer.0.dense",
        activations="x",
        weight="backbone.encoder.layer.0.dense.weight",
        output=y,
        bias="backbone.encoder.layer.0.dense.bias",
        adder="node_t1",
    )


def no_bias(net: Net) -> str:
    return net.linear("x", weight(4, 6, 0))


def bias_of_another_shape(net: Net) -> str:
    return net.plus(no_bias(net), np.ones((1, 1, 6), np.float32))


def product_read_twice(net: Net) -> str:
    product = no_bias(net)
    return net.add("Add", net.plus(product, SIX), net.add("Relu", product))


def product_added_to_itself(net: Net) -> str:
    product = no_bias(net)
    return net.add("Add", product, product)


@pytest.mark.parametrize(
    "make", [no_bias, bias_of_another_shape, product_read_twice, product_added_to_itself]
)
def test_what_is_no_bias(make: Any) -> None:
    net = Net(4)
    (one,) = found(net, make(net))
    assert (one.bias, one.adder, one.output) == (None, None, "t0")


def test_a_product_that_is_an_output_keeps_its_bias_apart() -> None:
    net = Net(4)
    product = no_bias(net)
    (one,) = found(net, product, net.plus(product, SIX))
    assert one.bias is None


def flat(net: Net) -> str:
    return net.add("Reshape", "x", net.constant(np.array([-1, 4])))


def test_gemm() -> None:
    net = Net(4)
    w = weight(6, 4, 0)
    y = net.add("Gemm", flat(net), net.constant(w, "head.weight"), net.constant(SIX), transB=1)
    graph = Graph(net.model(y))
    (one,) = graph.operators
    assert (one.kind, one.transposed, one.adder, one.output) == ("Gemm", True, "node_t1", y)
    np.testing.assert_array_equal(graph.weight(one), w.T)


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"beta": 2.0}])
def test_gemm_that_scales(options: dict[str, Any]) -> None:
    net = Net(4)
    y = net.add("Gemm", flat(net), net.constant(weight(4, 6, 0)), net.constant(SIX), **options)
    assert not found(net, y)


def test_gemm_that_turns_its_activations_or_has_a_computed_bias() -> None:
    net = Net(4)
    tall = net.add("Transpose", flat(net))
    turned = net.add("Gemm", tall, net.constant(weight(4, 6, 0)), transA=1)
    bias = net.add("Relu", net.constant(SIX))
    computed = net.add("Gemm", flat(net), net.constant(weight(4, 6, 0)), bias)
    assert not found(net, turned, computed)


def test_products_that_int8_kernels_do_not_take() -> None:
    net = Net(4)
    turned = net.add("Transpose", "x", perm=[0, 2, 1])
    outputs = [
        net.add("MatMul", "x", turned),  # two activations
        net.add("MatMul", "x", net.constant(np.ones((1, 4, 4), np.float32))),  # three dimensions
        net.add("MatMul", net.constant(np.ones((5, 4), np.float32)), turned),  # weights first
    ]
    assert not found(net, *outputs)


@pytest.mark.parametrize(
    ("channels", "groups", "taken"), [(16, 1, True), (3, 1, False), (32, 32, False), (32, 2, False)]
)
def test_convolutions(channels: int, groups: int, taken: bool) -> None:
    net = Net(channels, image=True)
    kernel = np.random.default_rng(0).normal(size=(channels * 2, channels // groups, 3, 3))
    y = net.add(
        "Conv",
        "x",
        net.constant(kernel.astype(np.float32), "stem.weight"),
        net.constant(np.zeros(channels * 2, np.float32), "stem.bias"),
        group=groups,
    )
    graph = Graph(net.model(y))
    assert [one.layer for one in graph.operators] == ["stem"] * taken
    if taken:
        rows = graph.weight(graph.operators[0])
        np.testing.assert_array_equal(rows[:, 5], kernel[5].astype(np.float32).ravel())


def test_the_normalisation_behind() -> None:
    net = blocks(1)
    graph = Graph(net.model("sentence_embedding"))
    up, down = graph.operators
    norm = next(node for node in graph.nodes.values() if node.op_type == "LayerNormalization")
    assert graph.normalization_behind(down) is norm  # with the residual between
    assert graph.normalization_behind(up) is None


def test_groups_share_activations_or_weights() -> None:
    net = Net(4)
    shared = weight(4, 4, 0)
    query, key = net.linear("x", shared, layer="a"), net.linear("x", weight(4, 4, 1), layer="b")
    again = net.linear(net.add("Relu", query), shared, layer="a")
    other = net.linear(net.add("Relu", key), weight(4, 4, 2), layer="c")
    graph = Graph(net.model(again, other))
    groups = [sorted(one.output for one in group) for group in graph.groups(graph.operators)]
    assert sorted(groups) == [sorted([query, key, again]), [other]]
    assert graph.shared() == {"a.weight": 2, "b.weight": 1, "c.weight": 1}


def test_layers_without_a_name_are_called_by_their_node() -> None:
    net = Net(4)
    y = net.add("MatMul", "x", net.constant(weight(4, 4, 0), "val_17"))
    (one,) = found(net, y)
    assert one.layer == one.node == "node_t0"

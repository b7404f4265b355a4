"""Channels far larger than the others: their clipped copies add up, and int8 gets better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgessl.calibrate import observe, placement, quantize, quantizers, splitting
from edgessl.calibrate.operators import Graph
from edgessl.calibrate.splitting import COPIES, Split
from edgessl.parity import cosine
from edgessl.target import Int8
from tests.float_graphs import VECTOR, Floats, Net, data, run, tokens, weight

WIDTH, WIDE = 16, 32
LARGE = 7  # the channel behind the activation


def rarely_massive(count: int, seed: int = 0) -> list[Floats]:
    """Tokens of which one in sixteen is massive in channel 3, as separators are."""
    items = tokens(count, WIDTH, seed)
    for number, item in enumerate(items):
        item[:, 3] /= 20
        if number % 2:
            item[0, 3] = 100 + number % 7
    return items


def relu(net: Net, x: str) -> str:
    return net.add("Relu", x)


def gelu(net: Net, x: str) -> str:
    return net.gelu(x)


def quick_gelu(net: Net, x: str) -> str:
    sloped = net.add("Mul", x, net.constant(np.float32(1.702)))
    return net.add("Mul", x, net.add("Sigmoid", sloped))


def squared(net: Net, x: str) -> str:
    return net.add("Pow", net.add("Relu", x), net.constant(np.float32(2)))


def halved(net: Net, x: str) -> str:
    return net.add("Mul", x, net.constant(np.float32(0.5)))


def mlp(activate: Callable[[Net, str], str] = gelu, change: str = "") -> Net:
    """Two linear layers; channel ``LARGE`` between them is massive for some tokens."""
    net = Net(WIDTH)
    up, bias = weight(WIDTH, WIDE, 0), np.linspace(-0.5, 0.5, WIDE).astype(np.float32)
    up[3], up[:, LARGE] = 0, 0
    up[3, LARGE] = 0.8  # alone reads the channel of the tokens that is far larger than the others
    x = net.linear("x", up, None if change == "no_bias" else bias, "mlp.up")
    inside = activate(net, x)
    reads = weight(WIDE, WIDTH, 1)
    reads[LARGE] *= 3  # so that it cannot be made small at the weights' expense
    down = net.linear(inside, reads, np.zeros(WIDTH, np.float32), "mlp.down")
    if change == "read_twice":
        down = net.add("Add", down, net.linear(inside, weight(WIDE, WIDTH, 2), layer="mlp.gate"))
    if change == "before_read":
        down = net.add("Add", down, net.linear(x, weight(WIDE, WIDTH, 2), layer="mlp.skip"))
    net.pool(net.add("Add", "x", down))
    return net


def inside(graph: Graph) -> str:
    return next(one.activations for one in graph.operators if one.layer == "mlp.down")


def propose(
    net: Net, *outputs: str, given: observe.Data | None = None
) -> tuple[Graph, Split | None]:
    graph = Graph(net.model(VECTOR, *outputs))
    name = inside(graph)
    given = given or data(rarely_massive(60))
    seen = observe.observe(graph.model, given, {name: "gram"}, layers={})
    return graph, splitting.propose(graph, name, seen.tensors[name])


def split_of(activate: Callable[[Net, str], str]) -> tuple[Split, Callable[[Floats], Floats]]:
    graph, split = propose(mlp(activate))
    assert split is not None
    return split, splitting.activation(graph, inside(graph), split)


def test_the_function_between() -> None:
    _, function = split_of(gelu)
    x = np.linspace(-6, 6, 101, dtype=np.float32)[:, None]
    expected = [[0.5 * v * (1 + math.erf(v / 2**0.5))] for v in x[:, 0].tolist()]
    np.testing.assert_allclose(function(x), expected, atol=1e-6)


@pytest.mark.parametrize(("activate", "bend"), [(relu, 0.0), (gelu, 0.21), (quick_gelu, 0.24)])
def test_copies_add_up(activate: Callable[[Net, str], str], bend: float) -> None:
    split, function = split_of(activate)
    assert set(split.copies) == {LARGE} and len(split.copies) == COPIES
    cap = float(split.caps[LARGE])
    assert (split.caps[WIDE:] == cap).all() and np.isinf(np.delete(split.caps[:WIDE], LARGE)).all()
    assert cap >= 3
    # The producer's copies have smaller biases, the consumer's rows are the same.
    biases = split.bias(np.zeros(WIDE, np.float32))
    rows = split.rows(np.arange(WIDE)[:, None])
    assert set(rows[WIDE:, 0]) == {LARGE}
    u = np.linspace(-3 * cap, COPIES * cap, 5001, dtype=np.float32)[:, None]
    total = np.minimum(function(u), cap)
    for bias in biases[WIDE:]:
        total = total + np.minimum(function(u + bias), cap)
    off = np.abs(total - function(u))[:, 0]
    assert off.max() <= bend + 1e-4
    # Where u is far from every multiple of the cap nothing bends.
    multiples = np.round(u[:, 0] / cap) * cap
    far = np.abs(u[:, 0] - multiples) > 3
    assert not far.any() or off[far].max() < 0.02
    assert splitting.holds(split, function)


@pytest.mark.parametrize("activate", [squared, halved])
def test_functions_that_copies_do_not_add_up_to(activate: Callable[[Net, str], str]) -> None:
    split, function = split_of(activate)
    assert not splitting.holds(split, function)
    net, given = mlp(activate).model(VECTOR), data(rarely_massive(60))
    _, plan = quantize.make_plan(net, given, Int8(), quantize.Options())
    assert not plan.splits


def test_splits_that_do_not_help() -> None:
    """Values spread evenly bend at every cap, where GELU's copies are off."""
    net = mlp(gelu).model(VECTOR)
    given = data(tokens(60, WIDTH))
    assert propose(mlp(gelu), given=given)[1] is not None
    _, plan = quantize.make_plan(net, given, Int8(), quantize.Options())
    assert not plan.splits


def int8(net: Any, splits: bool, form: Int8, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        if not splits:
            patched.setattr(quantizers, "_split", lambda *_: None)
        given = data(rarely_massive(60))
        _, plan = quantize.make_plan(net, given, form, quantize.Options(method="minmax"))
    assert bool(plan.splits) is splits
    model = onnx.ModelProto()
    model.CopyFrom(net)
    placement.place(model, plan)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True), True)
    return model


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("activate", [relu, gelu])
def test_int8_gets_better(
    activate: Callable[[Net, str], str], signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mlp(activate).model(VECTOR)
    unseen = data(rarely_massive(40, seed=9))
    inputs = unseen.prepare(list(unseen.items))
    exact = run(net, inputs, VECTOR)[0]
    errors = []
    for splits in (True, False):
        model = int8(net, splits, Int8(signed=signed), monkeypatch)
        errors.append(float(np.square(run(model, inputs, VECTOR)[0] - exact).mean()))
    assert errors[0] < 0.7 * errors[1]


def test_means_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What GELU's copies are off is one-sided; the bias gives it back."""
    net, given = mlp(gelu).model(VECTOR), data(rarely_massive(60))
    one = next(one for one in Graph(net).operators if one.layer == "mlp.down")
    monkeypatch.setattr(quantizers, "_WORTH_SPLITTING", np.inf)
    _, plan = quantize.make_plan(net, given, Int8(), quantize.Options())
    assert plan.splits
    placed = onnx.ModelProto()
    placed.CopyFrom(net)
    placement.place(placed, plan, {one.node})
    # Item by item, so that there is no padding; as many rows as the statistics keep.
    outputs = []
    for model in (net, placed):
        session = observe.open_session(model, [one.output])
        feeds = [given.prepare([item]) for item in given.items]
        outputs.append(np.concatenate([session.run([one.output], feed)[0][0] for feed in feeds]))
    assert len(outputs[0]) <= observe.ROWS
    np.testing.assert_allclose(outputs[0].mean(axis=0), outputs[1].mean(axis=0), atol=1e-3)


def test_with_one_of_the_two_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = mlp(relu).model(VECTOR), data(rarely_massive(60))
    _, plan = quantize.make_plan(net, given, Int8(), quantize.Options())
    assert plan.splits
    inputs = given.prepare(list(given.items))
    exact = run(net, inputs, VECTOR)[0]
    widths = {}
    for one in plan.operators:
        model = onnx.ModelProto()
        model.CopyFrom(net)
        placement.place(model, plan, {one.node})
        assert cosine(exact, run(model, inputs, VECTOR)[0]).min() > 0.99
        tensors = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        widths[one.layer] = tensors.get("mlp.up.weight", tensors.get("mlp.up.weight.int8"))
    # A consumer in float cannot clip, so then there are no copies.
    assert widths == {"mlp.up": (WIDTH, WIDE), "mlp.down": (WIDTH, WIDE + COPIES)}


@pytest.mark.parametrize("change", ["read_twice", "before_read", "no_bias"])
def test_what_cannot_be_split(change: str) -> None:
    assert propose(mlp())[1] is not None
    assert propose(mlp(change=change))[1] is None


def test_outputs_of_the_graph_are_not_split() -> None:
    net = mlp()
    name = inside(Graph(net.model(VECTOR)))
    assert propose(net, name)[1] is None


def test_small_channels_are_not_split() -> None:
    graph = Graph(mlp().model(VECTOR))
    name = inside(graph)
    items = [item / np.float32(30) for item in rarely_massive(30)]
    seen = observe.observe(graph.model, data(items), {name: "gram"}, layers={}).tensors[name]
    assert splitting.propose(graph, name, seen) is None


def test_statistics_of_the_split_tensor() -> None:
    graph, split = propose(mlp(relu))
    assert split is not None
    name, before = inside(graph), split.producer.output
    given = data(rarely_massive(60))
    kinds = {name: "gram", before: "rows"}
    seen = observe.observe(graph.model, given, kinds, layers={}).tensors
    function = splitting.activation(graph, name, split)
    wide = splitting.widen(seen[name], seen[before].rows, split, function)
    assert wide.rows.shape == (len(seen[name].rows), WIDE + COPIES)
    back = wide.rows[:, :WIDE].copy()
    np.add.at(back.T, split.copies, wide.rows[:, WIDE:].T)
    np.testing.assert_allclose(back, seen[name].rows, atol=1e-4)
    assert (wide.high <= split.caps + 1e-5).all() and (wide.low <= wide.rows.min(axis=0)).all()
    assert wide.gram is not None and np.linalg.eigvalsh(wide.gram).min() > -1e-6 * wide.gram.max()
    same = np.flatnonzero(np.isinf(split.caps))
    np.testing.assert_array_equal(
        wide.gram[np.ix_(same, same)],
        seen[name].gram[np.ix_(same, same)],  # type: ignore[index]
    )

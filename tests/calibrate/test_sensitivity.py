"""Which operators lose most in int8, and how few have to stay in float."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from edgessl.calibrate import observe, placement, quantize, sensitivity
from edgessl.calibrate.placement import Plan
from edgessl.calibrate.sensitivity import METRICS, Limit
from edgessl.errors import RecipeError, Unsupported
from edgessl.parity import cosine
from edgessl.target import Int8
from tests.float_graphs import VECTOR, Floats, blocks, data, run, tokens

WIDTH = 16
# Operators whose codes are made coarse -> how many times.
COARSE = {"encoder.layer.1.output": 250, "encoder.layer.2.intermediate": 60}


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, observe.Data]:
    return blocks(3, WIDTH).model(VECTOR), data(tokens(48, WIDTH))


@pytest.fixture(scope="module")
def plan(encoder: tuple[Any, observe.Data]) -> Plan:
    model, given = encoder
    _, made = quantize.make_plan(model, given, Int8(), quantize.Options())
    assert not made.splits
    names = {one.layer: one.activations for one in made.operators}
    changed = dict(made.quantizers)
    for layer, factor in COARSE.items():
        one = made.quantizers[names[layer]]
        changed[names[layer]] = replace(one, scale=one.scale * factor)
    return replace(made, quantizers=changed)


def vectors(encoder: tuple[Any, observe.Data], plan: Plan, nodes: set[str]) -> Floats:
    """Of all items, with *nodes* in int8; without the module under test."""
    model = onnx.ModelProto()
    model.CopyFrom(encoder[0])
    placement.place(model, plan, nodes)
    items = sorted(encoder[1].items, key=len, reverse=True)
    result: Floats = run(model, encoder[1].prepare(items), VECTOR)[0]
    return result


def layers(plan: Plan) -> dict[str, str]:
    return {one.node: one.layer for one in plan.operators}


def test_the_coarse_ones_come_first(encoder: tuple[Any, observe.Data], plan: Plan) -> None:
    said: list[str] = []
    operators, wholes = sensitivity.rank(encoder[0], plan, encoder[1], said.append)
    assert [effect.layer for effect in operators[:2]] == list(COARSE)
    assert sorted(effect.layer for effect in operators) == sorted(layers(plan).values())
    means = [effect.cosine_mean for effect in operators]
    assert means == sorted(means) and means[0] < 0.99 < 0.999 < means[2]
    assert [effect.layer for effect in wholes][:2] == ["encoder.layer.1", "encoder.layer.2"]
    assert all(len(effect.nodes) == 2 and effect.snr_db is None for effect in wholes)
    reference = vectors(encoder, plan, set())
    for effect in (*operators, *wholes):
        near = cosine(reference, vectors(encoder, plan, set(effect.nodes)))
        assert effect.cosine_mean == pytest.approx(near.mean(), abs=1e-6)
        assert effect.cosine_min == pytest.approx(near.min(), abs=1e-5)
    assert operators[0].to_json()["layer"] == "encoder.layer.1.output"
    assert said[-1] == "measuring sensitivity 9/9"


def test_signal_to_noise(encoder: tuple[Any, observe.Data]) -> None:
    """Of each operator's own output, against the operator run alone."""
    model, given = encoder
    _, plan = quantize.make_plan(model, given, Int8(), quantize.Options())
    first = plan.operators[0]
    placed = onnx.ModelProto()
    placed.CopyFrom(model)
    placement.place(placed, plan, {first.node})
    outputs = []
    for graph in (model, placed):
        session = observe.open_session(graph, [first.output])
        feeds = [given.prepare([item]) for item in given.items]
        outputs.append(np.concatenate([session.run([first.output], feed)[0][0] for feed in feeds]))
    exact, ours = outputs
    ratio = exact.var(axis=0).sum() / (ours - exact).var(axis=0).sum()
    assert plan.snr[first.node] == pytest.approx(10 * np.log10(ratio), abs=0.5)
    assert 20 < plan.snr[first.node] < 80


@pytest.mark.parametrize("drop", [0.0001, 0.001, 0.01])
def test_as_few_as_will_do_stay_in_float(
    encoder: tuple[Any, observe.Data], plan: Plan, drop: float
) -> None:
    limit = Limit("cosine", drop)
    nodes, facts = sensitivity.within(encoder[0], plan, encoder[1], limit)
    trade = facts["trade"]
    reference = vectors(encoder, plan, set())
    reached = METRICS["cosine"](reference, vectors(encoder, plan, nodes))
    assert 1 - reached <= drop and trade["reached"] == pytest.approx(reached, abs=1e-6)
    assert 0 < len(nodes) < len(plan.operators)
    floats = [layer for node, layer in layers(plan).items() if node not in nodes]
    assert trade["kept_in_float"] == floats and trade["max_drop"] == drop
    # The least sensitive of those in float would be one too many.
    ranked = [one.nodes[0] for one in sensitivity.rank(encoder[0], plan, encoder[1])[0]]
    kept = [node for node in ranked if node not in nodes]
    assert kept == ranked[: len(kept)]
    one_more = METRICS["cosine"](reference, vectors(encoder, plan, nodes | {kept[-1]}))
    assert 1 - one_more > drop
    if drop == 0.01:
        assert floats == ["encoder.layer.1.output"]
    everything = vectors(encoder, plan, set(layers(plan)))
    assert trade["all_int8"] == pytest.approx(METRICS["cosine"](reference, everything), abs=1e-6)


def test_nothing_has_to_stay_in_float(encoder: tuple[Any, observe.Data], plan: Plan) -> None:
    said: list[str] = []
    limit = Limit("cosine", 0.9)
    nodes, facts = sensitivity.within(encoder[0], plan, encoder[1], limit, said.append)
    assert nodes == set(layers(plan)) and facts["trade"]["kept_in_float"] == []
    assert len(said) == 1 and said[0].endswith("nothing has to stay in float")


def test_a_limit_that_int8_cannot_keep(encoder: tuple[Any, observe.Data], plan: Plan) -> None:
    with pytest.raises(Unsupported, match="cosine=1e-12: even the least sensitive operator"):
        sensitivity.within(encoder[0], plan, encoder[1], Limit("cosine", 1e-12))


def test_encoders_without_a_vector(encoder: tuple[Any, observe.Data], plan: Plan) -> None:
    model, given = encoder
    bare = replace(given, spec=replace(given.spec, outputs=()))
    with pytest.raises(Unsupported, match=r"puts out no vector \(pooling none\)"):
        sensitivity.rank(model, plan, bare)


def test_metrics() -> None:
    rng = np.random.default_rng(1)
    exact = rng.normal(size=(50, 8))
    ours = exact + 0.3 * rng.normal(size=exact.shape)
    pairs = list(zip(exact, ours, strict=True))
    near = np.array([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    assert METRICS["cosine"](exact, ours) == pytest.approx(near.mean())
    assert METRICS["cosine-min"](exact, ours) == pytest.approx(near.min())
    assert METRICS["cosine-p1"](exact, ours) == pytest.approx(np.percentile(near, 1))
    nearest = []
    for rows in (exact, ours):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        order = np.argsort(-(unit @ unit.T), axis=1)
        assert (order[:, 0] == np.arange(50)).all()  # every one is nearest to itself
        nearest.append(order[:, 1])
    same = (nearest[0] == nearest[1]).mean()
    assert 0.3 < same < 1
    assert METRICS["top1"](exact, ours) == pytest.approx(same)
    assert all(metric(exact, exact) == pytest.approx(1) for metric in METRICS.values())


def test_limits_are_read() -> None:
    assert Limit.parse("cosine=0.005") == Limit("cosine", 0.005)
    assert Limit.parse("top1=5e-2") == Limit("top1", 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin=0.1", r"unknown metric 'cosin'\. Did you mean 'cosine'\? Metrics: cosine, "),
        ("0.005", r"unknown metric '0\.005'\. Metrics: "),
        ("cosine", "should be a number between 0 and 1, as in --max-drop cosine=0.005"),
        ("cosine=much", "'cosine=much': the drop should be a number between 0 and 1"),
        ("top1=0", "between 0 and 1, as in --max-drop top1=0.005"),
        ("cosine=1.5", "between 0 and 1"),
        ("cosine=nan", "between 0 and 1"),
    ],
)
def test_limits_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Limit.parse(text)


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("encoder.layer.3.output.dense", "encoder.layer.3"),
        ("stages.1.layers.0.mlp", "stages.1"),
        ("pooler.dense", "pooler.dense"),
        ("node_linear_7", "node_linear_7"),
    ],
)
def test_blocks(layer: str, block: str) -> None:
    assert sensitivity.block(layer) == block


def test_processors_that_saturate(encoder: tuple[Any, observe.Data]) -> None:
    """Without what ``saturating`` keeps to, vectors are far off there; with it, as here."""
    model, given = encoder
    near = {}
    for saturating in (True, False):
        options = quantize.Options(saturating=saturating)
        _, made = quantize.make_plan(model, given, Int8(), options)
        placed = onnx.ModelProto()
        placed.CopyFrom(model)
        trial = sensitivity.Emulation(placed, given)
        placement.place(placed, made)
        near[saturating] = trial.compare(placed, "openvino")
        if saturating:
            feed = given.prepare(sorted(given.items, key=len, reverse=True))
            here = cosine(run(model, feed, VECTOR)[0], run(placed, feed, VECTOR)[0])
            assert near[True]["cosine_mean"] == pytest.approx(here.mean(), abs=2e-4)
    assert near[True]["cosine_mean"] > 0.9995 and near[True]["cosine_min"] > 0.999
    assert near[False]["cosine_mean"] < near[True]["cosine_mean"]

"""What does not fit into fp16 is found by name, and keeping it in fp32 mends the encoder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgessl.backend import Arrays
from edgessl.calibrate import overflow
from edgessl.errors import RecipeError, Unsupported
from edgessl.export import half

Array = npt.NDArray[Any]
WIDTH = 16
FIRST, SECOND = "layer.0.intermediate.dense", "layer.0.output.dense"


def encoder(factor: float = 1.0) -> Any:
    """Embeddings, a masked attention, a ReLU feed-forward block, mean pooling.

    *factor*, a power of two, goes into the first feed-forward weight and out of the second: the
    function stays what it was, to the last bit.
    """
    rng = np.random.default_rng(8)

    def weight(rows: int, columns: int) -> Array:
        return np.asarray(rng.normal(size=(rows, columns)) / np.sqrt(rows), np.float32)

    prefix = "backbone.encoder."
    constants: dict[str, Array] = {
        "backbone.embeddings.word_embeddings.weight": rng.normal(size=(40, WIDTH)),
        "one": np.array(1.0),
        "lowest": np.array(np.finfo(np.float32).min),
        "unsqueezed": np.array([1]),
        "last": np.array([2]),
        f"{prefix}layer.0.attention.query.weight": weight(WIDTH, WIDTH),
        f"{prefix}{FIRST}.bias": rng.normal(size=4 * WIDTH) * factor,
        "val_1": weight(WIDTH, 4 * WIDTH) * factor,
        f"{prefix}{SECOND}.bias": rng.normal(size=WIDTH),
        "val_2": weight(4 * WIDTH, WIDTH) / factor,
        f"{prefix}layer.0.output.LayerNorm.weight": np.ones(WIDTH),
        f"{prefix}layer.0.output.LayerNorm.bias": np.zeros(WIDTH),
        "val_3": weight(WIDTH, 8),
    }
    nodes = [
        "seen=Cast(attention_mask)",
        "hidden=Sub(one,seen)",
        "fill=Mul(hidden,lowest)",
        "mask=Unsqueeze(fill,unsqueezed)",
        "h0=Gather(backbone.embeddings.word_embeddings.weight,input_ids)",
        f"query=MatMul(h0,{prefix}layer.0.attention.query.weight)",
        "key=Transpose(h0)",
        "scores=MatMul(query,key)",
        "masked=Add(scores,mask)",
        "share=Softmax(masked)",
        "h1=MatMul(share,h0)",
        "up=MatMul(h1,val_1)",
        f"linear=Add(up,{prefix}{FIRST}.bias)",
        "relu=Relu(linear)",
        "down=MatMul(relu,val_2)",
        f"linear_1=Add(down,{prefix}{SECOND}.bias)",
        "h2=Add(linear_1,h1)",
        f"normed=LayerNormalization(h2,{prefix}layer.0.output.LayerNorm.weight,"
        f"{prefix}layer.0.output.LayerNorm.bias)",
        "projected=MatMul(normed,val_3)",
        "sentence_embedding=ReduceMean(projected)",
    ]
    attributes: dict[str, dict[str, Any]] = {
        "Cast": {"to": TensorProto.FLOAT},
        "Transpose": {"perm": [0, 2, 1]},
        "ReduceMean": {"axes": [1], "keepdims": 0},
    }
    made = []
    for text in nodes:
        output, call = text.split("=")
        kind, inputs = call.rstrip(")").split("(")
        made.append(
            helper.make_node(
                kind,
                inputs.split(","),
                [output],
                name=f"node_{output}",
                **attributes.get(kind, {}),
            )
        )
    text_shape = ["batch", "sequence"]
    graph = helper.make_graph(
        made,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, text_shape)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(a if a.dtype == np.int64 else a.astype(np.float32), name)
            for name, a in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def feeds() -> list[Arrays]:
    rng = np.random.default_rng(9)
    batches: list[Arrays] = []
    for longest in (12, 5):
        lengths = np.array([longest, 1, 3])
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        batches.append(
            {"input_ids": rng.integers(0, 40, (3, longest)), "attention_mask": mask},
        )
    return batches


def evaluate(model: Any) -> Array:
    """Run by numpy, which overflows where a GPU would; onnxruntime's CPU kernels would not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run: Any = ReferenceEvaluator(model).run
        result: Array = np.concatenate([run(None, feed)[0] for feed in feeds()])
    return result


def test_a_sound_encoder_has_nothing_to_report() -> None:
    assert overflow.find(encoder(), feeds()) == []


def test_overflow_is_named_and_keeping_it_mends_the_encoder() -> None:
    model = encoder(2.0**16)
    expected = evaluate(model)
    np.testing.assert_array_equal(expected, evaluate(encoder()))
    broken = encoder(2.0**16)
    half.convert(broken, "fp16")
    assert not np.isfinite(evaluate(broken)).all()

    found = overflow.find(model, feeds())
    assert [(each.node, each.operator, each.kind, each.layer) for each in found] == [
        ("node_up", "MatMul", "overflow", f"encoder.{FIRST}"),
        ("node_linear", "Add", "overflow", f"encoder.{FIRST}"),
        ("node_relu", "Relu", "overflow", f"encoder.{FIRST}"),
        ("node_down", "MatMul", "underflow", f"encoder.{SECOND}"),  # its weight, 2**-16 of it
    ]
    mended = encoder(2.0**16)
    half.convert(mended, "fp16", [each.node for each in found])
    actual = evaluate(mended)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    assert ((expected * actual).sum(axis=1) / norms).min() > 0.9999


def test_the_largest_values_are_those_of_the_graph() -> None:
    model = encoder(2.0**16)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info("relu", TensorProto.FLOAT, None))
    run: Any = ReferenceEvaluator(probe).run
    expected = max(np.abs(run(None, feed)[0]).max() for feed in feeds())
    found = {each.node: each for each in overflow.find(model, feeds())}["node_relu"]
    assert found.largest == pytest.approx(expected, rel=1e-5)
    assert str(found).startswith(f"encoder.{FIRST} (Relu node_relu): overflow, up to ")


def test_margin() -> None:
    # The largest value of this one lies between a quarter of fp16's range and the range.
    model = encoder(2.0**13)
    found = {each.node for each in overflow.find(model, feeds()) if each.kind == "overflow"}
    assert found == {"node_up", "node_linear", "node_relu"}
    exact = overflow.find(model, feeds(), margin=1)
    assert [each for each in exact if each.kind == "overflow"] == []


def test_a_weight_beyond_the_range() -> None:
    model = encoder()
    weight = next(t for t in model.graph.initializer if t.name == "val_3")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = 1e5
    values[1, 1] = np.finfo(np.float32).min  # a fill is not a weight
    zero = next(t for t in model.graph.initializer if t.name.endswith("LayerNorm.weight"))
    zero.CopyFrom(numpy_helper.from_array(np.zeros(WIDTH, np.float32), zero.name))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    found = overflow.find(model, feeds())
    assert [(each.node, each.kind, each.largest) for each in found] == [
        ("node_projected", "weight", 1e5)
    ]


def test_bf16_has_the_range_of_fp32() -> None:
    assert overflow.find(encoder(2.0**16), feeds(), "bf16") == []


def test_what_stays_fp32_is_not_reported() -> None:
    model = encoder(2.0**16)
    found = overflow.find(model, feeds(), ignore=["node_up", "node_relu"])
    assert [each.node for each in found] == ["node_linear", "node_down"]


def test_a_file_will_do_and_the_model_is_left_alone(tmp_path: Path) -> None:
    model = encoder(2.0**16)
    before = model.SerializeToString()
    found = overflow.find(model, feeds())
    assert model.SerializeToString() == before
    onnx.save(model, str(tmp_path / "m.onnx"))
    assert overflow.find(tmp_path / "m.onnx", feeds()) == found


def test_mistakes() -> None:
    with pytest.raises(RecipeError, match="'fp61'. Did you mean 'fp16'"):
        overflow.find(encoder(), feeds(), "fp61")
    with pytest.raises(RecipeError, match="margin 0.5: must be 1 or more"):
        overflow.find(encoder(), feeds(), margin=0.5)
    with pytest.raises(RecipeError, match="needs inputs, and there are none"):
        overflow.find(encoder(), [])
    wrong = [{"input_ids": np.zeros((1, 1), np.int64)}]
    with pytest.raises(Unsupported, match="ONNX Runtime fails: .*attention_mask"):
        overflow.find(encoder(), wrong)

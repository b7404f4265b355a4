"""The ONNX waist: what is in the file, and that onnxruntime computes from it what torch does."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from edgessl.backend import Arrays
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.errors import Unsupported
from edgessl.export import onnx_graph, onnx_writer
from tests.builders import POSITIONS

Load = Callable[..., Encoder]
Write = Callable[..., Path]


def inputs_of(encoder: Encoder, batch: int, sequence: int = 1) -> Arrays:
    """Random inputs; every text of the batch has another length, one of them the whole."""
    rng = np.random.default_rng([batch, sequence])
    if encoder.spec.task == "image":
        shape = [axis for axis in encoder.spec.inputs[0].shape if isinstance(axis, int)]
        return {"pixel_values": rng.normal(size=(batch, *shape)).astype(np.float32)}
    lengths = rng.integers(1, sequence + 1, batch)
    lengths[0] = sequence
    mask = (np.arange(sequence) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(2, 60, (batch, sequence))
    module: Any = encoder.module
    pad = module.backbone.config.pad_token_id
    return {"input_ids": np.where(mask, ids, pad), "attention_mask": mask}


def open_onnx(path: Path) -> Callable[[Arrays], Arrays]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def assert_same(encoder: Encoder, path: Path, cases: list[tuple[int, int]], atol: float) -> None:
    graph = open_onnx(path)
    for batch, sequence in cases:
        inputs = inputs_of(encoder, batch, sequence)
        expected, actual = run.forward(encoder, inputs), graph(inputs)
        assert list(actual) == list(expected)
        for name, array in expected.items():
            assert actual[name].dtype == np.float32
            keep = np.ones(array.shape[:-1], bool)
            if name == "last_hidden_state" and "attention_mask" in inputs:
                keep = inputs["attention_mask"].astype(bool)
            np.testing.assert_allclose(actual[name][keep], array[keep], atol=atol)


def io(value: Any) -> tuple[str, int, list[int | str]]:
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]


def test_opset_names_types_and_axes(write_tiny: Write) -> None:
    model = onnx.load(str(write_tiny("bert", "fp32")))
    onnx.checker.check_model(model, full_check=True)
    assert onnx_graph.opset(model) == 17
    assert [entry.domain for entry in model.opset_import] == [""]
    assert model.ir_version <= 10  # what onnxruntime 1.22 reads
    assert [io(value) for value in model.graph.input] == [
        ("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        ("attention_mask", TensorProto.INT64, ["batch", "sequence"]),
    ]
    outputs = [io(value) for value in model.graph.output]
    assert [(name, kind) for name, kind, _ in outputs] == [
        ("sentence_embedding", TensorProto.FLOAT),
        ("last_hidden_state", TensorProto.FLOAT),
    ]
    model = onnx.load(str(write_tiny("vit_mae", "fp32")))
    assert [io(value) for value in model.graph.input] == [
        ("pixel_values", TensorProto.FLOAT, ["batch", 3, 16, 16])
    ]
    assert [value.name for value in model.graph.output] == ["image_embedding", "last_hidden_state"]


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "albert", "vit_mae"])
def test_fp32_equals_torch_for_every_size(load_tiny: Load, write_tiny: Write, family: str) -> None:
    encoder = load_tiny(family, normalize=True, features=True)
    sequences = (1, 2, 7, POSITIONS) if encoder.spec.task == "text" else (1,)
    cases = [(batch, sequence) for batch in range(1, 6) for sequence in sequences]
    assert_same(encoder, write_tiny(family, "fp32"), cases, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("distilbert", {"pooling": "cls"}),
        ("electra", {"pooling": "max", "normalize": True}),
        ("xlm-roberta", {"pooling": "mean", "normalize": False}),
        ("camembert", {"pooling": "none"}),
        ("vit_mae", {"pooling": "cls", "normalize": True}),
        ("vit_mae", {"pooling": "max"}),
    ],
)
def test_every_pooling(
    load_tiny: Load, tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    encoder = load_tiny(family, **options)
    path = tmp_path / "model.onnx"
    onnx_writer.write(encoder, path, "fp32")
    names = [value.name for value in onnx.load(str(path)).graph.output]
    assert names == [spec.name for spec in encoder.spec.outputs]
    assert_same(encoder, path, [(1, 1), (3, 9), (5, POSITIONS)], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "vit_mae"])
@pytest.mark.parametrize(
    ("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)]
)
def test_half_precision_is_in_the_graph(
    write_tiny: Write, family: str, precision: str, kind: int
) -> None:
    full, half = (write_tiny(family, name) for name in ("fp32", precision))
    assert half.stat().st_size < 0.75 * full.stat().st_size
    model = onnx.shape_inference.infer_shapes(onnx.load(str(half)))
    whole = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
    weights = {t.data_type for t in model.graph.initializer if len(t.dims) >= 2} - whole
    assert weights == {kind}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    assert len(products) > 10
    assert {types[node.output[0]] for node in products} == {kind}
    # Inputs and outputs, pooling and normalisation stay as they are.
    reductions = [n for n in model.graph.node if n.op_type in ("ReduceSum", "ReduceMean", "Sqrt")]
    assert reductions and {types[n.output[0]] for n in reductions} == {TensorProto.FLOAT}
    of_io = {io(value)[1] for value in (*model.graph.input, *model.graph.output)}
    assert of_io <= {TensorProto.FLOAT, TensorProto.INT64}


@pytest.mark.parametrize("family", ["bert", "vit_mae"])
def test_fp16_is_close_to_torch(load_tiny: Load, write_tiny: Write, family: str) -> None:
    encoder = load_tiny(family, normalize=True, features=True)
    graph = open_onnx(write_tiny(family, "fp16"))
    name = str(encoder.spec.vector)
    inputs = inputs_of(encoder, 5, 11)
    expected, actual = run.forward(encoder, inputs)[name], graph(inputs)[name]
    assert ((expected * actual).sum(axis=1) > 0.9999).all()
    assert np.abs(expected - actual).max() > 1e-6  # it really is another precision


def test_encoder_is_left_as_it_was(load_tiny: Load, tmp_path: Path) -> None:
    encoder = load_tiny("bert")
    before = copy.deepcopy(encoder.module.state_dict())
    onnx_writer.write(encoder, tmp_path / "model.onnx", "fp16")
    after = encoder.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {tensor.dtype for tensor in after.values() if tensor.is_floating_point()} == {
        torch.float32
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("family", ["bert", "vit_mae"])
def test_file_tells_nothing_of_this_machine(write_tiny: Write, family: str, precision: str) -> None:
    path = write_tiny(family, precision)
    content = path.read_bytes()
    secrets = {
        str(path.parent),
        os.path.dirname(torch.__file__),
        os.getcwd(),
        os.path.expanduser("~") + "/",
        sys.prefix,
        ".py",
        "Traceback",
        "stack_trace",
        "site-packages",
    }
    for secret in secrets:
        assert secret.encode() not in content, secret


def test_write_is_silent_and_repeatable(
    load_tiny: Load, write_tiny: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, path = write_tiny("bert", "fp32"), tmp_path / "again.onnx"
    encoder = load_tiny("bert", normalize=True, features=True)
    capfd.readouterr()
    onnx_writer.write(encoder, path, "fp32")
    assert capfd.readouterr() == ("", "")
    assert first.read_bytes() == path.read_bytes()
    assert os.listdir(tmp_path) == [path.name]


def test_what_torch_cannot_export(load_tiny: Load, tmp_path: Path) -> None:
    encoder = load_tiny("bert")

    class Undecided(torch.nn.Module):
        def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if float(inputs["input_ids"].sum()) > 3:
                return (inputs["input_ids"].float(),)
            return (inputs["input_ids"].float() * 2,)

    broken = copy.copy(encoder)
    object.__setattr__(broken, "module", Undecided())
    with pytest.raises(Unsupported, match="tiny: torch cannot export it: .") as caught:
        onnx_writer.write(broken, tmp_path / "model.onnx", "fp32")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()

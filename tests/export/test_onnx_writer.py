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
from edgessl.export import gelu, onnx_graph, onnx_writer
from tests.builders import POSITIONS

Load = Callable[..., Encoder]
Write = Callable[..., Path]


def inputs_of(encoder: Encoder, batch: int, sequence: int = 1) -> Arrays:
    """Random inputs; every text of the batch has another length, one of them the whole, and of
    every image other patches are looked at, *batch* of the MAE's 16."""
    rng = np.random.default_rng([batch, sequence])
    if encoder.spec.task == "image":
        shape = [axis for axis in encoder.spec.inputs[0].shape if isinstance(axis, int)]
        inputs: Arrays = {"pixel_values": rng.normal(size=(batch, *shape)).astype(np.float32)}
        if len(encoder.spec.inputs) == 2:
            chosen = [rng.permutation(16)[:batch] for _ in range(batch)]
            inputs |= {"patch_indices": np.array(chosen)}
        return inputs
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
        ("pixel_values", TensorProto.FLOAT, ["batch", 3, 16, 16]),
        ("patch_indices", TensorProto.INT64, ["batch", "kept"]),
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
    onnx_writer.write(encoder, path)
    names = [value.name for value in onnx.load(str(path)).graph.output]
    assert names == [spec.name for spec in encoder.spec.outputs]
    assert_same(encoder, path, [(1, 1), (3, 9), (5, POSITIONS)], atol=1e-5)


def test_encoder_is_left_as_it_was(load_tiny: Load, tmp_path: Path) -> None:
    encoder = load_tiny("bert")
    before = copy.deepcopy(encoder.module.state_dict())
    onnx_writer.write(encoder, tmp_path / "model.onnx")
    after = encoder.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {tensor.dtype for tensor in after.values() if tensor.is_floating_point()} == {
        torch.float32
    }


@pytest.mark.parametrize("family", ["bert", "vit_mae"])
def test_file_tells_nothing_of_this_machine(write_tiny: Write, family: str) -> None:
    path = write_tiny(family, "fp32")
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
    onnx_writer.write(encoder, path)
    assert capfd.readouterr() == ("", "")
    assert first.read_bytes() == path.read_bytes()
    assert os.listdir(tmp_path) == [path.name]


def test_gelu_is_written_as_onnxruntime_knows_it(write_tiny: Write, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    path = write_tiny("bert", "fp32")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("Gelu") + kinds.count("BiasGelu") == 2 and "Erf" not in kinds
    assert gelu.plain(onnx.load(str(path))) == 0  # nothing is left to reorder


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
        onnx_writer.write(broken, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()

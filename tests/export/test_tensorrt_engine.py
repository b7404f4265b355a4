"""Real engines, built with the real parser and builder of TensorRT for RTX; it needs no GPU."""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.backend import BuildPlan
from edgessl.errors import OutputError, RecipeError, Unsupported
from edgessl.export import tensorrt_engine
from edgessl.export.tensorrt_engine import build, build_engine
from edgessl.export.tensorrt_graph import inspect

pytest.importorskip("tensorrt_rtx")

TEXT = ((1, 1), (4, 8), (8, 16))
IMAGES = ((1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))
BATCH = ((1, 4, 8), (2, 4, 8), (8, 4, 8))


def plan(precision: str = "fp32", target: str = "tensorrt-rtx", **options: Any) -> BuildPlan:
    options.setdefault("profiles", {"x": BATCH})
    return BuildPlan(target, precision, **options)


def export(module: Any, inputs: dict[str, Any], output: str, axes: Any, path: Path) -> Path:
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs=inputs,
            dynamo=True,
            opset_version=18,
            output_names=[output],
            dynamic_shapes=axes,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return path


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with mean pooling over the mask."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    class Embedder(torch.nn.Module):  # type: ignore[name-defined,misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            config = transformers.BertConfig(
                vocab_size=50,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=16,
                attn_implementation="eager",
            )
            self.bert = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.bert(input_ids, attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(pooled)

    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    return export(
        Embedder(),
        {"input_ids": ids, "attention_mask": ids},
        "sentence_embedding",
        {"input_ids": axes, "attention_mask": axes},
        tmp_path_factory.mktemp("bert") / "bert.onnx",
    )


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of a tiny ViT-MAE: patches, [CLS], positions, pre-norm blocks, mean of patches."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    class Embedder(torch.nn.Module):  # type: ignore[name-defined,misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            config = transformers.ViTConfig(
                image_size=16,
                patch_size=4,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                attn_implementation="eager",
            )
            self.vit = transformers.ViTModel(config, add_pooling_layer=False)

        def forward(self, pixel_values: Any) -> Any:
            hidden = self.vit(pixel_values).last_hidden_state
            return torch.nn.functional.normalize(hidden[:, 1:].mean(1))

    return export(
        Embedder(),
        {"pixel_values": torch.zeros(2, 3, 16, 16)},
        "image_embedding",
        {"pixel_values": {0: torch.export.Dim("batch")}},
        tmp_path_factory.mktemp("vit") / "vit.onnx",
    )


def graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
    *,
    inputs: dict[str, list[int | str]] | None = None,
    opset: int = 17,
) -> Path:
    """An ONNX file with inputs of float32 and the output ``y``."""
    inputs = inputs or {"x": ["batch", 4, 8]}
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, next(iter(inputs.values())))],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    domains = [helper.make_opsetid("", opset)]
    domains += [helper.make_opsetid(n.domain, 1) for n in nodes if n.domain]
    onnx.save(helper.make_model(made, opset_imports=domains, ir_version=8), str(path))
    return path


def quantized(path: Path, zero_point: Any, *, name_it: bool = True) -> Path:
    """x -> Q -> DQ -> MatMul with an int8 weight -> y."""
    rng = np.random.default_rng(0)
    tail = ["zero"] if name_it else []
    return graph(
        path,
        [
            helper.make_node("QuantizeLinear", ["x", "scale", *tail], ["q"], name="quantize_x"),
            helper.make_node("DequantizeLinear", ["q", "scale", *tail], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["dw"], axis=1),
            helper.make_node("MatMul", ["d", "dw"], ["y"]),
        ],
        {
            "scale": np.array(0.05, np.float32),
            "zero": np.array(zero_point),
            "w": rng.integers(-127, 127, (8, 8)).astype(np.int8),
            "scales": np.full(8, 0.01, np.float32),
            "zeros": np.zeros(8, np.int8),
        },
    )


def relu(path: Path) -> Path:
    return graph(path, [helper.make_node("Relu", ["x"], ["y"])])


def test_bert_with_dynamic_batch_and_sequence(bert: Path, tmp_path: Path) -> None:
    profiles = {"input_ids": TEXT, "attention_mask": TEXT}
    facts = build(bert, tmp_path, plan(profiles=profiles))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.engine", "model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == bert.read_bytes()
    assert (tmp_path / "model.engine").stat().st_size > 10_000
    assert facts["engine"] == "model.engine"
    assert facts["opset"] == 18
    assert facts["package"] == "tensorrt_rtx"
    assert facts["version"].count(".") >= 2
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(facts["compute_capabilities"])
    assert facts["profiles"] == {"input_ids": [list(s) for s in TEXT]} | {
        "attention_mask": [list(s) for s in TEXT]
    }
    assert facts["strongly_typed"] is True
    assert facts["tf32"] is False  # fp32 means fp32
    assert json.loads(json.dumps(facts)) == facts


def test_vit_with_dynamic_batch(vit: Path) -> None:
    engine = build_engine(vit, plan(profiles={"pixel_values": IMAGES}))
    assert len(engine) > 10_000


def test_one_compute_capability(tmp_path: Path) -> None:
    facts = build(relu(tmp_path / "r.onnx"), tmp_path, plan(compute_capabilities=("8.6", "8.9")))
    assert facts["compute_capabilities"] == ["8.6", "8.9"]


def test_unknown_compute_capability(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"'9.0'; it has .*8\.6"):
        build_engine(relu(tmp_path / "r.onnx"), plan(compute_capabilities=("9.0",)))


def test_the_builders_own_reason_when_it_gives_up(tmp_path: Path) -> None:
    product = graph(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.eye(8, dtype=np.float32)},
    )
    # TensorRT for RTX has no fp32 matrix products on Turing.
    with pytest.raises(Unsupported, match="cannot build an engine from m.onnx: .*Turing") as caught:
        build_engine(product, plan(compute_capabilities=("7.5",)))
    assert "\n" not in str(caught.value)


def test_static_shapes_need_no_profile(tmp_path: Path) -> None:
    path = graph(
        tmp_path / "s.onnx", [helper.make_node("Relu", ["x"], ["y"])], inputs={"x": [2, 4, 8]}
    )
    assert build_engine(path, plan(profiles={}))
    assert build_engine(path, plan(profiles={"x": ((2, 4, 8),) * 3}))


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({"input_idz": BATCH, "x": BATCH}, "'input_idz', which is no input.*Its inputs: x"),
        ({"y": BATCH, "x": BATCH}, "'y', which is no input"),
        ({}, "input 'x' .* is dynamic and has no shape profile"),
        ({"x": ((1, 4, 9),) * 3}, "smallest shape .* does not fit"),
        ({"x": ((1, 4, 8), (2, 4, 8), (8, 4))}, "largest shape .* does not fit"),
        ({"x": ((4, 4, 8), (2, 4, 8), (8, 4, 8))}, "not 1 <= smallest"),
        ({"x": ((0, 4, 8), (2, 4, 8), (8, 4, 8))}, "not 1 <= smallest"),
    ],
)
def test_profiles_that_do_not_fit(tmp_path: Path, profiles: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(relu(tmp_path / "r.onnx"), tmp_path, plan(profiles=profiles))
    assert not list(tmp_path.glob("model.engine*"))


def test_the_precision_must_be_in_the_graph(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="computes nothing in fp16.*--precision fp16"):
        build_engine(relu(tmp_path / "r.onnx"), plan("fp16"))


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_explicit_casts_make_half_precision(tmp_path: Path, precision: str, kind: str) -> None:
    path = graph(
        tmp_path / "h.onnx",
        [
            helper.make_node("Cast", ["x"], ["h"], to=getattr(TensorProto, kind)),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
        ],
    )
    assert build_engine(path, plan(precision))


def test_symmetric_int8(tmp_path: Path) -> None:
    facts = build(quantized(tmp_path / "q.onnx", np.int8(0)), tmp_path, plan("int8"))
    assert facts["engine"] == "model.engine"
    assert facts["int8_placement"] == {"matmul_and_conv": 1, "on_int8_inputs": 1}


@pytest.mark.parametrize(
    ("zero_point", "message"),
    [
        (np.int8(3), "QuantizeLinear 'quantize_x': zero point is not 0"),
        (np.uint8(0), "'quantize_x' is uint8; TensorRT takes int8 only"),
        (np.uint8(128), "'quantize_x' is uint8"),
    ],
)
def test_quantization_that_tensorrt_does_not_take(
    tmp_path: Path, zero_point: Any, message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        build(quantized(tmp_path / "q.onnx", zero_point), tmp_path, plan("int8"))
    assert [p.name for p in tmp_path.iterdir()] == ["q.onnx"]


def test_a_quantizer_without_zero_point_is_uint8(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="uint8"):
        inspect(quantized(tmp_path / "q.onnx", np.int8(0), name_it=False), "int8")


def test_int8_without_any_quantizer(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no QuantizeLinear"):
        build_engine(relu(tmp_path / "r.onnx"), plan("int8"))


def test_asymmetric_quantization_also_stops_at_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without the onnx package gets TensorRT's own words."""
    monkeypatch.setattr(tensorrt_engine, "inspect", lambda *_: {})
    with pytest.raises(Unsupported, match="Non-zero zero point is not supported"):
        build_engine(quantized(tmp_path / "q.onnx", np.int8(3)), plan("int8"))


def test_unknown_operator(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="fro", domain="my.own")
    with pytest.raises(Unsupported, match="cannot read u.onnx: Frobnicate 'fro': ") as caught:
        build_engine(graph(tmp_path / "u.onnx", [node]), plan())
    assert "\n" not in str(caught.value)


def test_opset_23_attention_with_a_mask_is_refused_and_kills_nobody(tmp_path: Path) -> None:
    node = helper.make_node("Attention", ["q", "q", "q", "mask"], ["y"], name="attention")
    path = graph(
        tmp_path / "a.onnx",
        [node],
        inputs={"q": ["batch", 2, 4, 8], "mask": ["batch", 1, 4, 4]},
        opset=23,
    )
    profiles = {
        "q": ((1, 2, 4, 8), (2, 2, 4, 8), (4, 2, 4, 8)),
        "mask": ((1, 1, 4, 4), (2, 1, 4, 4), (4, 1, 4, 4)),
    }
    with pytest.raises(Unsupported, match="tensorrt"):
        build_engine(path, plan(profiles=profiles))


def test_a_builder_that_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = relu(tmp_path / "r.onnx")

    def dies(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, -11, b"some noise\n")

    monkeypatch.setattr(subprocess, "run", dies)
    with pytest.raises(Unsupported, match=r"died with signal 11.* on r.onnx: some noise"):
        build_engine(path, plan())


def test_not_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rubbish.onnx"
    path.write_bytes(b"hello world" * 10)
    with pytest.raises(Unsupported, match="rubbish.onnx: not an ONNX file"):
        build_engine(path, plan())
    monkeypatch.setattr(tensorrt_engine, "inspect", lambda *_: {})
    with pytest.raises(Unsupported, match="cannot read rubbish.onnx"):
        build_engine(path, plan())


def test_an_engine_that_cannot_be_written(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "model.engine.partial").mkdir()  # where the worker wants to write
    with pytest.raises(OutputError, match="cannot be written"):
        tensorrt_engine._run_worker(
            relu(tmp_path / "r.onnx"), plan(), directory / "model.engine.partial", False
        )


def test_the_onnx_may_already_be_in_its_place(tmp_path: Path) -> None:
    path = relu(tmp_path / "model.onnx")
    before = path.read_bytes()
    assert build(path, tmp_path, plan())["engine"] == "model.engine"
    assert path.read_bytes() == before

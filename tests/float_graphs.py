"""Small fp32 encoders, an ONNX node at a time, and tokens to calibrate them on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgessl import openvino_core
from edgessl.backend import Arrays
from edgessl.calibrate.observe import Data
from edgessl.spec import EncoderSpec, ImageSpec, TensorSpec, TextSpec

Floats = npt.NDArray[np.float32]
VECTOR = "sentence_embedding"


class Net:
    """``x`` (batch, tokens, width) and ``attention_mask`` in; whatever is added out."""

    def __init__(self, width: int, image: bool = False) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        shape: list[Any] = ["batch", width, 8, 8] if image else ["batch", "tokens", width]
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        if not image:
            mask = helper.make_tensor_value_info(
                "attention_mask", TensorProto.INT64, ["batch", "tokens"]
            )
            self.inputs.append(mask)

    def constant(self, array: Any, name: str = "") -> str:
        name = name or f"c{len(self.tensors)}"
        if all(tensor.name != name for tensor in self.tensors):
            self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **options: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], f"node_{output}", **options))
        return output

    def linear(self, x: str, weight: Any, bias: Any = None, layer: str = "") -> str:
        layer = layer or f"layer.{len(self.nodes)}.dense"
        product = self.add("MatMul", x, self.constant(weight, f"{layer}.weight"))
        return product if bias is None else self.plus(product, bias, f"{layer}.bias")

    def plus(self, x: str, constant: Any, name: str = "") -> str:
        return self.add("Add", x, self.constant(constant, name))

    def gelu(self, x: str) -> str:
        half, one, root = (self.constant(np.float32(v)) for v in (0.5, 1, 2**0.5))
        grown = self.add("Add", self.add("Erf", self.add("Div", x, root)), one)
        return self.add("Mul", self.add("Mul", x, grown), half)

    def norm(self, x: str, width: int) -> str:
        scale, bias = np.linspace(0.5, 1.5, width), np.linspace(-0.2, 0.2, width)
        parts = (self.constant(part.astype(np.float32)) for part in (scale, bias))
        return self.add("LayerNormalization", x, *parts, axis=-1)

    def pool(self, x: str) -> str:
        """The mean over real tokens, as ``sentence_embedding``."""
        seen = self.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        seen = self.add("Unsqueeze", seen, self.constant(np.array([2])))
        middle = self.constant(np.array([1]))
        total = self.add("ReduceSum", self.add("Mul", x, seen), middle, keepdims=0)
        return self.add(
            "Div", total, self.add("ReduceSum", seen, middle, keepdims=0), output=VECTOR
        )

    def model(self, *outputs: str) -> Any:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "encoder", self.inputs, infos, self.tensors)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def copied(model: Any) -> Any:
    new = onnx.ModelProto()
    new.CopyFrom(model)
    return new


def check(model: Any) -> None:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)


def weight(rows: int, columns: int, seed: int) -> Floats:
    values = np.random.default_rng(seed).normal(size=(rows, columns)) / np.sqrt(rows)
    return np.asarray(values, np.float32)


def blocks(count: int = 2, width: int = 16) -> Net:
    """A feed-forward encoder of *count* blocks with residuals and norms; its vector pooled."""
    net = Net(width)
    x = "x"
    for number in range(count):
        layer, wide = f"encoder.layer.{number}", 2 * width
        up = net.linear(
            x, weight(width, wide, 2 * number), weight(1, wide, 90)[0], f"{layer}.intermediate"
        )
        down = net.linear(
            net.gelu(up),
            weight(wide, width, 2 * number + 1),
            np.zeros(width, np.float32),
            f"{layer}.output",
        )
        x = net.norm(net.add("Add", x, down), width)
    net.pool(x)
    return net


def tokens(count: int, width: int, seed: int = 0, longest: int = 12) -> list[Floats]:
    """Items ``(tokens, width)`` of several lengths; channel 3 is far larger than the others."""
    rng = np.random.default_rng(seed)
    sizes = np.ones(width)
    sizes[3] = 20
    lengths = rng.integers(2, longest + 1, count)
    return [(rng.normal(0.3, 1, (n, width)) * sizes).astype(np.float32) for n in lengths]


def data(items: Sequence[Floats], garbage: float = 0.0) -> Data:
    """The items padded with *garbage* to one length; or images ``(width, 8, 8)`` stacked."""
    if items[0].ndim == 3:
        outputs = (TensorSpec("image_embedding", "float32", ("batch", 4)),)
        inputs = (TensorSpec("x", "float32", ("batch", len(items[0]), 8, 8)),)
        spec = EncoderSpec("image", "vit", "mean", False, inputs, outputs, ImageSpec(8, 8))
        return Data(items, lambda batch: {"x": np.stack(batch)}, spec)
    width = items[0].shape[1]
    spec = EncoderSpec(
        "text",
        "bert",
        "mean",
        False,
        (
            TensorSpec("x", "float32", ("batch", "sequence", width)),
            TensorSpec("attention_mask", "int64", ("batch", "sequence")),
        ),
        (TensorSpec(VECTOR, "float32", ("batch", width)),),
        TextSpec(max_length=64),
    )

    def prepare(batch: list[Floats]) -> Arrays:
        longest = max(map(len, batch))
        x = np.full((len(batch), longest, width), garbage, np.float32)
        mask = np.zeros((len(batch), longest), np.int64)
        for row, item in enumerate(batch):
            x[row, : len(item)], mask[row, : len(item)] = item, 1
        return {"x": x, "attention_mask": mask}

    return Data(items, prepare, spec)


def run(model: Any, feed: Arrays, *outputs: str) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(list(outputs) or None, feed))


def run_openvino(model: Any, feed: Arrays, output: str) -> Floats:
    compiled = compile_openvino(model)
    known = {port.any_name for port in compiled.inputs}  # without those that nothing reads
    result: Floats = compiled({name: feed[name] for name in known})[output]
    return result


def compile_openvino(model: Any) -> Any:
    core = openvino_core.core("a test")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)


def onnxruntime_operators(model: Any, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of the graph's operators."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def openvino_operators(model: Any) -> Counter[str]:
    """``FullyConnected I8`` and the like: what OpenVINO computes in what."""
    found: Counter[str] = Counter()
    for node in compile_openvino(model).get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        primitive = str(facts["primitiveType"].astype(str)).rpartition("_")[2].upper()
        found[f"{facts['layerType'].astype(str)} {primitive}"] += 1
    return found

"""int8 with ranges taken at run time, for ONNX Runtime: no data, and the fewest milliseconds for
one short text.

A range is one over the whole batch, padding included, so **a vector depends on what else is in its
batch** (docs/weights.md has figures); weights alone (``weight_only``) have no such ties.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.calibrate.weight_only import quantize_embeddings
from edgessl.errors import Unsupported, first_line, require

if TYPE_CHECKING:
    import onnx

# Says that shapes were inferred; without it each call warns through the root logger.
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantize(model: onnx.ModelProto, reduced: bool = False) -> dict[str, Any]:
    """int8 weights per column and uint8 activations by dynamic range, in place or not at all.

    MatMul and Gemm with constant weights become MatMulInteger behind DynamicQuantizeLinear, which
    ONNX Runtime fuses to DynamicQuantizeMatMul. Embedding tables become int8 by rows and columns
    (``quantize_embeddings``).

    Args:
        model: float32, of opset 13 or later.
        reduced: weights of 7 bits, for x86 processors without VNNI, whose int16 sums saturate.

    Returns:
        ``operators`` (how many), ``reduced`` and ``int8_tables`` (names).

    Raises:
        MissingDependency: onnxruntime is not installed.
        Unsupported: onnxruntime cannot quantize this graph, or finds nothing to quantize.
    """
    library = require("onnxruntime.quantization", "onnx", "dynamic int8")
    onnx = require("onnx", "onnx", "dynamic int8")
    work = onnx.ModelProto()
    work.CopyFrom(model)
    notes = {note.key: note.value for note in work.metadata_props}
    onnx.helper.set_model_props(work, {**notes, **_PREPARED})
    with tempfile.TemporaryDirectory(prefix="edgessl-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            library.quantize_dynamic(
                work,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                reduce_range=reduced,
                weight_type=library.QuantType.QInt8,
                # what shape inference finds no type for is float32 here
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},
            )
            work = onnx.load(str(path))
        except Exception as err:  # RuntimeError, ValueError and protobuf's own
            raise Unsupported(
                f"onnxruntime cannot quantize this graph dynamically: {first_line(err)}."
            ) from err
    count = sum(node.op_type == "MatMulInteger" for node in work.graph.node)
    if not count:
        raise Unsupported("dynamic int8: the graph has no MatMul or Gemm with constant weights.")
    onnx.helper.set_model_props(work, notes)
    facts = quantize_embeddings(work)  # last: its nodes would look like a quantized model's
    model.CopyFrom(work)
    return {"operators": count, "reduced": reduced} | facts

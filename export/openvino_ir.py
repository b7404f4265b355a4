"""ONNX -> OpenVINO IR. No torch: a device converts for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgessl.backend import BuildPlan
from edgessl.errors import Unsupported
from edgessl.openvino_core import core, library
from edgessl.spec import FEATURES_NAME

# OpenVINO computes in bf16 unasked where a CPU has it (1.5e-3 off), so the manifest decides.
# What is left of a quantized encoder stays in f32.
INFERENCE_PRECISION = {"fp16": "f16", "bf16": "bf16"}


def build(onnx: Path, directory: Path, plan: BuildPlan) -> dict[str, Any]:
    """Convert *onnx* to ``openvino_model.xml`` and ``.bin`` in *directory*.

    fp16 and bf16 store their weights in 16 bits.

    Raises:
        MissingDependency: openvino is not installed.
        Unsupported: OpenVINO cannot read this graph.
    """
    openvino = library("the openvino target")
    try:
        model = core("the openvino target").read_model(str(onnx))
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1][:300]
        raise Unsupported(f"OpenVINO cannot read {onnx.name}: {reason}") from err
    if plan.repeat is not None:
        _repeat(openvino, model, plan.repeat)
    openvino.save_model(
        model,
        str(directory / "openvino_model.xml"),
        compress_to_fp16=plan.precision in ("fp16", "bf16"),
    )
    return {
        "openvino": openvino.get_version().partition("-")[0],
        "inference_precision": INFERENCE_PRECISION.get(plan.precision, "f32"),
    }


def _repeat(openvino: Any, model: Any, vector: str) -> None:
    """Give the output *vector* ``(batch, dim)`` again as ``last_hidden_state``
    ``(batch, 1, dim)``, unless the graph has that already."""
    named = {name: port for port in model.outputs for name in port.names}
    if FEATURES_NAME in named:
        return
    operators = openvino.opset13
    result = operators.unsqueeze(named[vector].node.input_value(0), operators.constant([1]))
    result.set_friendly_name(FEATURES_NAME)
    result.output(0).set_names({FEATURES_NAME})
    model.add_outputs([result.output(0)])

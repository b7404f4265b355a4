"""Post-training int8 quantization with NNCF, in place."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgessl.backend import Arrays
from edgessl.errors import Unsupported, first_line, require


def quantize_onnx(path: Path, samples: Sequence[Arrays]) -> dict[str, Any]:
    """Put QuantizeLinear/DequantizeLinear pairs into an ONNX file.

    Symmetric int8 with zero points 0, weights per channel: the form that ONNX Runtime and every
    TensorRT both read. SmoothQuant (Xiao et al., 2023) and fast bias correction as NNCF's
    transformer preset has them.

    Args:
        path: an fp32 ONNX file, overwritten.
        samples: the graph's inputs, a dict a sample, unpadded so that padding enters no range.

    Raises:
        MissingDependency: nncf or onnx is not installed.
        Unsupported: NNCF cannot quantize this graph.
    """
    nncf = require("nncf", "compress", "int8 quantization")
    onnx = require("onnx", "compress", "int8 quantization")
    preset = nncf.QuantizationPreset.PERFORMANCE  # symmetric activations
    onnx.save(_quantize(nncf, onnx.load(str(path)), samples, preset), str(path))
    return {"scheme": "int8 symmetric, Q/DQ"}


def quantize_openvino(path: Path, samples: Sequence[Arrays]) -> dict[str, Any]:
    """Put FakeQuantize nodes into an OpenVINO IR (the .xml's path); as ``quantize_onnx``,
    but with NNCF's own choice of symmetric and asymmetric activations."""
    nncf = require("nncf", "compress", "int8 quantization")
    openvino = require("openvino", "openvino", "int8 quantization for openvino")
    model = openvino.Core().read_model(str(path))
    quantized = _quantize(nncf, model, samples, None)
    # OpenVINO maps the old .bin into memory: write beside it, then replace.
    fresh = path.with_name("quantized.xml")
    openvino.save_model(quantized, str(fresh), compress_to_fp16=False)
    del model, quantized
    for suffix in (".xml", ".bin"):
        os.replace(fresh.with_suffix(suffix), path.with_suffix(suffix))
    return {"scheme": "int8, NNCF transformer preset"}


def _quantize(nncf: Any, model: Any, samples: Sequence[Arrays], preset: Any) -> Any:
    try:
        with _nncf_output():
            return nncf.quantize(
                model,
                nncf.Dataset(list(samples)),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=preset,
                subset_size=len(samples),
            )
    except Exception as err:  # NNCF and its backends raise many unrelated types
        raise Unsupported(f"NNCF cannot quantize this encoder: {first_line(err)}") from err


@contextlib.contextmanager
def _nncf_output() -> Iterator[None]:
    """NNCF's progress bars on a terminal's stderr and nowhere else; its log lines never."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            sink: Any = sys.stderr
            if not sys.stderr.isatty():
                sink = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(sink))
            yield
    finally:
        logger.setLevel(level)

"""The ``onnx`` target: the waist itself is what runs. No torch."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from edgessl.backend import BuildPlan
from edgessl.errors import Unsupported


def build(onnx: Path, directory: Path, plan: BuildPlan) -> dict[str, Any]:
    """Put the ONNX into *directory* as ``model.onnx``; returns its compatibility facts."""
    shutil.copyfile(onnx, directory / "model.onnx")
    model = load(onnx)
    return {} if model is None else {"opset": opset(model)}


def load(path: Path) -> Any:
    """The ``onnx.ModelProto`` in *path*, or None where the ``onnx`` package is not installed: a
    device that builds from a bundle does without.

    Raises:
        Unsupported: not an ONNX file.
    """
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as err:  # google.protobuf's DecodeError, which onnx does not export
        raise Unsupported(f"{path.name}: not an ONNX file ({err}).") from err


def opset(model: Any) -> int:
    """The version of the default operator set that *model* uses."""
    return max((int(entry.version) for entry in model.opset_import if not entry.domain), default=0)

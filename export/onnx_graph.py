"""The ``onnx`` target: the waist itself is what runs. No torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgessl.backend import BuildPlan
from edgessl.errors import require


def build(onnx: Path, directory: Path, plan: BuildPlan) -> dict[str, Any]:
    """Put the ONNX into *directory* as ``model.onnx``; returns its compatibility facts."""
    shutil.copyfile(onnx, directory / "model.onnx")
    return {"opset": opset(onnx)}


def opset(path: Path) -> int:
    """The version of the default operator set that an ONNX file uses."""
    onnx = require("onnx", "compress", "reading an ONNX graph")
    model = onnx.load(str(path), load_external_data=False)
    return max(int(entry.version) for entry in model.opset_import if not entry.domain)

"""Tiny encoders and the files made from them, shared by the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgessl import encoders
from edgessl.encoder import Encoder
from edgessl.export import half, onnx_writer
from edgessl.spec import Provenance
from tests.builders import save_mae, save_text_model

Load = Callable[..., Encoder]
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def load_tiny(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """``load_tiny("bert", pooling="cls")``: a tiny encoder of that family."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def load(family: str, **options: Any) -> Encoder:
        directory = folder / family
        if not directory.exists():
            save_mae(directory) if family == "vit_mae" else save_text_model(directory, family)
        return encoders.load(directory, encoders.LoadOptions(**options), Provenance("tiny"))

    return load


@pytest.fixture(scope="session")
def write_tiny(load_tiny: Load, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """``write_tiny("bert", "fp16")``: its ONNX, written once a session."""
    folder = tmp_path_factory.mktemp("onnx")

    def write(family: str, precision: str) -> Path:
        path = folder / f"{family}-{precision}.onnx"
        if not path.exists():
            onnx_writer.write(load_tiny(family, normalize=True, features=True), path)
            if precision != "fp32":
                model = onnx.load(str(path))
                half.convert(model, precision)
                onnx.save(model, str(path))
        return path

    return write

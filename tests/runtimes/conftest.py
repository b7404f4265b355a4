"""Small bundles, built once, for the tests that open them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgessl
from tests.builders import save_mae, save_text_model

Bundle = Callable[..., Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """``built("bert", "onnx", features=True)``: a tiny fp32 bundle; do not change it."""
    folder = tmp_path_factory.mktemp("bundles")

    def build(family: str, target: str, **options: Any) -> Path:
        model = folder / family
        if not model.exists():
            save_mae(model) if family == "vit_mae" else save_text_model(model, family)
        path = folder / "-".join([family, target, *map(str, options.values())])
        if not path.exists() and target == "onnx":
            edgessl.build(model, target, path, **options)
        elif not path.exists():  # without another export
            edgessl.build(build(family, "onnx", **options), target, path)
        return path

    return build

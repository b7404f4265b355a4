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


@pytest.fixture(scope="session")
def tokenizers_root(
    tmp_path_factory: pytest.TempPathFactory, minilm: Path, sentences: list[str]
) -> Path:
    """A folder with one directory for each of ``tests.text_models.KINDS``."""
    from tests import text_models  # brings transformers

    return text_models.save_all(tmp_path_factory.mktemp("tokenizers"), minilm, sentences)


@pytest.fixture(scope="session")
def pairs(tokenizers_root: Path) -> dict[str, Any]:
    """transformers' tokenizer and ours, of each kind; 40 tokens at most."""
    from tests import text_models

    return {kind: text_models.pair(tokenizers_root / kind) for kind in text_models.KINDS}

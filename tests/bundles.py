"""Bundles of the two small encoders that tests of the pipeline share, each built once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgessl
from edgessl import bundle
from edgessl.bundle import Manifest
from edgessl.pipeline import Built
from tests.builders import random_texts

ASSETS = {
    "bert": {"config.json", "tokenizer.json", "tokenizer_config.json"},
    "mae": {"config.json", "preprocessor_config.json"},
}
GRAPHS = {
    "onnx": {"model.onnx"},
    "openvino": {"openvino_model.xml", "openvino_model.bin"},
    "tensorrt": {"model.onnx", "build_plan.json"},
    "tensorrt-rtx": {"model.onnx", "model.engine"},
}
_OPENS_IN_OTHERS = {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"}


def files_of(model: str, target: str) -> set[str]:
    """Every file that such a bundle lists in its manifest."""
    others = target == "onnx" or (target == "openvino" and model == "bert")
    files = ASSETS[model] | GRAPHS[target] | {bundle.REFERENCE}
    return files | _OPENS_IN_OTHERS if others else files


class Bundles:
    """``bundles.get("bert", "onnx", "int8")``: built at the first call. Do not change them."""

    def __init__(self, folder: Path, models: dict[str, Path]) -> None:
        self.folder, self.models = folder, models
        self.built: dict[str, Built] = {}
        self.calibration = {"bert": folder / "texts.txt", "mae": folder / "images.npy"}
        self.calibration["bert"].write_text("\n".join(random_texts(80, seed=5)))
        np.save(self.calibration["mae"], smooth_images(60))

    def get(self, model: str, target: str, precision: str) -> Built:
        name = f"{model}-{target}-{precision}"
        if name not in self.built:
            self.built[name] = edgessl.build(
                self.models[model],
                target,
                self.folder / name,
                precision=precision,
                timing=target == "openvino",  # once is enough
                **self.quantize(model, precision),
            )
        return self.built[name]

    def quantize(self, model: str, precision: str) -> dict[str, Any]:
        """The options that int8 needs."""
        if precision != "int8":
            return {}
        return {"calibration": str(self.calibration[model]), "samples": 50}


def smooth_images(count: int) -> Any:
    """Colour gradients with a box in them: uint8 ``(count, 32, 32, 3)``."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:1:32j, 0:1:32j][..., None]
    images = []
    for _ in range(count):
        image = rng.uniform(60, 180, 3) + 90 * (
            y * rng.uniform(-1, 1, 3) + x * rng.uniform(-1, 1, 3)
        )
        top, left = rng.integers(0, 20, 2)
        image[top : top + 10, left : left + 10] = rng.uniform(0, 255, 3)
        images.append(image + rng.normal(0, 5, image.shape))
    return np.array(images).clip(0, 255).astype(np.uint8)


def sign(directory: Path, manifest: Manifest) -> None:
    """Write *manifest* with the entries of the files that are there now."""
    files = {name: bundle.file_entry(directory / name) for name in bundle.list_files(directory)}
    text = replace(manifest, files=files).dumps()
    (directory / bundle.MANIFEST).write_text(text, encoding="utf-8")

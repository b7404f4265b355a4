"""The two real encoders and the real data that every figure is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples import data
from examples.figures.environments import ROOT

MAE = ROOT / "examples" / "models" / "vit-mae-cifar10"
CALIBRATION_ITEMS = 300


@dataclass(frozen=True)
class Task:
    """An encoder, ``items`` to measure on and a file of others to calibrate with."""

    name: str
    model: Path
    items: Any  # list of str, or uint8 (n, H, W, 3)
    calibration: Path


def texts(directory: Path, items: int, calibration: int = CALIBRATION_ITEMS) -> Task:
    """all-MiniLM-L6-v2 and *items* review sentences; the calibration sentences are others."""
    sentences = data.sentences()
    order = np.random.default_rng(0).permutation(len(sentences))
    chosen = [sentences[index] for index in order[:items]]
    # the measured thousand is set apart even when fewer are measured
    apart = {sentences[index] for index in order[:1000]}
    rest = [sentences[index] for index in order[1000:]]
    others = [text for text in dict.fromkeys(rest) if text not in apart and "\n" not in text]
    path = directory / "calibration.txt"
    path.write_text("\n".join(others[:calibration]) + "\n", encoding="utf-8")
    return Task("all-MiniLM-L6-v2", data.minilm(), chosen, path)


def images(directory: Path, items: int, calibration: int = CALIBRATION_ITEMS) -> Task:
    """The CIFAR-10 MAE and the first *items* test images; calibration is from the train split."""
    path = directory / "calibration.npy"
    np.save(path, data.cifar10("train", calibration))
    return Task("vit-mae-cifar10", MAE, data.cifar10("test", items), path)

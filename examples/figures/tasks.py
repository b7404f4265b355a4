"""The two real encoders and the real data that every figure is measured on."""

from __future__ import annotations

import re
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

    def calibration_items(self) -> list[Any]:
        """What the file holds."""
        if self.calibration.suffix == ".npy":
            return list(np.load(self.calibration))
        return self.calibration.read_text(encoding="utf-8").splitlines()


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


def foreign_texts(items: int) -> list[str]:
    """*items* distinct texts that are nothing like a review: half of them sentences of Moby Dick,
    half pieces of its paragraphs, 40 to 120 words long."""
    paragraphs = data.moby_dick()
    split = [text for paragraph in paragraphs for text in re.split(r"(?<=[.!?])\s+", paragraph)]
    sentences = [text for text in dict.fromkeys(split) if len(text.split()) >= 4]
    pieces = []
    for words in map(str.split, paragraphs):
        cut = (words[start : start + 120] for start in range(0, len(words), 120))
        pieces += [" ".join(piece) for piece in cut if len(piece) >= 40]
    half = items // 2
    return draw(sentences, half) + draw(list(dict.fromkeys(pieces)), items - half)


def many_texts(directory: Path, count: int) -> Path:
    """A file of *count* distinct texts, 4 to 40 words of the reviews and of Moby Dick each, cut
    again and again at other places: for what depends on how many there are, not on what they say.
    """
    rng = np.random.default_rng(0)
    words = " ".join(data.sentences() + data.moby_dick()).split()
    texts: dict[str, None] = {}
    while len(texts) < count:
        ends = np.cumsum(rng.integers(4, 41, len(words) // 20))
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            texts[" ".join(words[start:end])] = None
    texts.pop("", None)
    path = directory / f"texts-{count}.txt"
    path.write_text("\n".join(list(texts)[:count]) + "\n", encoding="utf-8")
    return path


def draw(texts: list[str], count: int) -> list[str]:
    return [texts[index] for index in np.random.default_rng(0).permutation(len(texts))[:count]]

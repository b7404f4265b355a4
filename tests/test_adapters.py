"""Adapters, against the session itself and plain numpy; the libraries they stand in for are not
needed (tests/test_ecosystem_peers.py has LangChain's own store)."""

from __future__ import annotations

import asyncio
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgessl
from edgessl.adapters import LangChainEmbeddings, SentenceEncoder
from edgessl.errors import RecipeError
from edgessl.runtimes.session import Session
from tests.builders import change_json, random_texts, save_text_model

PROMPTS = {"query": "aba ", "passage": "cede "}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Of a model that has prompts, and whose vectors are not normalised."""
    folder = tmp_path_factory.mktemp("adapters")
    model = save_text_model(folder / "bert")
    (model / "config_sentence_transformers.json").write_text("{}")
    change_json(model / "config_sentence_transformers.json", prompts=PROMPTS)
    with edgessl.load(edgessl.build(model, "onnx", folder / "bundle").path) as opened:
        yield opened


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return random_texts(12, seed=1)


def test_encode_gives_the_sessions_vectors(session: Session, texts: list[str]) -> None:
    encoder = SentenceEncoder(session)
    vectors = session.embed(texts)

    found = encoder.encode(texts, batch_size=4, show_progress_bar=False, convert_to_numpy=True)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors)
    np.testing.assert_array_equal(encoder.encode(tuple(texts)), vectors)
    np.testing.assert_array_equal(encoder.encode(np.array(texts)), vectors)
    np.testing.assert_array_equal(encoder.encode(iter(texts)), vectors)
    assert encoder.get_sentence_embedding_dimension() == vectors.shape[1]
    assert encoder.get_embedding_dimension() == vectors.shape[1]
    assert encoder.max_seq_length == session.manifest.recipe["max_length"]


def test_one_text_gives_one_vector(session: Session, texts: list[str]) -> None:
    one = SentenceEncoder(session).encode(texts[0])
    assert one.shape == (session.manifest.encoder.dimensions,)
    np.testing.assert_array_equal(one, session.embed(texts[:1])[0])


def test_no_texts(session: Session) -> None:
    encoder = SentenceEncoder(session)
    for bar in (False, True):
        assert encoder.encode([], show_progress_bar=bar).shape == (
            0,
            encoder.get_embedding_dimension(),
        )
    assert LangChainEmbeddings(session).embed_documents([]) == []


def test_lengths_and_dimensions(session: Session, texts: list[str]) -> None:
    encoder, vectors = SentenceEncoder(session), session.embed(texts).astype(np.float64)
    short = vectors[:, :5]
    unit = short / np.sqrt((short**2).sum(axis=1))[:, None]

    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 1e-3  # there is something to do
    np.testing.assert_allclose(encoder.encode(texts, truncate_dim=5), short, rtol=1e-6)
    found = encoder.encode(texts, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(found, unit, rtol=1e-5, atol=1e-7)
    for width in (0, vectors.shape[1] + 1):
        with pytest.raises(RecipeError, match="truncate_dim must be 1 to"):
            encoder.encode(texts, truncate_dim=width)


def test_prompts(session: Session, texts: list[str]) -> None:
    encoder = SentenceEncoder(session)
    asked = session.embed(["aba " + text for text in texts])
    told = session.embed(["cede " + text for text in texts])

    assert encoder.prompts == PROMPTS
    np.testing.assert_array_equal(encoder.encode(texts, prompt="aba "), asked)
    np.testing.assert_array_equal(encoder.encode(texts, prompt_name="query"), asked)
    np.testing.assert_array_equal(encoder.encode(texts, "query", "cede "), told)
    np.testing.assert_array_equal(encoder.encode_query(texts), asked)
    np.testing.assert_array_equal(encoder.encode_document(texts), told)
    np.testing.assert_array_equal(encoder.encode_query(texts, prompt="cede "), told)
    assert not np.allclose(asked, told)
    with pytest.raises(RecipeError, match="query"):
        encoder.encode(texts, prompt_name="qery")


def test_similarity(session: Session, texts: list[str]) -> None:
    encoder, vectors = SentenceEncoder(session), session.embed(texts)
    expected = [
        [float(a @ b / np.sqrt((a @ a) * (b @ b))) for b in vectors.astype(np.float64)]
        for a in vectors[:3].astype(np.float64)
    ]
    np.testing.assert_allclose(encoder.similarity(vectors[:3], vectors), expected, atol=1e-6)
    pairs = encoder.similarity_pairwise(vectors[:3], vectors[:3])
    np.testing.assert_allclose(pairs, 1, atol=1e-6)
    assert encoder.similarity(vectors[0], vectors[1]).shape == (1, 1)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"convert_to_tensor": True}, "convert_to_tensor=True here. It gives one numpy array"),
        ({"convert_to_numpy": False}, "convert_to_numpy=False"),
        ({"output_value": "token_embeddings"}, "output_value='token_embeddings'"),
        ({"precision": "int8"}, "edgessl embed --dtype"),
        ({"device": "cuda"}, "edgessl.load"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"normalise": True}, "no argument 'normalise'"),
    ],
)
def test_what_is_refused(session: Session, argument: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace("(", r"\(")):
        SentenceEncoder(session).encode(["a"], **argument)


def test_a_bad_item_is_named(session: Session) -> None:
    with pytest.raises(RecipeError, match="text 1 is None"):
        SentenceEncoder(session).encode(["a", None])


def test_progress(session: Session, texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    many = texts * 100  # more than one block
    found = SentenceEncoder(session).encode(many, show_progress_bar=True)
    np.testing.assert_allclose(found, session.embed(many), rtol=1e-5, atol=1e-6)
    assert "embedding" in capsys.readouterr().err


def test_langchain(session: Session, texts: list[str]) -> None:
    embeddings = LangChainEmbeddings(session)
    documents = session.embed(["cede " + text for text in texts])
    query = session.embed(["aba " + texts[0]])[0]

    assert embeddings.embed_documents(texts) == documents.tolist()
    assert embeddings.embed_query(texts[0]) == query.tolist()
    assert all(type(value) is float for value in embeddings.embed_query(texts[0]))

    async def both() -> tuple[list[list[float]], list[float]]:
        rows, row = await asyncio.gather(
            embeddings.aembed_documents(texts), embeddings.aembed_query(texts[0])
        )
        return rows, row

    assert asyncio.run(both()) == (documents.tolist(), query.tolist())


def test_langchain_knows_it_as_its_own(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Embeddings(ABC):
        @abstractmethod
        def embed_query(self, text: str) -> list[float]: ...

    library = types.ModuleType("langchain_core.embeddings")
    vars(library)["Embeddings"] = Embeddings
    monkeypatch.setitem(sys.modules, "langchain_core.embeddings", library)
    assert isinstance(LangChainEmbeddings(session), Embeddings)


def test_images(mae: Path, tmp_path: Path) -> None:
    with edgessl.load(edgessl.build(mae, "onnx", tmp_path / "mae").path) as session:
        encoder = SentenceEncoder(session)
        images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        vectors = session.embed(images)
        np.testing.assert_array_equal(encoder.encode(images), vectors)
        np.testing.assert_allclose(encoder.encode(list(images)), vectors, atol=1e-6)
        np.testing.assert_allclose(encoder.encode(images[0]), vectors[0], atol=1e-6)
        assert encoder.max_seq_length is None and encoder.prompts == {}
        with pytest.raises(RecipeError, match="prompt_name is for text"):
            encoder.encode(images, prompt_name="query")

"""Prompts, lengths and long documents through a whole bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgessl
from edgessl import bundle
from edgessl.errors import ItemError, RecipeError
from edgessl.runtimes.session import Session
from tests.builders import POSITIONS, add_sentence_transformers, change_json, save_text_model

DOCUMENT = " ".join(f"word{n} the cat sat on mats." for n in range(40))
TEXTS = ["the cat", "", DOCUMENT, "a dog sat", DOCUMENT[100:]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompted")
    prompts = {"prompts": {"query": "the dog: ", "none": ""}, "default_prompt_name": None}
    model = save_text_model(folder / "model")
    add_sentence_transformers(model, {"pooling_mode": "mean"}, prompts=prompts)
    edgessl.build(model, "onnx", folder / "bundle")
    change_json(model / "config_sentence_transformers.json", prompts={"q": "another: "})
    edgessl.build(model, "onnx", folder / "other")
    return folder


@pytest.fixture(scope="module")
def session(directory: Path) -> Session:
    return edgessl.load(directory / "bundle")


def test_the_models_prompts_are_there_by_name(session: Session) -> None:
    plain = session.embed(["the dog: " + text for text in TEXTS])
    np.testing.assert_array_equal(session.embed(TEXTS, prompt_name="query"), plain)
    np.testing.assert_array_equal(session.embed(TEXTS, prompt="the dog: "), plain)
    assert np.abs(session.embed(TEXTS) - plain).max() > 1e-3
    with pytest.raises(RecipeError, match="Did you mean 'query'"):
        session.embed(TEXTS, prompt_name="qeury")


def test_prompts_to_choose_from_are_no_other_vector_space(directory: Path) -> None:
    one, other = (bundle.read(directory / name) for name in ("bundle", "other"))
    assert one.encoder.preprocessing != other.encoder.preprocessing
    assert one.variant == other.variant


def test_long_documents_in_chunks(session: Session) -> None:
    chunked = session.embed(TEXTS, long="chunk", max_length=16)
    pieces = session.using(long="chunk", max_length=16).preprocessor.encode(TEXTS)
    assert pieces.owners.tolist().count(2) > 10
    for row, text in enumerate(TEXTS):
        own = [pieces.encodings[place] for place in np.flatnonzero(pieces.owners == row)]
        vectors = np.concatenate(
            [
                session.run({"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])})[
                    "sentence_embedding"
                ]
                for ids in own
            ]
        )
        mean = np.average(vectors, axis=0, weights=pieces.weights[pieces.owners == row])
        if session.manifest.encoder.normalize and len(own) > 1:
            mean /= np.linalg.norm(mean)
        np.testing.assert_allclose(chunked[row], mean, atol=1e-5, err_msg=text[:20])


def test_what_fits_is_the_same_bit_for_bit(session: Session) -> None:
    short = [TEXTS[0], TEXTS[1], TEXTS[3]]
    np.testing.assert_array_equal(session.embed(short, long="chunk"), session.embed(short))


def test_long_documents_refused(session: Session) -> None:
    with pytest.raises(ItemError, match=f"^text 2 has .* tokens, {POSITIONS} are taken") as raised:
        session.embed(TEXTS, long="refuse")
    assert raised.value.index == 2
    told: list[int] = []
    (vectors,) = session.using(long="refuse").embed_blocks([TEXTS], lambda i, e: told.append(i))
    assert told == [2, 4]
    np.testing.assert_array_equal(np.isnan(vectors).all(axis=1), [False, False, True, False, True])

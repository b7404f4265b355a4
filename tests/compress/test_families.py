"""Every family, tiny and with random weights: what is cut is cut everywhere, and nothing else.

``trim`` and ``shorten`` themselves refuse to write what does not give the same vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from edgessl.compress.layers import FAMILIES
from edgessl.errors import Unsupported
from edgessl.shortening import shorten
from edgessl.trimming import trim
from tests import small_vits
from tests.builders import TEXT_FAMILIES, load_text_model, random_texts, save_text_model

LAYERS = {"distilbert": "n_layers"}
LETTERS = "abcdefg"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = ("".join(c for c in text if c in f"{LETTERS} ") for text in random_texts(60))
    path.write_text("\n".join(line for line in lines if line.strip()) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def wordy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny tokenizers know words, too: what can be left out."""
    from tests import builders

    save = builders.save_tokenizer
    monkeypatch.setattr(
        builders, "save_tokenizer", lambda folder, **given: save(folder, extra_tokens=40, **given)
    )


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_fewer_tokens(family: str, tmp_path: Path, texts: Path, wordy: None) -> None:
    model = save_text_model(tmp_path / "model", family)
    found = trim(str(model), [str(texts)], tmp_path / "small")
    assert found.tokens_before - found.tokens_after == 40  # the words; letters are always kept
    assert found.covered == 1.0 and found.identical_vectors > 10
    small = load_text_model(tmp_path / "small", family)
    assert small.get_input_embeddings().weight.shape[0] == found.tokens_after
    assert small.config.vocab_size == found.tokens_after


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mpnet"])
def test_a_language_head_shrinks_with_its_table(
    family: str, tmp_path: Path, texts: Path, wordy: None
) -> None:
    model = save_text_model(tmp_path / "model", family, head="ForMaskedLM")
    trim(str(model), [str(texts)], tmp_path / "small")
    kind = getattr(transformers, "AutoModelForMaskedLM")
    small, info = kind.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert not info["mismatched_keys"] and not info["missing_keys"]
    assert small.get_output_embeddings().weight.shape[0] == small.config.vocab_size


@pytest.mark.parametrize("family", sorted(FAMILIES & set(TEXT_FAMILIES)))
def test_fewer_layers(family: str, tmp_path: Path, texts: Path) -> None:
    name = LAYERS.get(family, "num_hidden_layers")
    sizes: dict[str, Any] = {name: 3}
    model = save_text_model(tmp_path / "model", family, **sizes)
    found = shorten(str(model), [str(texts)], tmp_path / "small", keep=1)
    assert len(found.kept) == 1 and len(found.left_out) == 2
    assert getattr(load_text_model(tmp_path / "small", family).config, name) == 1


@pytest.mark.parametrize("family", sorted(FAMILIES - set(TEXT_FAMILIES)))
def test_fewer_layers_of_images(family: str, tmp_path: Path) -> None:
    small_vits.save(tmp_path / "model", family)
    images = np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    data = [str(tmp_path / "images.npy")]
    found = shorten(str(tmp_path / "model"), data, tmp_path / "small", keep=2)
    assert len(found.kept) == 2 and found.parameters_after < found.parameters_before


@pytest.mark.parametrize("family", ["albert", "modernbert", "t5"])
def test_layers_that_are_not_alike_stay(family: str, tmp_path: Path, texts: Path) -> None:
    model = save_text_model(tmp_path / "model", family)
    with pytest.raises(Unsupported, match=f"{family} is not one of"):
        shorten(str(model), [str(texts)], tmp_path / "small", keep=1)
    assert not (tmp_path / "small").exists()

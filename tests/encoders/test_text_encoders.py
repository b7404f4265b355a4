"""Every text family against the original library and pooling formulas written out in numpy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import edgessl
from edgessl import encoders
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.encoders.families import FAMILIES
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, RecipeError, Unsupported
from edgessl.runtimes.text import TextPreprocessor
from edgessl.spec import Provenance, TextSpec
from tests.builders import (
    POSITIONS,
    TEXT_FAMILIES,
    change_json,
    load_text_model,
    random_texts,
    save_text_model,
    save_tokenizer,
)

Floats = npt.NDArray[np.float32]
VECTOR, FEATURES = "sentence_embedding", "last_hidden_state"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: save_text_model(folder / name, name) for name in TEXT_FAMILIES}


@pytest.fixture
def bert(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny BERT, to be changed at will."""
    return shutil.copytree(checkpoints["bert"], tmp_path / "bert")


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("here"))


def limits(encoder: Encoder) -> TextSpec:
    assert isinstance(encoder.spec.preprocessing, TextSpec)
    return encoder.spec.preprocessing


def tokenize(directory: Path, texts: list[str]) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=POSITIONS)
    return {name: torch.tensor(encoded[name]) for name in ("input_ids", "attention_mask")}


def original(directory: Path, inputs: dict[str, torch.Tensor], family: str = "") -> Floats:
    """Token features by the library's own forward, mask handling and attention kernels."""
    model = load_text_model(directory, family)
    with torch.no_grad():
        hidden: Floats = model(**inputs).last_hidden_state.numpy()
    return hidden


def pooled(hidden: Floats, mask: npt.NDArray[np.int64], pooling: str, unit: bool) -> Floats:
    """Row by row over the real tokens alone."""
    rows = []
    for features, keep in zip(hidden, mask.astype(bool), strict=True):
        real = features[keep].astype(np.float64)
        rows.append({"cls": real[0], "mean": real.mean(0), "max": real.max(0)}[pooling])
    vectors = np.array(rows)
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def numpy_of(inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def test_every_text_family_is_tested() -> None:
    families = {row.model_type for row in FAMILIES.values() if row.task == "text"}
    # SigLIP's text tower pads every text: test_towers.py has it.
    assert families == {*TEXT_FAMILIES, "siglip_text_model"}


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_matches_the_original_library(checkpoints: dict[str, Path], family: str) -> None:
    directory = checkpoints[family]
    inputs = tokenize(directory, [*random_texts(6, seed=3), "abcdefghij klmnopqrstuvwxyz", ""])
    mask = inputs["attention_mask"].numpy()
    assert mask.shape[1] == POSITIONS and (mask.sum(1) < POSITIONS).any()
    hidden = original(directory, inputs, family)
    assert np.abs(hidden - hidden[:, :1]).max() > 0.1  # tokens are told apart
    keep = mask.astype(bool)
    for pooling, unit in (("cls", False), ("mean", True), ("max", True), ("mean", False)):
        encoder = load(directory, pooling=pooling, normalize=unit, features=True)
        assert (encoder.spec.family, encoder.spec.normalize) == (family, unit)
        outputs = run.forward(encoder, numpy_of(inputs))
        assert list(outputs) == [VECTOR, FEATURES]
        expected = pooled(hidden, mask, pooling, unit)
        np.testing.assert_allclose(outputs[VECTOR], expected, atol=2e-5)
        np.testing.assert_allclose(outputs[FEATURES][keep], hidden[keep], atol=2e-5)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_every_runtime_gives_the_original_vectors(
    checkpoints: dict[str, Path], family: str, tmp_path: Path
) -> None:
    made = checkpoints[family]
    pooling = "pooler" if family == "clip_text_model" else "mean"
    texts = [*random_texts(4, seed=6), ""]
    inputs = tokenize(made, texts)
    if pooling == "mean":
        hidden = original(made, inputs, family)
        expected = pooled(hidden, inputs["attention_mask"].numpy(), "mean", False)
    else:
        with torch.no_grad():
            expected = load_text_model(made, family)(**inputs).pooler_output.numpy()
    for target in ("onnx", "openvino"):  # the second from the first's ONNX
        built = edgessl.build(made, target, tmp_path / target)
        made = built.path
        assert built.parity.within and built.parity.max_abs_diff < 1e-4
        with edgessl.load(made) as session:
            np.testing.assert_allclose(session.embed(texts), expected, atol=1e-4)
    engine = edgessl.build(tmp_path / "onnx", "tensorrt-rtx", tmp_path / "engine")
    assert engine.manifest.compatibility["engine"] == "model.engine"


def test_no_pooling_gives_features_alone(checkpoints: dict[str, Path]) -> None:
    inputs = tokenize(checkpoints["bert"], random_texts(3))
    encoder = load(checkpoints["bert"], pooling="none", normalize=True)
    assert (encoder.spec.vector, encoder.spec.normalize) == (None, False)
    outputs = run.forward(encoder, numpy_of(inputs))
    assert list(outputs) == [FEATURES]
    keep = inputs["attention_mask"].numpy().astype(bool)
    expected = original(checkpoints["bert"], inputs)
    np.testing.assert_allclose(outputs[FEATURES][keep], expected[keep], atol=2e-5)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_padding_changes_nothing(checkpoints: dict[str, Path], family: str) -> None:
    directory = checkpoints[family]
    encoder = load(directory, pooling="mean", normalize=True)
    texts = [*random_texts(3, seed=8, longest=5), "abcdefghij klmnop"]
    together = run.forward(encoder, numpy_of(tokenize(directory, texts)))[VECTOR]
    for text, row in zip(texts, together, strict=True):
        alone = run.forward(encoder, numpy_of(tokenize(directory, [text])))[VECTOR][0]
        np.testing.assert_allclose(row, alone, atol=2e-6)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_saved_tokenizer_is_the_original_one(
    checkpoints: dict[str, Path], family: str, tmp_path: Path
) -> None:
    encoder = load(checkpoints[family], max_length=POSITIONS)
    for name, content in encoder.assets.items():
        (tmp_path / name).write_bytes(content)
    texts = ["", "Hello, WORLD 42", *random_texts(4), "z" * 99]
    ours = TextPreprocessor.open(tmp_path, limits(encoder))(texts)
    theirs = numpy_of(tokenize(checkpoints[family], texts))
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])
def test_longest_text_fills_the_position_table(checkpoints: dict[str, Path], family: str) -> None:
    # The table of the RoBERTa kind has two rows that no token can use.
    assert limits(load(checkpoints[family])).max_length == POSITIONS
    assert limits(load(checkpoints[family], max_length=POSITIONS)).max_length == POSITIONS
    assert limits(load(checkpoints[family], max_length=3)).max_length == 3
    for wrong in (POSITIONS + 1, 2, 0, -1):
        with pytest.raises(RecipeError, match=rf"--max-length {wrong}: .* 3 to {POSITIONS} tokens"):
            load(checkpoints[family], max_length=wrong)


def test_declared_limit(bert: Path) -> None:
    change_json(bert / "tokenizer_config.json", model_max_length=10)
    assert limits(load(bert)).max_length == 10
    assert limits(load(bert, max_length=POSITIONS)).max_length == POSITIONS
    change_json(bert / "tokenizer_config.json", model_max_length=10**6)
    assert limits(load(bert)).max_length == POSITIONS


def test_defaults_of_a_bare_directory(bert: Path) -> None:
    encoder = load(bert)
    assert (encoder.spec.pooling, encoder.spec.normalize) == ("mean", False)
    assert not encoder.spec.has_features
    assert not encoder.module.training
    assert encoder.assets["config.json"] == (bert / "config.json").read_bytes()
    assert len(encoder.provenance.weights_sha256) == 64


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert", "mpnet"])
def test_checkpoint_with_a_language_head(family: str, tmp_path: Path) -> None:
    directory = save_text_model(tmp_path, family, head="ForMaskedLM")
    inputs = tokenize(directory, random_texts(3))
    expected = pooled(original(directory, inputs), inputs["attention_mask"].numpy(), "mean", False)
    outputs = run.forward(load(directory), numpy_of(inputs))
    np.testing.assert_allclose(outputs[VECTOR], expected, atol=2e-5)


def test_minilm_is_the_original(minilm: Path, sentences: list[str]) -> None:
    encoder = load(minilm)
    assert (encoder.spec.pooling, encoder.spec.normalize) == ("mean", True)
    assert limits(encoder) == TextSpec(max_length=256)
    model, tokenizer = (
        AutoModel.from_pretrained(minilm).eval(),
        AutoTokenizer.from_pretrained(minilm),
    )
    for texts in ([*sentences[:19], "ok"], [" ".join(sentences[20:80])]):
        encoded = tokenizer(
            texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = model(**encoded).last_hidden_state.numpy()
        expected = pooled(hidden, encoded["attention_mask"].numpy(), "mean", unit=True)
        inputs = {n: encoded[n].numpy() for n in ("input_ids", "attention_mask")}
        np.testing.assert_allclose(run.forward(encoder, inputs)[VECTOR], expected, atol=1e-6)
    assert encoded["input_ids"].shape == (1, 256)


def test_compute_of_minilm(minilm: Path) -> None:
    # Parameters as published (22.7 M) without the pooler; multiply-adds of the matrices counted
    # by hand: 6 layers of 4 d*d and 2 d*4d matrices, and attention over 128 tokens.
    facts = run.compute(load(minilm))
    assert facts["parameters"] == 22_713_216 - (384 * 384 + 384)
    assert facts["at"]["input_ids"] == [1, 128]
    assert facts["flops"] == 2 * 6 * (128 * 12 * 384 * 384 + 2 * 128 * 128 * 384)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model_type": "gpt2"}, Unsupported, "gpt2 is a decoder-only language model"),
        ({"model_type": "berd"}, Unsupported, r"'berd' is not a family .* Did you mean 'bert'\?"),
        ({"model_type": None, "vocab_size": None}, CheckpointError, "no model_type"),
        ({"is_decoder": True}, Unsupported, "is_decoder"),
    ],
)
def test_what_is_not_an_encoder(
    bert: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    change_json(bert / "config.json", **change)
    with pytest.raises(error, match=message):
        load(bert)


def test_tokenizer_of_another_model(bert: Path) -> None:
    size = save_tokenizer(bert, extra_tokens=1)
    with pytest.raises(CheckpointError, match=f"tokenizer has {size} tokens.* only {size - 1}"):
        load(bert)


def test_tokenizer_missing_or_damaged(bert: Path) -> None:
    (bert / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer cannot be read"):
        load(bert)
    for path in bert.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="bert has no tokenizer: none of .*tokenizer.json"):
        load(bert)


def test_unknown_pooling_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown pooling 'maen'\. Did you mean 'mean'\?"):
        LoadOptions(pooling="maen")


def test_config_json_stays_valid(checkpoints: dict[str, Path]) -> None:
    for name, directory in checkpoints.items():
        assert json.loads(load(directory).assets["config.json"])["model_type"] == name

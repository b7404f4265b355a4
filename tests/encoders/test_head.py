"""Poolings, Dense modules, prompts and dimensions against formulas and sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import edgessl
from edgessl import encoders
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.encoders.head import pool
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, RecipeError, Unsupported
from edgessl.spec import Provenance, TextSpec
from tests.builders import (
    add_sentence_transformers,
    load_text_model,
    random_texts,
    save_text_model,
)

VECTOR = "sentence_embedding"


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("here"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("head") / "bert")


@pytest.mark.parametrize("left_padded", [False, True])
def test_poolings_row_by_row(left_padded: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(4, 7, 5, generator=generator)
    lengths = [7, 1, 3, 6]
    mask = torch.zeros(4, 7, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(-length, None) if left_padded else slice(length)] = 1
    for name in ("cls", "mean", "max", "weightedmean", "lasttoken"):
        ours = pool(hidden, mask, name, left_padded=left_padded).numpy()
        for row, length in enumerate(lengths):
            real = hidden[row][mask[row].bool()].double().numpy()
            # sentence-transformers counts places over the padded row.
            place = np.nonzero(mask[row].numpy())[0] + 1.0
            expected = {
                "cls": real[0],
                "mean": real.mean(0),
                "max": real.max(0),
                "weightedmean": (real * place[:, None]).sum(0) / place.sum(),
                "lasttoken": real[-1],
            }[name]
            np.testing.assert_allclose(ours[row], expected, atol=1e-6, err_msg=f"{name} {length}")


@pytest.mark.parametrize("pooling", ["weightedmean", "lasttoken", "cls", "max"])
def test_poolings_survive_every_runtime(bert: Path, pooling: str, tmp_path: Path) -> None:
    for target in ("onnx", "openvino"):
        built = edgessl.build(bert, target, tmp_path / target, pooling=pooling)
        assert built.parity.max_abs_diff < 1e-4


def test_clip_text_vector_is_its_own(tmp_path: Path) -> None:
    directory = save_text_model(tmp_path, "clip_text_model")
    encoder = load(directory)
    assert encoder.spec.pooling == "pooler"
    ids = torch.tensor([[1, 9, 12, 30, 2], [1, 7, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        expected = load_text_model(directory, "clip_text_model")(input_ids=ids, attention_mask=mask)
    inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    ours = run.forward(encoder, inputs)[VECTOR]
    np.testing.assert_allclose(ours, expected.pooler_output.numpy(), atol=1e-5)


def add_dense(directory: Path, out: int, activation: str) -> tuple[Any, Any]:
    """Insert a Dense module between Pooling and Normalize; returns weight and bias."""
    folder = directory / "2_Dense"
    folder.mkdir()
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(out, 32, generator=generator) / 4
    bias = torch.randn(out, generator=generator)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "model.safetensors")
    config: dict[str, Any] = {"in_features": 32, "out_features": out, "bias": True}
    config["activation_function"] = activation
    (folder / "config.json").write_text(json.dumps(config))
    modules = json.loads((directory / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    modules.insert(2, dense)
    (directory / "modules.json").write_text(json.dumps(modules))
    return weight.numpy(), bias.numpy()


def test_dense_then_dimensions_then_unit_length(bert: Path, tmp_path: Path) -> None:
    directory = save_text_model(tmp_path / "st")
    add_sentence_transformers(directory, {"pooling_mode": "mean"})
    plain = load(directory, normalize=False)
    texts = random_texts(3)
    with_hash = plain.provenance.weights_sha256
    weight, bias = add_dense(directory, 12, "torch.nn.modules.activation.Tanh")
    inputs = tokens(directory, texts)
    pooled = run.forward(plain, inputs)[VECTOR]
    expected = np.tanh(pooled @ weight.T + bias)
    encoder = load(directory, normalize=False)
    np.testing.assert_allclose(run.forward(encoder, inputs)[VECTOR], expected, atol=1e-5)
    assert encoder.provenance.weights_sha256 != with_hash
    cut = load(directory, dimensions=5)  # the directory asks for unit length
    shorter = expected[:, :5] / np.linalg.norm(expected[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(run.forward(cut, inputs)[VECTOR], shorter, atol=1e-5)
    assert cut.spec.outputs[0].shape == ("batch", 5)
    built = edgessl.build(directory, "onnx", tmp_path / "bundle", dimensions=5)
    assert built.manifest.encoder.outputs[0].shape == ("batch", 5)
    with pytest.raises(RecipeError, match="--dimensions 13: this vector has 12"):
        load(directory, dimensions=13)


def tokens(directory: Path, texts: list[str]) -> Any:
    from transformers import AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="np")
    return {name: encoded[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


def test_dense_that_cannot_be_run(tmp_path: Path) -> None:
    directory = save_text_model(tmp_path)
    add_sentence_transformers(directory, {"pooling_mode": "mean"})
    add_dense(directory, 12, "mypackage.Swoosh")
    with pytest.raises(Unsupported, match="Swoosh"):
        load(directory)
    config = directory / "2_Dense" / "config.json"
    changed = {**json.loads(config.read_text()), "activation_function": "torch.nn.GELU"}
    config.write_text(json.dumps({**changed, "out_features": 13}))
    with pytest.raises(CheckpointError, match="2_Dense"):
        load(directory)


def test_prompts_by_name(tmp_path: Path) -> None:
    directory = save_text_model(tmp_path)
    prompts = {"prompts": {"query": "ask ", "passage": ""}, "default_prompt_name": None}
    add_sentence_transformers(directory, {"pooling_mode": "mean"}, prompts=prompts)
    chosen = load(directory, prompt="query").spec.preprocessing
    assert isinstance(chosen, TextSpec) and chosen.prompt == "ask "
    with pytest.raises(RecipeError, match=r"no prompt 'qeury'\. Did you mean 'query'"):
        load(directory, prompt="qeury")

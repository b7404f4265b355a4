"""Text directories whose config.json has no model_type, as old ones had not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgessl.encoders.original import infer_model_type
from tests.builders import TEXT_FAMILIES, save_text_model


def bare(directory: Path) -> dict[str, Any]:
    """Its config.json as it was before model_type."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    del config["model_type"]
    (directory / "config.json").write_text(json.dumps(config))
    return config


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "electra"])
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_families_by_their_names(family: str, head: str, tmp_path: Path) -> None:
    assert family in TEXT_FAMILIES
    config = bare(save_text_model(tmp_path, family, head))
    found = infer_model_type(config, tmp_path)
    assert found is not None
    assert found[0] == family
    assert f"taken as {family}, as " in found[1]


@pytest.mark.parametrize(
    ("vocabulary", "family"), [(None, "roberta"), (250002, "xlm-roberta"), (32005, "camembert")]
)
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_robertas_by_their_vocabulary(
    vocabulary: int | None, family: str, head: str, tmp_path: Path
) -> None:
    config = bare(save_text_model(tmp_path, "roberta", head, type_vocab_size=1))
    found = infer_model_type(
        {**config, **({"vocab_size": vocabulary} if vocabulary else {})}, tmp_path
    )
    assert found is not None
    assert found[0] == family


def test_pickled_weights(tmp_path: Path) -> None:
    config = bare(save_text_model(tmp_path, "bert"))
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    found = infer_model_type(config, tmp_path)
    assert found is not None
    assert found[0] == "bert"


def test_what_is_not_said_is_not_guessed(tmp_path: Path) -> None:
    config = bare(save_text_model(tmp_path, "bert"))
    assert infer_model_type({**config, "model_type": "bert"}, tmp_path) is None
    assert infer_model_type({**config, "type_vocab_size": 7}, tmp_path) is None
    assert (
        infer_model_type({k: v for k, v in config.items() if k != "hidden_act"}, tmp_path) is None
    )


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.x_position_embeddings.weight",
        "encoder.layer.0.crossattention.self.query.weight",
        "encoder.layer.0.attention.self.distance_embedding.weight",
    ],
)
def test_relatives_with_the_same_layers_are_left_alone(name: str, tmp_path: Path) -> None:
    config = bare(save_text_model(tmp_path, "bert"))
    weights = {**load_file(tmp_path / "model.safetensors"), name: torch.ones(2)}
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert infer_model_type(config, tmp_path) is None

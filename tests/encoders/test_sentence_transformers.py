"""Directories laid out by sentence-transformers: what they declare, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgessl import encoders
from edgessl.encoder import Encoder
from edgessl.encoders import sentence_transformers
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, Unsupported
from edgessl.spec import Provenance, TextSpec
from tests.builders import (
    POSITIONS,
    add_sentence_transformers,
    change_json,
    save_text_model,
    write_json,
)

OLD = {
    f"pooling_mode_{name}": False
    for name in (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def model(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "model")


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("here"))


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({**OLD, "pooling_mode_cls_token": True}, "cls"),
        ({**OLD, "pooling_mode_mean_tokens": True}, "mean"),
        ({**OLD, "pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalize(
    model: Path, config: dict[str, Any], pooling: str, normalize: bool
) -> None:
    layout = sentence_transformers.read(add_sentence_transformers(model, config, normalize))
    assert (layout.pooling, layout.normalize) == (pooling, normalize)
    assert layout.transformer.samefile(model)


def test_settings_reach_the_encoder_and_options_win(model: Path) -> None:
    add_sentence_transformers(
        model,
        {"pooling_mode": "cls"},
        settings={"max_seq_length": 11, "do_lower_case": True},
        prompts={"prompts": {"query": "query: ", "doc": "doc: "}, "default_prompt_name": "query"},
    )
    prompts = {"query": "query: ", "doc": "doc: "}
    spec = load(model).spec
    assert (spec.pooling, spec.normalize) == ("cls", True)
    assert spec.preprocessing == TextSpec(11, lowercase=True, prompt="query: ", prompts=prompts)
    spec = load(model, pooling="max", normalize=False, max_length=POSITIONS).spec
    assert (spec.pooling, spec.normalize) == ("max", False)
    assert spec.preprocessing == TextSpec(
        POSITIONS, lowercase=True, prompt="query: ", prompts=prompts
    )


@pytest.mark.parametrize("declared", [None, 10**6])
def test_limit_is_the_position_table_at_most(model: Path, declared: int | None) -> None:
    settings = {"max_seq_length": declared, "do_lower_case": False}
    add_sentence_transformers(model, {"pooling_mode": "mean"}, settings=settings)
    assert load(model).spec.preprocessing == TextSpec(POSITIONS)


def test_prompts_without_a_default_are_not_used(model: Path) -> None:
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    add_sentence_transformers(model, {"pooling_mode": "mean"}, prompts=prompts)
    layout = sentence_transformers.read(model)
    assert (layout.prompt, layout.prompts) == ("", {"query": "query: "})


def test_transformer_in_a_folder_of_its_own(plain: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(plain, model / "0_Transformer")
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(model / "modules.json", modules)
    write_json(model / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 9})
    assert load(model).spec.preprocessing == TextSpec(9)


@pytest.mark.parametrize(
    "config",
    [
        {**OLD, "pooling_mode_mean_sqrt_len_tokens": True},
        {**OLD, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode": "attention"},
        OLD,
    ],
)
def test_other_poolings_are_refused_unless_one_is_chosen(
    model: Path, config: dict[str, Any]
) -> None:
    add_sentence_transformers(model, config)
    with pytest.raises(Unsupported, match="Choose one with --pooling"):
        load(model)
    assert load(model, pooling="mean").spec.pooling == "mean"


def test_pooling_without_the_prompt(model: Path) -> None:
    prompts = {"prompts": {"q": "q: "}, "default_prompt_name": "q"}
    config = {"pooling_mode": "mean", "include_prompt": False}
    add_sentence_transformers(model, config, prompts=prompts)
    with pytest.raises(Unsupported, match="pools without its prompt"):
        load(model)
    change_json(model / "config_sentence_transformers.json", default_prompt_name=None)
    spec = load(model).spec
    assert spec.pooling == "mean"
    assert spec.preprocessing == TextSpec(POSITIONS, prompts={"q": "q: "}, include_prompt=False)


@pytest.mark.parametrize("kind", ["StaticEmbedding", "WordEmbeddings", "LayerNorm"])
def test_unknown_modules_are_refused(model: Path, kind: str) -> None:
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    modules = json.loads((model / "modules.json").read_text())
    modules[2]["type"] = f"sentence_transformers.models.{kind}"
    write_json(model / "modules.json", modules)
    with pytest.raises(Unsupported, match=f"modules.json asks for {kind}"):
        load(model)


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2, 1], [1], []])
def test_modules_in_another_order_are_refused(model: Path, order: list[int]) -> None:
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    modules = json.loads((model / "modules.json").read_text())
    write_json(model / "modules.json", [modules[i] for i in order])
    with pytest.raises(Unsupported, match="in this order"):
        load(model)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_paths_stay_inside(model: Path, index: int, path: str) -> None:
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    modules = json.loads((model / "modules.json").read_text())
    modules[index]["path"] = path
    write_json(model / "modules.json", modules)
    with pytest.raises(CheckpointError, match="points outside it"):
        load(model)


@pytest.mark.parametrize("content", ["{", "3", '{"0": {}}', "[3]", '[{"path": ""}]'])
def test_damaged_modules_json(model: Path, content: str) -> None:
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    (model / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match="modules.json"):
        load(model)


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_damaged_settings(model: Path, name: str, content: str) -> None:
    add_sentence_transformers(model, {"pooling_mode": "mean"}, settings={})
    (model / name).write_text(content)
    with pytest.raises(CheckpointError, match=Path(name).name):
        load(model)


def test_pooling_config_missing(model: Path) -> None:
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    (model / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="1_Pooling"):
        load(model)

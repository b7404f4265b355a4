"""``prune``: the whole way on tiny encoders, and what the fitting brings."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

from edgessl import checkpoint_session, pruning
from edgessl.cli import cli
from edgessl.compress import costs, flow, rebuild
from edgessl.encoders import run, structures
from edgessl.encoders.shrink import shrink
from edgessl.errors import RecipeError, Unsupported
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from tests import small_vits
from tests.builders import random_texts, save_text_model


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(dict.fromkeys(random_texts(150))) + "\n", encoding="utf-8")
    return path


def pruned(model: Path, data: Path, output: Path, fraction: float, what: str = "flops") -> object:
    return pruning.prune(
        str(model), [str(data)], output, budget=pruning.Budget(what, fraction), samples=100
    )


def test_a_text_encoder(tmp_path: Path, texts: Path) -> None:
    model = save_text_model(tmp_path / "model", "bert")
    found = pruning.prune(
        str(model), [str(texts)], tmp_path / "small", budget=pruning.Budget("flops", 0.8)
    )
    small = load_encoder(Recipe(model=str(tmp_path / "small")))
    layers = structures.of(small)
    assert [layer.heads for layer in layers] == list(found.heads)
    assert [layer.channels for layer in layers] == list(found.channels)
    # the search counts what torch counts, but for what grows with neither heads nor channels
    assert found.flops_after == run.compute(small)["flops"]
    assert found.flops_after / found.flops_before == pytest.approx(found.promised, abs=0.001)
    assert found.promised <= 0.8
    notes = json.loads((tmp_path / "small" / "compression.json").read_text(encoding="utf-8"))
    assert notes[-1]["pruning"]["heads"] == list(found.heads)
    drawing = (tmp_path / "small" / pruning.PICTURE).read_text(encoding="utf-8")
    removed = sum(len(gone) for gone in found.removed_heads)
    assert drawing.count('fill="#d9dee3"') == removed + 2  # and a bar's ground for each layer


def test_an_image_encoder(tmp_path: Path) -> None:
    small_vits.save(tmp_path / "model", "vit_mae")
    images = np.random.default_rng(0).integers(0, 256, (60, 24, 24, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    found = pruning.prune(
        str(tmp_path / "model"),
        [str(tmp_path / "images.npy")],
        tmp_path / "small",
        budget=pruning.Budget("params", 0.85),
    )
    assert (found.items, found.held_out) == (48, 12)
    assert found.parameters_after < found.parameters_before
    assert found.cosine_mean > 0.5


@pytest.mark.parametrize("family", ["bert", "eurobert", "dinov2"])
def test_what_is_fitted_is_nearer(family: str, tmp_path: Path, texts: Path) -> None:
    """Post-norm, pre-norm with grouped queries, and layer scale."""
    items: list[Any]
    if family == "dinov2":
        small_vits.save(tmp_path / "model", family)
        rng = np.random.default_rng(0)
        items = [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(60)]
    else:
        save_text_model(tmp_path / "model", family)
        items = texts.read_text(encoding="utf-8").splitlines()
    encoder = load_encoder(Recipe(model=str(tmp_path / "model")))
    layers = structures.of(encoder)
    with checkpoint_session.opened(encoder) as session:
        prepared = [session.prepare([item]) for item in items]
    batches = flow.batches(encoder.module, layers, prepared)
    kept = [(list(range(1, layer.heads)), list(range(0, layer.channels, 2))) for layer in layers]

    def lost(fit: bool) -> float:
        module = copy.deepcopy(encoder.module)
        small = structures.of(replace(encoder, module=module))
        if fit:
            rebuild.rebuild((encoder.module, layers), small, kept, batches)
        else:
            for layer, some in zip(small, kept, strict=True):
                shrink(layer, *some)
        with torch.no_grad():
            return sum(
                float(((module(**one)[0] - encoder.module(**one)[0]) ** 2).sum()) for one in batches
            )

    assert lost(fit=True) < 0.6 * lost(fit=False)


def test_nothing_removed_changes_nothing(tmp_path: Path, texts: Path) -> None:
    model = save_text_model(tmp_path / "model", "distilbert")
    encoder = load_encoder(Recipe(model=str(model)))
    layers = structures.of(encoder)
    with checkpoint_session.opened(encoder) as session:
        prepared = [
            session.prepare([text]) for text in texts.read_text(encoding="utf-8").splitlines()
        ]
    batches = flow.batches(encoder.module, layers, prepared)
    module = copy.deepcopy(encoder.module)
    kept = [(range(layer.heads), range(layer.channels)) for layer in layers]
    small = structures.of(replace(encoder, module=module))
    rebuild.rebuild((encoder.module, layers), small, kept, batches)
    for one, other in zip(encoder.module.parameters(), module.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_batches_have_no_padding(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(Recipe(model=str(save_text_model(tmp_path / "model", "bert"))))
    layers = structures.of(encoder)
    with checkpoint_session.opened(encoder) as session:
        prepared = [
            session.prepare([text]) for text in texts.read_text(encoding="utf-8").splitlines()
        ]
    found = flow.batches(encoder.module, layers, prepared)
    assert all(bool(batch["attention_mask"].all()) for batch in found)
    assert sum(len(batch["input_ids"]) for batch in found) == len(prepared)
    monkeypatch.setattr(flow, "MOST", 100)
    few = flow.batches(encoder.module, layers, prepared)
    assert 80 < sum(batch["input_ids"].numel() for batch in few) <= 100


def test_flops_and_parameters_are_those_of_torch(tmp_path: Path) -> None:
    encoder = load_encoder(Recipe(model=str(save_text_model(tmp_path / "model", "eurobert"))))
    layers = structures.of(encoder)
    counted = run.compute(encoder)
    tokens = flow.count(encoder.module, layers, run.counted(encoder))
    by_flops = costs.flops(layers, tokens, counted["flops"])
    by_weights = costs.parameters(layers, counted["parameters"])
    for layer in layers:
        shrink(layer, [1], range(32))
    after = run.compute(encoder)
    assert by_flops.total([1, 1], [32, 32]) == after["flops"]
    assert by_weights.total([1, 1], [32, 32]) == after["parameters"]  # it has no biases


def test_bad_input(tmp_path: Path, texts: Path) -> None:
    model = save_text_model(tmp_path / "model", "bert")
    few = tmp_path / "few.txt"
    few.write_text("a b\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="1 items are too few.*give 32"):
        pruned(model, few, tmp_path / "out", 0.8)
    with pytest.raises(RecipeError, match="--flops 0.05x cannot be reached.*smallest is 0"):
        pruned(model, texts, tmp_path / "out", 0.05)
    albert = save_text_model(tmp_path / "albert", "albert")
    with pytest.raises(Unsupported, match="of albert are not described"):
        pruned(albert, texts, tmp_path / "out", 0.8)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--flops", "0.6x"], "--flops needs --data"),
        (["--flops", "6x", "--data", "x.txt"], "not a share"),
        (["--flops", "fast", "--data", "x.txt"], "not a share"),
        (["--latency", "0.6x", "--data", "x.txt"], "--latency needs --target"),
        (["--flops", "0.6x", "--data", "x.txt", "--shape", "1x8"], "--shape is for --target"),
        (["--flops", "0.6x", "--layers", "2", "--data", "x.txt"], "several, one after the other"),
    ],
)
def test_wrong_flags(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["compress", "m", "-o", str(tmp_path / "o"), *arguments])
    assert isinstance(result.exception, RecipeError) and said in str(result.exception)


def test_an_ordinary_directory_where_the_config_has_words_for_it(
    tmp_path: Path, texts: Path
) -> None:
    """Nothing but the fitting of what transformers reads: it reads the same."""
    model = save_text_model(tmp_path / "model", "bert")
    pruned(model, texts, tmp_path / "small", 0.8)
    config = json.loads((tmp_path / "small" / "config.json").read_text(encoding="utf-8"))
    if "edgessl" in config:
        with pytest.raises(Exception, match="(?i)size mismatch|mismatched|shape"):
            transformers.AutoModel.from_pretrained(tmp_path / "small")

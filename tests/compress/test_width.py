"""A narrower stream, of every family: what is cut, what is fitted, what is written and read again."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgessl.compress import flow, refit, width
from edgessl.encoder import Encoder
from edgessl.encoders import structures
from edgessl.encoders.shrink import shrink_stream
from edgessl.errors import CheckpointError, RecipeError, Unsupported
from edgessl.narrowing import narrow
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from tests import small_vits
from tests.builders import (
    TEXT_FAMILIES,
    add_sentence_transformers,
    change_json,
    fill,
    random_texts,
    save_text_model,
)

library: Any = transformers  # untyped here and there
SIZE, KEPT = 32, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 14, 16, 17, 19, 20, 22, 23, 25, 27, 28, 29, 31]
FITTED = ("bert", "distilbert", "mpnet", "nomic_bert", "eurobert", "vit_mae", "dinov2", "beit")
NATIVE = ("vit_mae", "vit")


def save(directory: Path, family: str) -> Path:
    if family in TEXT_FAMILIES:
        return save_text_model(directory, family)
    if family in small_vits.CONFIGS:
        small_vits.save(directory, family)
        return directory
    model = library.AutoModel.from_config(library.BeitConfig(**small_vits.WIDE))
    fill(model, seed=5)
    model.save_pretrained(directory)
    size = {"height": 24, "width": 24}
    processor = {"image_processor_type": "ViTImageProcessor", "size": size}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def load(directory: Path) -> Encoder:
    return load_encoder(Recipe(model=str(directory)))


def inputs(encoder: Encoder, seed: int = 1, items: int = 8) -> flow.Inputs:
    generator = torch.Generator().manual_seed(seed)
    if encoder.spec.task == "text":
        ids = torch.randint(5, 30, (items, 7), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"pixel_values": torch.randn(items, 3, 24, 24, generator=generator)}


def vector(encoder: Encoder) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = encoder.module(**inputs(encoder))[0]
    return found


def cut(encoder: Encoder, kept: Sequence[int]) -> Encoder:
    """A copy."""
    small = copy.deepcopy(encoder)
    shrink_stream(small.module.backbone, structures.of(small), kept)  # type: ignore[arg-type]
    return small


class OfTheKept(torch.nn.Module):
    """A normalisation that sees some dimensions alone, and makes nothing of the others."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm, self.weight = norm, norm.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        some, norm = x[..., KEPT], self.norm
        weight = norm.weight[KEPT]
        if getattr(norm, "bias", None) is None:
            scale = (some.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
            made = some * scale * weight
        else:
            centred = some - some.mean(-1, keepdim=True)
            variance = centred.square().mean(-1, keepdim=True)
            made = centred / (variance + norm.eps).sqrt() * weight + norm.bias[KEPT]
        found = torch.zeros_like(x)
        found[..., KEPT] = made
        return found


def blinkered(encoder: Encoder) -> Encoder:
    """A whole copy whose normalisations see nothing but the dimensions KEPT."""
    copied = copy.deepcopy(encoder)
    parts: list[tuple[str, Any]]
    for module in list(copied.module.modules()):
        parts = list(module.named_children())
        for name, child in parts:
            if child in refit.norms(copied.module, SIZE):
                setattr(module, name, OfTheKept(child))
            if name == "embeddings_project":  # of ELECTRA, which does not normalise what it makes
                gone = sorted(set(range(SIZE)) - set(KEPT))
                child.weight.data[gone], child.bias.data[gone] = 0.0, 0.0
    return copied


def dead(encoder: Encoder, live: Sequence[int]) -> None:
    """Make all but the dimensions *live* zero everywhere, in place, and the mean of what flows in
    those: then the normalisations of a narrower encoder see the same variance but for a factor."""
    mask = torch.zeros(SIZE)
    mask[live] = 1.0
    backbone: Any = encoder.module.backbone

    def centred(tensor: torch.Tensor, axis: int) -> torch.Tensor:
        shape = [-1 if axis in (n, n - tensor.ndim) else 1 for n in range(tensor.ndim)]
        seen = mask.reshape(shape)
        return (tensor - (tensor * seen).sum(axis, keepdim=True) / len(live)) * seen

    norms = refit.norms(backbone, SIZE)
    readers = {
        layer.linear(name)
        for layer in structures.of(encoder)
        for name in {*layer.names.linears} - {layer.names.out, layer.names.down}
    }
    with torch.no_grad():
        for module in backbone.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if module in readers:
                    continue
                if module in norms and name == "weight":
                    parameter.copy_(0.7 * mask)
                elif name.startswith("lambda"):
                    parameter.fill_(0.9)
                elif isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                    parameter.copy_(centred(parameter, 0))
                elif parameter.shape[-1] == SIZE:
                    parameter.copy_(centred(parameter, parameter.ndim - 1))


def save_dead(directory: Path, family: str, live: Sequence[int]) -> Path:
    """A checkpoint in which only the dimensions *live* are alive."""
    encoder = load(save(directory, family))
    dead(encoder, live)
    encoder.module.backbone.save_pretrained(directory)  # type: ignore[union-attr, operator]
    return directory


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(random_texts(60)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), np.uint8))
    return path


@pytest.mark.parametrize("family", sorted(width.FAMILIES))
def test_everything_is_cut(family: str, tmp_path: Path) -> None:
    encoder = load(save(tmp_path / "model", family))
    expected = vector(blinkered(encoder))
    assert (vector(encoder) - expected).abs().max() > 1e-2
    small = cut(encoder, KEPT)
    torch.testing.assert_close(vector(small), expected[:, KEPT], atol=2e-5, rtol=0)
    assert structures.of(small)[0].width == len(KEPT)


@pytest.mark.parametrize("family", FITTED)
def test_the_fit_finds_the_factor_of_the_variance(family: str, tmp_path: Path) -> None:
    encoder = load(save_dead(tmp_path / "model", family, KEPT))
    batches = [inputs(encoder, seed) for seed in range(3)]
    assert width.choose(encoder.module, structures.of(encoder), batches, len(KEPT)) == KEPT
    small = cut(encoder, KEPT)
    expected = vector(encoder)[:, KEPT]
    assert (vector(small) - expected).abs().max() > 1e-2
    refit.refit(
        (encoder.module, structures.of(encoder)),
        (small.module, structures.of(small)),
        KEPT,
        batches,
    )
    torch.testing.assert_close(vector(small), expected, atol=1e-4, rtol=0)
    for norm in refit.norms(small.module, len(KEPT)):
        factor = float((norm.weight.detach() / 0.7).square().mean())  # type: ignore[operator]
        assert factor == pytest.approx(SIZE / len(KEPT), rel=2e-3)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_back_to_the_old_space(family: str, tmp_path: Path, texts: Path) -> None:
    live = list(range(4, 28))
    model = save_dead(tmp_path / "model", family, live)
    add_sentence_transformers(model, {"pooling_mode": "mean"})
    found = narrow(str(model), [str(texts)], tmp_path / "small", keep=24)
    assert found.kept == tuple(live) and found.dimensions == SIZE and found.own_loader
    assert found.cosine_p1 is not None and found.cosine_p1 > 0.9999
    assert found.rank_correlation > 0.9999 and found.parameters_after < found.parameters_before
    modules = json.loads((tmp_path / "small" / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    assert kinds == ["Transformer", "Pooling", "Dense", "Normalize"]
    pooling = json.loads((tmp_path / "small" / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == 24
    torch.testing.assert_close(
        vector(load(tmp_path / "small")), vector(load(model)), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("family", NATIVE)
def test_transformers_opens_what_it_can_build(family: str, tmp_path: Path, images: Path) -> None:
    live = list(range(4, 28))
    model = save_dead(tmp_path / "model", family, live)
    found = narrow(str(model), [str(images)], tmp_path / "small", keep=24)
    assert found.kept == tuple(live) and found.dimensions == 24 and not found.own_loader
    assert found.cosine_mean is None and found.rank_correlation > 0.9999
    again = load(tmp_path / "small")
    torch.testing.assert_close(vector(again), vector(load(model))[:, live], atol=1e-3, rtol=0)
    plain, info = library.AutoModel.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert not info["mismatched_keys"]
    parameters = dict(plain.named_parameters())
    for name, parameter in again.module.backbone.named_parameters():  # type: ignore[union-attr]
        assert torch.equal(parameter, parameters[name])


def test_least_squares_is_better_than_cutting(tmp_path: Path, texts: Path) -> None:
    """With random weights, where every dimension matters."""
    encoder = load(save(tmp_path / "model", "bert"))
    batches = [inputs(encoder, seed, 64) for seed in range(2, 8)]
    kept = width.choose(encoder.module, structures.of(encoder), batches, 24)
    small = cut(encoder, kept)
    before = vector(small)
    refit.refit(
        (encoder.module, structures.of(encoder)),
        (small.module, structures.of(small)),
        kept,
        batches,
    )
    off = [float((found - vector(encoder)[:, kept]).norm()) for found in (before, vector(small))]
    assert off[1] < 0.5 * off[0]


def test_wrong_use(tmp_path: Path, texts: Path, images: Path) -> None:
    model = save(tmp_path / "model", "bert")
    few = tmp_path / "few.txt"
    few.write_text("a b\nc d\n", encoding="utf-8")
    for data, asked, said in (
        (texts, 32, "has 32; keep 1 to 31"),
        (texts, 0, "has 32; keep 1 to 31"),
        (few, 24, "2 items are too few"),
    ):
        with pytest.raises(RecipeError, match=said):
            narrow(str(model), [str(data)], tmp_path / "small", keep=asked)
    with pytest.raises(Unsupported, match="albert is not one of"):
        narrow(str(save(tmp_path / "albert", "albert")), [str(texts)], tmp_path / "small", keep=24)
    assert not (tmp_path / "small").exists()
    change_json(
        model / "config.json", edgessl={"heads": [[0], [0]], "channels": [4, 4], "width": 33}
    )
    with pytest.raises(CheckpointError, match="has 32 dimensions"):
        load(model)

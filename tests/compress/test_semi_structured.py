"""2:4 sparsity: the pattern, what it costs, and what is written, read and exported."""

from __future__ import annotations

import copy
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from transformers import AutoModel

from edgessl import checkpoint_session, compression, two_four
from edgessl.compress import flow, semi_structured
from edgessl.encoders import structures
from edgessl.errors import RecipeError, Unsupported
from edgessl.export import sparsity
from edgessl.inspection import inspect, render
from edgessl.pipeline import build
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from edgessl.sparsifying import sparsify
from examples import data
from tests.builders import random_texts, save_text_model

Floats = npt.NDArray[Any]


def weights(inputs: int, outputs: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def activations(inputs: int, seed: int = 0) -> Floats:
    """Correlated channels of several sizes, as an encoder's are."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(4 * inputs, inputs // 2)) @ rng.normal(size=(inputs // 2, inputs))
    return (mixed + 0.3 * rng.normal(size=mixed.shape)) * rng.uniform(0.1, 2, inputs)


def error(x: Floats, exact: Floats, sparse: Floats) -> float:
    return float(np.square(x @ (sparse - exact)).sum())


def refitted(x: Floats, exact: Floats, kept: Floats) -> Floats:
    """The least squares optimum of what is *kept*: no method can be better with that mask."""
    best = np.zeros_like(exact, dtype=float)
    for column in range(exact.shape[1]):
        some = kept[:, column]
        best[some, column] = np.linalg.lstsq(x[:, some], x @ exact[:, column], rcond=None)[0]
    return best


def written_out(exact: Floats, gram: Floats) -> Floats:
    """Optimal brain surgery on each output alone, with the inverse of what is left at each step."""
    hessian = gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    done = exact.astype(float)
    for column in done.T:
        for start in range(0, len(gram), 4):
            # [H^-1]_jj of weight j of the group, those before it being settled
            inverses = [np.linalg.inv(hessian[j:, j:]) for j in range(start, start + 4)]
            costs = [column[start + j] ** 2 / inverse[0, 0] for j, inverse in enumerate(inverses)]
            for j in range(4):
                if j in np.argsort(costs)[:2]:
                    row = start + j
                    column[row:] -= column[row] / inverses[j][0, 0] * inverses[j][:, 0]
                    column[row] = 0
    return done


def test_magnitude_keeps_the_best_pair_of_each_four() -> None:
    exact = weights(24, 10)
    sparse = semi_structured.by_magnitude(exact)
    assert two_four.holds(sparse) and not two_four.holds(exact)
    assert np.count_nonzero(sparse) == exact.size / 2
    np.testing.assert_array_equal(sparse[sparse != 0], exact[sparse != 0])
    groups, found = (a.reshape(6, 4, 10) for a in (exact, sparse))
    best = np.max([np.abs(groups[:, pair]).sum(1) for pair in combinations(range(4), 2)], axis=0)
    np.testing.assert_allclose(np.abs(found).sum(1), best, rtol=1e-6)


@pytest.mark.parametrize("inputs", [16, 68, 100])  # within a block, and beyond one
def test_sparsegpt_equals_the_method_written_out(inputs: int) -> None:
    exact, x = weights(inputs, 3), activations(inputs)
    ours = semi_structured.by_error(exact, x.T @ x)
    assert two_four.holds(ours) and ours.dtype == np.float32
    assert np.count_nonzero(ours) == exact.size / 2
    np.testing.assert_allclose(ours, written_out(exact, x.T @ x), atol=2e-4)


@pytest.mark.parametrize("seed", range(4))
def test_between_the_optimum_of_its_mask_and_magnitude(seed: int) -> None:
    exact, x = weights(64, 24, seed), activations(64, seed)
    ours = semi_structured.by_error(exact, x.T @ x)
    least = error(x, exact, refitted(x, exact, ours != 0))
    plain = semi_structured.by_magnitude(exact)
    assert least <= error(x, exact, ours) < 0.4 * error(x, exact, plain)
    # nor is it the compensation alone that is better: the mask is, too
    assert least < error(x, exact, refitted(x, exact, plain != 0))


def test_a_bias_is_fitted_and_stays() -> None:
    x = np.concatenate([activations(32) + 1, np.ones((128, 1))], axis=1)
    exact = weights(33, 8)
    ours = semi_structured.by_error(exact, x.T @ x)
    assert two_four.holds(ours[:-1]) and ours[-1].all()
    off = x @ (ours - exact)
    assert np.abs(off.mean(axis=0)).max() < 0.02 * off.std()


def test_towards_other_outputs() -> None:
    exact, x = weights(32, 8), activations(32)
    other = exact + 0.5 * weights(32, 8, 1)
    there = semi_structured.by_error(exact, x.T @ x, x.T @ (x @ (other - exact)))
    assert two_four.holds(there)
    best = semi_structured.by_error(other, x.T @ x)  # had they been its own
    assert error(x, other, there) < 1.2 * error(x, other, best)
    assert error(x, other, there) < 0.5 * error(x, other, semi_structured.by_error(exact, x.T @ x))


def test_what_is_kept_is_refitted_to_the_optimum() -> None:
    exact, x = weights(32, 6), activations(32)
    wanted = x @ (exact + 0.3 * weights(32, 6, 1))
    gram, missing = x.T @ x, x.T @ (wanted - x @ exact)
    sparse = semi_structured.by_error(exact, gram, missing)
    ours = semi_structured.refit(exact, sparse, gram, missing)
    np.testing.assert_array_equal(ours != 0, sparse != 0)
    # damping is as many more rows, which ask for the weights as they were
    damping = np.sqrt(0.01 * np.diag(gram).mean()) * np.eye(32)
    rows, targets = np.concatenate([x, damping]), np.concatenate([wanted, damping @ exact])
    for column in range(6):
        some = ours[:, column] != 0
        best = np.linalg.lstsq(rows[:, some], targets[:, column], rcond=None)[0]
        np.testing.assert_allclose(ours[some, column], best, atol=1e-5)
    assert np.square(x @ ours - wanted).sum() < np.square(x @ sparse - wanted).sum()


def test_inputs_that_have_nothing_in_common_are_a_matter_of_magnitude() -> None:
    exact = weights(32, 8)
    np.testing.assert_allclose(
        semi_structured.by_error(exact, np.eye(32)), semi_structured.by_magnitude(exact), rtol=1e-6
    )


def test_inputs_that_were_never_seen() -> None:
    exact = weights(8, 4)
    sparse = semi_structured.by_error(exact, np.zeros((8, 8)))
    np.testing.assert_allclose(sparse, semi_structured.by_magnitude(exact), rtol=1e-6)


def test_real_layers_on_real_images(mae: Path) -> None:
    encoder = load_encoder(Recipe(model=str(mae)))
    layers = structures.find("vit_mae", encoder.module.backbone, 8)[:2]  # type: ignore[arg-type]
    with checkpoint_session.opened(encoder) as session:
        prepared = [session.prepare([image]) for image in data.cifar10("test", 24)]
    seen, unseen = (
        flow.batches(encoder.module, layers, some) for some in (prepared[:16], prepared[16:])
    )

    def made(some: list[structures.Layer]) -> torch.Tensor:
        with torch.no_grad(), flow.tapped([some[-1].module]) as (tap,):
            some_module(**unseen[0])
        return tap.made

    some_module: Any = encoder.module
    dense = made(layers)
    lost = {}
    told: list[tuple[int, int]] = []
    for method in ("magnitude", "sparsegpt"):
        some_module = copy.deepcopy(encoder.module)
        small = structures.find("vit_mae", some_module.backbone, 8)[:2]
        if method == "magnitude":
            semi_structured.magnitude(small)
        else:
            semi_structured.sparsegpt(
                (encoder.module, layers), small, seen, told=lambda *counts: told.append(counts)
            )
        lost[method] = float((made(small) - dense).square().sum() / dense.square().sum())
        for layer in small:
            for name in (name for names in semi_structured.linears(layer) for name in names):
                assert two_four.holds(layer.linear(name).weight.detach().T.numpy()), name
    assert lost["sparsegpt"] < 0.3 * lost["magnitude"], lost
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny BERT, and texts."""
    folder = tmp_path_factory.mktemp("tiny")
    texts = folder / "texts.txt"
    texts.write_text("\n".join(random_texts(120, seed=1)), "utf-8")
    return save_text_model(folder / "bert"), texts


@pytest.fixture(scope="module")
def sparse(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sparse") / "bert"
    found = sparsify(str(tiny[0]), [str(tiny[1])], output)
    assert len(found.sparse) == 12 and found.sparse[0] == "0.attention.self.query"
    assert not found.left_out and found.zeros == 0.5
    assert found.items + found.held_out == 120
    assert found.parameters_before == found.parameters_after
    return output


def test_an_ordinary_checkpoint(tiny: tuple[Path, Path], sparse: Path) -> None:
    # read by the original library
    dense, ours = (dict(AutoModel.from_pretrained(p).named_parameters()) for p in (tiny[0], sparse))
    for name, weight in ours.items():
        inside = name.startswith("encoder.layer") and "LayerNorm" not in name
        assert torch.equal(weight, dense[name]) is not inside, name
        if inside and weight.ndim == 2:
            assert two_four.holds(weight.detach().T.numpy()), name
    notes = json.loads((sparse / compression.NOTES).read_text())
    assert notes[0]["semi_structured"]["method"] == "sparsegpt"


def test_sparsegpt_keeps_the_vectors_better(
    tiny: tuple[Path, Path], sparse: Path, tmp_path: Path
) -> None:
    facts = json.loads((sparse / compression.NOTES).read_text())[0]["semi_structured"]
    plain = sparsify(str(tiny[0]), [str(tiny[1])], tmp_path / "plain", method="magnitude")
    assert plain.sparse == tuple(facts["sparse"])
    assert facts["cosine_mean"] > plain.cosine_mean and facts["cosine_p1"] > plain.cosine_p1


def test_what_does_not_fit_is_left_dense(tmp_path: Path, tiny: tuple[Path, Path]) -> None:
    model = save_text_model(tmp_path / "odd", intermediate_size=50)
    found = sparsify(str(model), [str(tiny[1])], tmp_path / "out", method="magnitude")
    assert found.left_out == tuple(
        (f"{n}.output.dense", "50 inputs are no multiple of 4") for n in range(2)
    )
    assert len(found.sparse) == 10 and found.zeros < 0.5


def test_weights_of_16_bits(tmp_path: Path, tiny: tuple[Path, Path]) -> None:
    from safetensors.torch import load_file, save_file

    model = save_text_model(tmp_path / "half")
    stored = {n: t.to(torch.bfloat16) for n, t in load_file(model / "model.safetensors").items()}
    save_file(stored, model / "model.safetensors", metadata={"format": "pt"})
    found = sparsify(str(model), [str(tiny[1])], tmp_path / "out")  # reads it again, and compares
    assert found.bytes_after == found.bytes_before == 2 * found.parameters_before


def test_wrong_use(tmp_path: Path, tiny: tuple[Path, Path]) -> None:
    model, texts = tiny
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    with pytest.raises(RecipeError, match="Did you mean 'magnitude'"):
        sparsify(str(model), [str(texts)], tmp_path / "a", method="magnitud")
    with pytest.raises(RecipeError, match="2 items are too few"):
        sparsify(str(model), [str(few)], tmp_path / "a")
    albert = save_text_model(tmp_path / "albert", "albert")
    with pytest.raises(Unsupported, match="albert"):
        sparsify(str(albert), [str(texts)], tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_pattern_reaches_tensorrt(
    sparse: Path, tiny: tuple[Path, Path], tmp_path: Path, precision: str
) -> None:
    calibration = str(tiny[1]) if precision == "int8" else None
    recipe = Recipe(str(sparse), "tensorrt", precision, calibration=calibration)
    built = build(recipe, tmp_path / "bundle")
    expected = {"sparse": 12, "matrices": 12}
    assert built.manifest.compatibility["sparse_weights"] == expected
    assert sparsity.pattern(onnx.load(built.path / "model.onnx")) == expected
    assert "2:4 sparse  12 of 12 matrices" in render(inspect(str(built.path)), layers=False)

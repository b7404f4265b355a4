"""Token merging against the paper's algorithm, written out item by item in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import edgessl
from edgessl import encoders, parity
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.encoders.families import FAMILIES
from edgessl.encoders.merging import merge
from edgessl.encoders.options import LoadOptions
from edgessl.errors import RecipeError, Unsupported
from edgessl.spec import Provenance
from tests.builders import fill
from tests.small_vits import CONFIGS, WIDE, save

Floats = npt.NDArray[np.float64]
MERGING = [family for family in CONFIGS if family != "dinov3_vit"]
PIXELS = np.random.default_rng(8).normal(size=(3, 3, 24, 24)).astype(np.float32)


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("here"))


def merged_by_hand(
    tokens: Floats, sizes: Floats, keys: Floats, count: int, prefix: int
) -> tuple[Floats, Floats]:
    """Bipartite soft matching of one image: ``(n, dim)``, ``(n,)``, ``(n, any)``.

    Set A has the tokens at even places, B those at odd places; the first *prefix* are in neither.
    """
    places = range(prefix, len(tokens))
    a, b = [i for i in places if i % 2 == 0], [i for i in places if i % 2 == 1]
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    edges = []
    for i in a:
        similar = [float(unit[i] @ unit[j]) for j in b]
        edges.append((max(similar), i, b[int(np.argmax(similar))]))
    chosen = sorted(edges, key=lambda edge: -edge[0])[:count]
    totals, weights = {j: tokens[j] * sizes[j] for j in b}, {j: sizes[j] for j in b}
    for _, i, j in chosen:
        totals[j] = totals[j] + tokens[i] * sizes[i]
        weights[j] = weights[j] + sizes[i]
    gone = {i for _, i, _ in chosen}
    kept = [*range(prefix), *(i for i in a if i not in gone)]
    new = [tokens[i] for i in kept] + [totals[j] / weights[j] for j in b]
    return np.array(new), np.array([sizes[i] for i in kept] + [weights[j] for j in b])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(2, 17), st.integers(1, 8), st.integers(0, 2**16))
def test_merges_as_the_paper_does(prefix: int, patches: int, count: int, seed: int) -> None:
    count = min(count, patches // 2)
    rng = np.random.default_rng(seed)
    shape = (2, prefix + patches)
    tokens, keys = rng.normal(size=(*shape, 6)), rng.normal(size=(*shape, 4))
    sizes = rng.integers(1, 5, size=shape).astype(float)
    sizes[:, :prefix] = 1
    got, got_sizes = merge(
        torch.from_numpy(tokens),
        torch.from_numpy(sizes[:, :, None]),
        torch.from_numpy(keys),
        count,
        prefix,
    )
    assert got.shape == (2, prefix + patches - count, 6)
    for item in range(2):
        want, weights = merged_by_hand(tokens[item], sizes[item], keys[item], count, prefix)
        np.testing.assert_allclose(got[item].numpy(), want, atol=1e-9)
        np.testing.assert_allclose(got_sizes[item, :, 0].numpy(), weights, atol=1e-9)
    np.testing.assert_allclose(  # nothing is lost: every patch counts once
        (got * got_sizes)[:, prefix:].sum(1).numpy(),
        (tokens * sizes[:, :, None])[:, prefix:].sum(1),
    )


def by_hand(family: str, model: Any, count: int, pooling: str) -> Floats:
    """The vectors of ``PIXELS``, from the parts of transformers' model and the algorithm above."""
    prefix = FAMILIES[family].prefix + getattr(model.config, "num_register_tokens", 0)
    pixels = torch.from_numpy(PIXELS)
    if family == "vit_mae":  # in their order, not shuffled
        noise = torch.arange(36).repeat(len(PIXELS), 1)
        hidden = model.embeddings(pixels, noise=noise)[0]
    else:
        hidden = model.embeddings(pixels)
    if family == "clip_vision_model":
        hidden = model.pre_layrnorm(hidden)
    layers = getattr(model, "encoder", model)
    layers = getattr(layers, "layers", None) or layers.layer
    images: list[Floats] = list(hidden.double().numpy())
    weights = [np.ones(len(image)) for image in images]
    for layer in layers:
        for n, (x, sizes) in enumerate(zip(images, weights, strict=True)):
            images[n], weights[n] = _layer(layer, x, sizes, count, prefix)
    vectors = []
    for x, sizes in zip(images, weights, strict=True):
        if family == "clip_vision_model":
            vectors.append(_call(model.post_layernorm, x[0]))
            continue
        x = _call(model.layernorm, x)
        vectors.append(x[0] if pooling == "cls" else np.average(x[prefix:], 0, sizes[prefix:]))
    return np.array(vectors)


def _call(part: Any, x: Floats) -> Floats:
    result: Floats = part(torch.from_numpy(x).float()).double().numpy()
    return result


def _layer(layer: Any, x: Floats, sizes: Floats, count: int, prefix: int) -> tuple[Floats, Floats]:
    part = getattr(layer, "attention", None) or layer.self_attn
    names = [name for name, _ in layer.named_children() if "norm" in name]
    first, second = sorted(names, key=lambda name: ("after" in name, name))
    normed = _call(getattr(layer, first), x)
    heads = len(normed), 4, 8
    query, key, value = (
        _call(getattr(part, f"{name}_proj"), normed).reshape(heads) for name in "qkv"
    )
    attended = np.empty_like(value)
    for head in range(4):
        scores = query[:, head] @ key[:, head].T / 8**0.5
        shares = np.exp(scores - scores.max()) * sizes  # e^(score + log size)
        attended[:, head] = shares / shares.sum(1, keepdims=True) @ value[:, head]
    out = part.o_proj if hasattr(part, "o_proj") else part.out_proj
    branch = _call(out, attended.reshape(len(x), -1))
    x = x + (_call(layer.layer_scale1, branch) if hasattr(layer, "layer_scale1") else branch)
    x, sizes = merged_by_hand(x, sizes, key.mean(1), min(count, (len(x) - prefix) // 2), prefix)
    branch = _call(layer.mlp, _call(getattr(layer, second), x))
    return x + (
        _call(layer.layer_scale2, branch) if hasattr(layer, "layer_scale2") else branch
    ), sizes


@pytest.mark.parametrize("family", MERGING)
def test_equals_the_paper_in_every_family(family: str, tmp_path: Path) -> None:
    with torch.no_grad():
        model = save(tmp_path, family)
        for count in (5, 18):  # 18, then 9, then 4 of the 9 that are left
            encoder = load(tmp_path, merge_tokens=count)
            expected = by_hand(family, model, count, encoder.spec.pooling)
            actual = run.forward(encoder, {"pixel_values": PIXELS})["image_embedding"]
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(actual, expected, atol=1e-4 * scale)
            assert encoder.spec.merged == count
    tokens: Any = encoder.module.merging
    prefix = FAMILIES[family].prefix + getattr(model.config, "num_register_tokens", 0)
    assert tokens.tokens == [prefix + n for n in (36, 18, 9, 5)]


def test_every_family_that_merges_has_a_case() -> None:
    assert set(MERGING) == {name for name, row in FAMILIES.items() if row.merges}


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip_vision_model"])
def test_off_is_the_encoder_itself(family: str, tmp_path: Path) -> None:
    save(tmp_path, family)
    plain, merging = load(tmp_path), load(tmp_path, merge_tokens=5)
    inputs = {"pixel_values": PIXELS}
    expected = run.forward(plain, inputs)["image_embedding"]
    assert np.abs(run.forward(merging, inputs)["image_embedding"] - expected).max() > 1e-3
    facts = run.merged(merging, [(inputs, run.forward(merging, inputs))])
    assert facts is not None
    cosines = parity.cosine(expected, run.forward(merging, inputs)["image_embedding"])
    assert facts["cosine_mean"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert facts["cosine_min"] == pytest.approx(cosines.min(), abs=1e-6)
    switch: Any = merging.module.merging
    with switch.off():
        actual = run.forward(merging, inputs)["image_embedding"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert run.merged(plain, []) is None
    assert run.compute(merging)["flops"] < run.compute(plain)["flops"]
    assert run.compute(merging)["parameters"] == run.compute(plain)["parameters"]


def test_classifier(tmp_path: Path) -> None:
    """Its answer comes from the class token, which takes no part in the merging."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(**{**WIDE, "num_labels": 3})
    model: Any = transformers.ViTForImageClassification(config)
    model.eval()
    fill(model, seed=2)
    save(tmp_path, "vit")
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        vectors = by_hand("vit", model.vit, 5, "cls")
        logits = model.classifier(torch.from_numpy(vectors).float()).double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    encoder = load(tmp_path, merge_tokens=5, probabilities=True)
    actual = run.forward(encoder, {"pixel_values": PIXELS})["probabilities"]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"merge_tokens": 19},
            RecipeError,
            "36 patches, of which one layer can merge at most half",
        ),
        ({"merge_tokens": 0}, RecipeError, "--merge-tokens must be at least 1, not 0"),
        ({"features": True}, RecipeError, "no features. Leave out --features"),
        ({"pooling": "none"}, RecipeError, "no features"),
        ({"patch_dropping": True}, RecipeError, "choose one"),
    ],
)
def test_refused(
    options: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    save(tmp_path, "vit_mae")
    with pytest.raises(kind, match=message):
        load(tmp_path, **{"merge_tokens": 4, **options})


@pytest.mark.parametrize("family", ["beit", "dinov3_vit"])
def test_families_whose_positions_live_in_the_attention_are_refused(
    family: str, tmp_path: Path
) -> None:
    config = {"beit": transformers.BeitConfig, "dinov3_vit": transformers.DINOv3ViTConfig}[family]
    auto: Any = transformers.AutoModel
    auto.from_config(config(**WIDE)).save_pretrained(tmp_path)
    with pytest.raises(Unsupported, match=f"--merge-tokens: not for {family}.*It is for vit_mae"):
        load(tmp_path, merge_tokens=4)


def test_bundles_say_the_same(tmp_path: Path) -> None:
    save(tmp_path / "model", "dinov2_with_registers")
    merging = load(tmp_path / "model", merge_tokens=6)
    expected = run.forward(merging, {"pixel_values": PIXELS})["image_embedding"]
    made = tmp_path / "model"
    variants = set()
    for target in ("onnx", "openvino"):  # the second from the first's ONNX
        options: dict[str, Any] = {"merge_tokens": 6} if target == "onnx" else {}
        built = edgessl.build(made, target, tmp_path / target, **options)
        made = built.path
        variants.add(built.manifest.variant)
        assert built.manifest.encoder.merged == 6
        facts = built.manifest.compute["merging"]
        assert facts["tokens"][0] - facts["tokens"][-1] == 18
        with edgessl.load(built.path) as session:
            for rows in (slice(0, 1), slice(0, 3)):
                vectors = session.run({"pixel_values": PIXELS[rows]})["image_embedding"]
                assert parity.cosine(vectors, expected[rows]).min() > 0.99999
    engine = edgessl.build(tmp_path / "onnx", "tensorrt-rtx", tmp_path / "engine")
    assert engine.manifest.compatibility["engine"] == "model.engine"
    plain = edgessl.build(tmp_path / "model", "onnx", tmp_path / "plain").manifest
    assert len(variants) == 1 and plain.variant not in variants

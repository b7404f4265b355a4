"""Parity: the cosine by its formula, what is compared, and the file that travels."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl import parity
from edgessl.backend import Arrays
from edgessl.errors import BundleError
from edgessl.parity import BOUNDS, Batch
from edgessl.spec import (
    TASKS,
    AudioSpec,
    EncoderSpec,
    ImageSpec,
    TensorSpec,
    TextSpec,
    VideoSpec,
)
from edgessl.target import PRECISIONS

MASK = np.array([[1, 1, 0], [1, 1, 1]])


def vectors(*rows: list[float]) -> Any:
    return np.array(rows, np.float32)


def test_rank_correlation_is_spearmans_of_cosines() -> None:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one = rng.normal(size=(20, 5))
    other = one + 0.3 * rng.normal(size=(20, 5))
    expected = spearmanr(pdist(one, "cosine"), pdist(other, "cosine")).statistic
    assert parity.rank_correlation(one, other) == pytest.approx(expected)


def batch(outputs: Arrays) -> Batch:
    return Batch(["one", "two"], {"input_ids": MASK * 7, "attention_mask": MASK}, outputs)


def text_spec() -> EncoderSpec:
    axes = ("batch", "sequence")
    return EncoderSpec(
        "text",
        "bert",
        "mean",
        True,
        (TensorSpec("input_ids", "int64", axes), TensorSpec("attention_mask", "int64", axes)),
        (TensorSpec("sentence_embedding", "float32", ("batch", 2)),),
        TextSpec(16),
    )


def image_spec(height: int, width: int) -> EncoderSpec:
    pixels = TensorSpec("pixel_values", "float32", ("batch", 3, height, width))
    vector = TensorSpec("image_embedding", "float32", ("batch", 2))
    return EncoderSpec(
        "image", "vit_mae", "mean", False, (pixels,), (vector,), ImageSpec(height, width)
    )


def audio_spec(max_samples: int = 16000) -> EncoderSpec:
    axes = ("batch", "samples")
    return EncoderSpec(
        "audio",
        "wav2vec2",
        "mean",
        False,
        (TensorSpec("input_values", "float32", axes), TensorSpec("attention_mask", "int64", axes)),
        (TensorSpec("audio_embedding", "float32", ("batch", 2)),),
        AudioSpec(16000, max_samples, ((10, 5), (8, 4), (4, 2))),
    )


def video_spec() -> EncoderSpec:
    pixels = TensorSpec("pixel_values", "float32", ("batch", 4, 3, 12, 16))
    vector = TensorSpec("video_embedding", "float32", ("batch", 2))
    return EncoderSpec(
        "video", "videomae", "mean", False, (pixels,), (vector,), VideoSpec(4, 12, 16)
    )


def test_every_precision_has_a_bound() -> None:
    assert set(BOUNDS) == set(PRECISIONS)
    assert all(mean >= lowest for mean, lowest in BOUNDS.values())


def test_cosine_by_hand() -> None:
    left = vectors([1, 0], [1, 0], [3, 4], [1, 1])
    right = vectors([5, 0], [0, 2], [-6, -8], [1, 0])
    expected = [1.0, 0.0, -1.0, 0.5**0.5]
    np.testing.assert_allclose(parity.cosine(left, right), expected, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9), st.floats(0.01, 100))
def test_cosine_properties(seed: int, rows: int, width: int, factor: float) -> None:
    left, right = np.random.default_rng(seed).normal(size=(2, rows, width))
    values = parity.cosine(left, right)
    assert values.shape == (rows,)
    one_by_one = [
        sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)
        for a, b in zip(left, right, strict=True)
    ]
    np.testing.assert_allclose(values, one_by_one, atol=1e-9)
    np.testing.assert_allclose(parity.cosine(right, left * factor), values, atol=1e-9)
    np.testing.assert_allclose(parity.cosine(left, left), 1, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_counts_as_opposite(bad: float) -> None:
    left = vectors([1, 2], [3, 4], [0, 0])
    right = vectors([bad, 2], [3, 4], [1, 1])
    np.testing.assert_allclose(parity.cosine(left, right), [-1, 1, -1])
    outputs = {"sentence_embedding": left[:2]}
    result = parity.compare(
        [batch(outputs)], lambda _: {"sentence_embedding": right[:2]}, "int8", text_spec()
    )
    assert not result.within
    assert (result.cosine_min, result.max_abs_diff) == (-1.0, np.inf)


def test_compare_counts_rows_of_all_batches() -> None:
    want = vectors([1, 0], [0, 1])
    answers = iter([want, vectors([1, 1], [0, 3])])
    result = parity.compare(
        [batch({"v": want}), batch({"v": want})],
        lambda _: {"v": next(answers)},
        "fp32",
        text_spec(),
    )
    assert result.rows == 4
    assert result.cosine_min == pytest.approx(0.5**0.5)
    assert result.cosine_mean == pytest.approx((3 + 0.5**0.5) / 4)
    assert result.max_abs_diff == 2
    assert not result.within
    assert "4 vectors" in str(result) and "0.707107 lowest" in str(result)


def test_compare_hands_over_the_inputs() -> None:
    seen: list[Arrays] = []

    def run(inputs: Arrays) -> Arrays:
        seen.append(inputs)
        return {"v": vectors([1, 0], [0, 1])}

    one = batch({"v": vectors([1, 0], [0, 1])})
    assert parity.compare([one], run, "fp32", text_spec()).within
    assert seen == [one.inputs]


def test_features_of_padding_do_not_count() -> None:
    hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    other = hidden.copy()
    other[0, 2] = np.nan  # the one padded token
    golden = batch({"last_hidden_state": hidden})
    result = parity.compare([golden], lambda _: {"last_hidden_state": other}, "fp32", text_spec())
    assert (result.rows, result.within, result.max_abs_diff) == (5, True, 0)
    other[1, 2] *= -1
    result = parity.compare([golden], lambda _: {"last_hidden_state": other}, "fp32", text_spec())
    assert not result.within
    assert result.cosine_min == pytest.approx(-1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bounds_are_inclusive(precision: str) -> None:
    mean, lowest = BOUNDS[precision]
    make = parity.Parity
    assert make(mean, lowest, 0, 1, BOUNDS[precision]).within
    assert not make(np.nextafter(mean, 0), lowest, 0, 1, BOUNDS[precision]).within
    assert not make(mean, np.nextafter(lowest, 0), 0, 1, BOUNDS[precision]).within
    assert not make(float("nan"), lowest, 0, 1, BOUNDS[precision]).within


@pytest.mark.parametrize("precision", PRECISIONS)
def test_merged_tokens_widen_the_bounds_of_floats_alone(precision: str) -> None:
    """Rounding may change which tokens are merged; what is quantized has that room already."""
    golden = batch({"sentence_embedding": vectors([1, 0])})
    plain, merged = (
        parity.compare([golden], lambda _: golden.outputs, precision, spec).bound
        for spec in (text_spec(), replace(text_spec(), merged=4))
    )
    assert plain == BOUNDS[precision]
    wider = precision in ("fp32", "fp16", "bf16")
    assert all((one < other) == wider for one, other in zip(merged, plain, strict=True))
    assert merged[0] >= merged[1] >= BOUNDS["int4-weight-only"][1]


def test_golden_items() -> None:
    texts = parity.golden_items(text_spec())
    assert {len(items) for items in texts} >= {1, 4, 8}
    assert [""] in texts and any(len(text) > 2000 for items in texts for text in items)
    first, second = (parity.golden_items(image_spec(20, 30)) for _ in range(2))
    images = [image for items in first for image in items]
    assert {image.shape for image in images} >= {(20, 30, 3), (40, 37, 3)}
    assert all(image.dtype == np.uint8 and image.std() > 5 for image in images)
    again = [image for items in second for image in items]
    assert all((a == b).all() for a, b in zip(images, again, strict=True))


def test_golden_waveforms() -> None:
    batches = parity.golden_items(audio_spec())
    waveforms = [wave for items in batches for wave in items]
    assert {len(items) for items in batches} >= {1, 3}
    assert len({len(wave) for wave in waveforms}) > 4
    spec = audio_spec().preprocessing
    assert isinstance(spec, AudioSpec)
    for wave in waveforms:
        assert wave.dtype == np.int16 and spec.shortest <= len(wave) <= spec.max_samples
        assert 500 < np.abs(wave.astype(float)).max() and wave.astype(float).std() > 300
    again = [wave for items in parity.golden_items(audio_spec()) for wave in items]
    assert all(np.array_equal(a, b) for a, b in zip(waveforms, again, strict=True))
    short = [wave for items in parity.golden_items(audio_spec(500)) for wave in items]
    assert max(len(wave) for wave in short) == 500


def test_golden_clips() -> None:
    clips = [clip for items in parity.golden_items(video_spec()) for clip in items]
    assert {clip.shape for clip in clips} >= {(4, 12, 16, 3), (2, 12, 24, 3), (9, 6, 8, 3)}
    for clip in clips:
        moves = np.abs(np.diff(clip.astype(float), axis=0)).mean(axis=(1, 2, 3))
        assert clip.dtype == np.uint8 and clip.std() > 5 and moves.min() > 0.5
    again = [clip for items in parity.golden_items(video_spec()) for clip in items]
    assert all(np.array_equal(a, b) for a, b in zip(clips, again, strict=True))


def test_audio_features_of_padding_do_not_count() -> None:
    """Frames, not samples, are what the features have."""
    mask = (np.arange(300) < np.array([[300], [150]])).astype(np.int64)
    inputs: Arrays = {"input_values": mask.astype(np.float32), "attention_mask": mask}
    hidden = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    spec = audio_spec()
    assert isinstance(spec.preprocessing, AudioSpec)
    assert [spec.preprocessing.frames(n) for n in (300, 150)] == [5, 2]
    other = hidden.copy()
    other[1, 2:] = np.nan
    golden = Batch([], inputs, {"last_hidden_state": hidden})
    run = {"last_hidden_state": other}
    result = parity.compare([golden], lambda _: run, "fp32", spec)
    assert (result.rows, result.within) == (7, True)
    other[1, 1] *= -1
    assert not parity.compare([golden], lambda _: run, "fp32", spec).within


def reference(spec: EncoderSpec) -> list[Batch]:
    def prepare(items: list[Any]) -> Arrays:
        if spec.task in ("audio", "video"):
            return {spec.inputs[0].name: np.full((len(items), 5), 0.5, np.float32)}
        if spec.task == "image":
            return {"pixel_values": np.full((len(items), 3, 2, 2), 0.5, np.float32)}
        ids = np.arange(len(items) * 3).reshape(-1, 3)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    def encode(inputs: Arrays) -> Arrays:
        rows = len(next(iter(inputs.values())))
        return {"vector": np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)}

    return parity.make_reference(spec, prepare, encode)


@pytest.mark.parametrize(
    "spec", [text_spec(), image_spec(6, 5), audio_spec(), video_spec()], ids=TASKS
)
def test_save_and_read(tmp_path: Path, spec: EncoderSpec) -> None:
    written = reference(spec)
    parity.save(written, tmp_path / "reference.npz")
    found = parity.read(tmp_path / "reference.npz")
    assert len(found) == len(written)
    for left, right in zip(written, found, strict=True):
        assert len(left.items) == len(right.items)
        assert all(np.array_equal(a, b) for a, b in zip(left.items, right.items, strict=True))
        assert type(right.items[0]) is type(left.items[0])
        for before, after in ((left.inputs, right.inputs), (left.outputs, right.outputs)):
            assert list(before) == list(after)
            for name in before:
                assert before[name].dtype == after[name].dtype
                np.testing.assert_array_equal(before[name], after[name])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "reference.npz"
    parity.save(reference(text_spec()), path)
    return path.read_bytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_file(
    saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever the damage: a BundleError, or (a flipped byte that nothing reads) the content."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    position = data.draw(st.integers(0, len(saved) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(saved[:position])
    else:
        content = bytearray(saved)
        content[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    try:
        parity.read(path)
    except BundleError as err:
        assert "Export the bundle again" in str(err)


@pytest.mark.parametrize("kept", [0, 1, 30, 0.5, 0.99])
def test_truncated_file(saved: bytes, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(saved[: int(kept * len(saved)) if isinstance(kept, float) else kept])
    with pytest.raises(BundleError, match="reference.npz: damaged or missing"):
        parity.read(path)


@pytest.mark.parametrize("name", ["x.npy", "0/what.npy", "0/in.npy", "text/0.npy"])
def test_foreign_archive(tmp_path: Path, name: str) -> None:
    array = io.BytesIO()
    np.save(array, np.arange(3))
    with zipfile.ZipFile(tmp_path / "reference.npz", "w") as archive:
        archive.writestr(name, array.getvalue())
    with pytest.raises(BundleError, match="damaged or missing"):
        parity.read(tmp_path / "reference.npz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="damaged or missing"):
        parity.read(tmp_path / "reference.npz")

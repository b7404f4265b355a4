"""Waveforms against transformers' own feature extractor, WAV files, and what is refused."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from edgessl.errors import BundleError, RecipeError, Unsupported
from edgessl.runtimes.audio import AudioPreprocessor
from edgessl.runtimes.batches import ByLength, one_batch
from edgessl.runtimes.flow import batches
from edgessl.spec import AudioSpec
from tests.builders import change_json

Wav2Vec2FeatureExtractor: Any = transformers.Wav2Vec2FeatureExtractor
RATE = 16000
CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
SPEC = AudioSpec(RATE, 2 * RATE, CONVOLUTIONS)


def preprocessor(directory: Path, spec: AudioSpec = SPEC, **options: Any) -> AudioPreprocessor:
    Wav2Vec2FeatureExtractor(**options).save_pretrained(directory)
    return AudioPreprocessor.open(directory, spec)


def noise(*lengths: int) -> list[Any]:
    rng = np.random.default_rng(list(lengths))
    return [rng.uniform(-0.9, 0.8, length).astype(np.float32) for length in lengths]


def wav(samples: Any, width: int = 2, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of integers, of which those of 3 bytes are the low ones of int32."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        values = np.asarray(samples)
        content = (
            values.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
            if width == 3
            else values.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes()
        )
        file.writeframes(content)
    return stream.getvalue()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("padding", [0.0, -1.5])
@pytest.mark.parametrize("lengths", [(400,), (500, 1700, 401), (32000, 900)])
def test_equals_transformers(
    tmp_path: Path, normalize: bool, padding: float, lengths: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {
        "do_normalize": normalize,
        "padding_value": padding,
        "return_attention_mask": True,
    }
    ours = preprocessor(tmp_path, **options)
    items = noise(*lengths)
    extractor = Wav2Vec2FeatureExtractor(**options)
    expected = extractor(items, sampling_rate=RATE, padding=True, return_tensors="np")
    batch = ours(items)
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
        "input_values": (np.float32, (len(items), max(lengths))),
        "attention_mask": (np.int64, (len(items), max(lengths))),
    }
    np.testing.assert_array_equal(batch["attention_mask"], expected["attention_mask"])
    if normalize:
        np.testing.assert_allclose(batch["input_values"], expected["input_values"], atol=1e-6)
    else:
        np.testing.assert_array_equal(batch["input_values"], expected["input_values"])


def test_longer_than_the_limit_is_cut_before_it_is_normalised(tmp_path: Path) -> None:
    ours = preprocessor(tmp_path)
    (item,) = noise(3 * RATE)
    cut = ours([item])["input_values"]
    assert cut.shape == (1, 2 * RATE)
    np.testing.assert_array_equal(cut, ours([item[: 2 * RATE]])["input_values"])


def test_silence_stays_finite(tmp_path: Path) -> None:
    values = preprocessor(tmp_path)([np.zeros(500, np.float32)])["input_values"]
    np.testing.assert_array_equal(values, np.zeros((1, 500)))


@pytest.mark.parametrize(("dtype", "scale"), [(np.int16, 2.0**15), (np.int32, 2.0**31)])
def test_integers_are_scaled(tmp_path: Path, dtype: Any, scale: float) -> None:
    ours = preprocessor(tmp_path, do_normalize=False)
    limits = np.iinfo(dtype)
    item = np.random.default_rng(0).integers(limits.min, limits.max, 600, dtype)
    item[:2] = limits.min, limits.max
    values = ours([item])["input_values"]
    np.testing.assert_array_equal(values[0], (item / scale).astype(np.float32))
    assert values.min() == -1


def test_doubles_are_as_good(tmp_path: Path) -> None:
    ours = preprocessor(tmp_path)
    (item,) = noise(700)
    doubled = ours([item.astype(np.float64)])["input_values"]
    np.testing.assert_array_equal(doubled, ours([item])["input_values"])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_wav_files(tmp_path: Path, width: int, channels: int) -> None:
    ours = preprocessor(tmp_path, do_normalize=False)
    full = 2 ** (8 * width - 1)
    values = np.random.default_rng(width).integers(-full, full, (450, channels))
    values[0] = -full
    content = wav(values + 128 if width == 1 else values, width, channels=channels)
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    expected = (values / full).mean(axis=1).astype(np.float32)
    for item in (content, path, str(path), memoryview(content)):
        actual = ours([item])["input_values"][0]
        np.testing.assert_allclose(actual, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros(0, np.float32), "waveform 1 has 0 samples; this model needs at least 400"),
        (np.zeros(399, np.float32), r"has 399 samples; .* 400 \(25 ms at 16000 Hz\)"),
        (np.full(500, np.nan, np.float32), "waveform 1 has samples that are NaN or infinite"),
        (np.array([np.inf] * 500), "NaN or infinite"),
        (np.zeros((2, 500), np.float32), r"has shape \(2, 500\); it should be mono"),
        (np.zeros(500, np.uint8), "is a uint8 array. Pass floats"),
        (np.zeros(500, np.complex64), "is a complex64 array"),
        ([0.0] * 500, "waveform 1 is of type list"),
        (None, "waveform 1 is of type NoneType"),
        (b"", "waveform 1 is not a WAV file of plain PCM"),
        (b"RIFF....WAVEjunk", "not a WAV file of plain PCM"),
        (b"ID3" + bytes(500), "not a WAV file.* ffmpeg -i INPUT -ac 1 -ar 16000"),
        (wav(np.zeros(500), rate=8000), "has 8000 Hz, this bundle takes 16000 Hz. Convert.*ffmpeg"),
        (wav(np.zeros(500))[:-300], "truncated or damaged: 700 of 1000 bytes"),
        (wav(np.zeros(10)), "has 10 samples"),
        ("nowhere.wav", r"waveform 1 \('nowhere.wav'\) cannot be read: No such file"),
    ],
)
def test_bad_items(tmp_path: Path, item: Any, message: str) -> None:
    ours = preprocessor(tmp_path)
    good = noise(500)
    with pytest.raises(RecipeError, match=message):
        ours([*good, item])


def test_loudness_that_cannot_be_right(tmp_path: Path) -> None:
    loud = np.linspace(-30000, 30000, 500)
    with pytest.raises(RecipeError, match="samples up to 30000, not -1 to 1"):
        preprocessor(tmp_path, do_normalize=False)([loud])
    assert preprocessor(tmp_path)([loud])["input_values"].max() < 2  # normalised: no matter


@pytest.mark.parametrize("items", ["a.wav", b"RIFF", 3, np.zeros(500), np.zeros((1, 2, 500))])
def test_not_a_list(tmp_path: Path, items: Any) -> None:
    with pytest.raises(RecipeError, match="Pass a (list|single waveform in a list)"):
        preprocessor(tmp_path)(items)


def test_one_array_and_no_items(tmp_path: Path) -> None:
    ours = preprocessor(tmp_path)
    items = np.stack(noise(600, 600, 600))
    np.testing.assert_array_equal(ours(items)["input_values"], ours(list(items))["input_values"])
    assert ours([])["input_values"].shape == ours([])["attention_mask"].shape == (0, 0)


def test_batches_by_length(tmp_path: Path) -> None:
    """Whatever is read ahead: every row once, like lengths together, no batch above the limit."""
    lengths = np.random.default_rng(0).integers(400, 3000, 45).tolist()
    items = noise(*lengths)
    feeder = ByLength(preprocessor(tmp_path), limit=6000, ahead=20)
    seen = []
    for rows, inputs in batches(feeder, items):
        mask = inputs["attention_mask"]
        assert mask.sum(axis=1).tolist() == [lengths[row] for row in rows]
        assert mask.size <= 6000 or len(rows) == 1
        alone = one_batch(feeder, [items[rows[0]]])["input_values"][0]
        np.testing.assert_array_equal(inputs["input_values"][0, : len(alone)], alone)
        seen += rows
    assert sorted(seen) == list(range(45)) and seen != list(range(45))
    items[30] = np.zeros(5)
    with pytest.raises(RecipeError, match="waveform 30 has 5 samples"):
        list(batches(feeder, items))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sampling_rate": 8000}, BundleError, "says 8000 Hz, but the manifest 16000 Hz"),
        ({"sampling_rate": "fast"}, BundleError, "sampling_rate is 'fast'"),
        ({"padding_value": "0"}, BundleError, "padding_value is '0'"),
        ({"feature_size": 80}, Unsupported, "feature_size 80"),
        ({"padding_side": "left"}, Unsupported, "padding_side is not 'right'"),
        ({"feature_extractor_type": "Whisper"}, Unsupported, "'Whisper' is not supported"),
        ({"do_preemphasis": True}, Unsupported, "do_preemphasis = True is not supported"),
    ],
)
def test_bad_configs(tmp_path: Path, change: Any, error: Any, message: str) -> None:
    preprocessor(tmp_path)
    change_json(tmp_path / "preprocessor_config.json", **change)
    with pytest.raises(error, match=message):
        AudioPreprocessor.open(tmp_path, SPEC)


def test_damaged_and_missing_config(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("[")
    with pytest.raises(BundleError, match="damaged"):
        AudioPreprocessor.open(tmp_path, SPEC)
    with pytest.raises(BundleError, match="missing"):
        AudioPreprocessor.open(tmp_path / "none", SPEC)

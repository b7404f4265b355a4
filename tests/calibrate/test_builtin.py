"""The built-in calibration set: distinct, seeded, varied, and apart from the golden inputs."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl import parity
from edgessl.calibrate import builtin, data
from edgessl.spec import AudioSpec, EncoderSpec, ImageSpec, Preprocessing, Task, TextSpec, VideoSpec

SHAPED: list[tuple[Task, int]] = [("image", 5), ("audio", 4), ("video", 2)]


def golden(task: Task) -> list[Any]:
    specs: dict[str, Preprocessing] = {
        "text": TextSpec(128),
        "image": ImageSpec(224, 224),
        "audio": AudioSpec(16000, 160000, ((10, 5), (8, 4))),
        "video": VideoSpec(16, 64, 64),
    }
    spec = EncoderSpec(task, "any", "mean", True, (), (), specs[task])
    return [item for batch in parity.golden_items(spec) for item in batch]


def test_texts() -> None:
    found = builtin.builtin("text", 1000, seed=0)
    assert len(found.items) == len({*found.items}) == found.available == 200
    lengths = sorted(map(len, found.items))
    assert lengths[0] < 5 and 50 < lengths[100] < 100 and lengths[-1] > 800
    letters = {
        unicodedata.name(letter).split()[0]
        for text in found.items
        for letter in text
        if letter.isalpha()
    }
    scripts = "LATIN CJK HIRAGANA HANGUL CYRILLIC GREEK ARABIC HEBREW DEVANAGARI BENGALI THAI TAMIL"
    assert letters >= set(scripts.split())
    some = builtin.builtin("text", 20, seed=1)
    assert len(some.items) == 20 and {*some.items} < {*found.items}
    assert some.items != builtin.builtin("text", 20, seed=2).items


@pytest.mark.parametrize(("task", "samples"), [("text", 200), *SHAPED])
def test_nothing_of_it_is_golden(task: Task, samples: int) -> None:
    wanted = {content(item) for item in golden(task)}
    assert len(wanted) > 2
    assert not wanted & {content(item) for item in builtin.builtin(task, samples, seed=0).items}


def test_no_golden_text_is_nearly_there() -> None:
    def words(text: str) -> set[str]:
        return {word.strip(".,?!'\"").lower() for word in text.split()}

    for text in golden("text"):
        for other in builtin.builtin("text", 1000, seed=0).items:
            shared, smaller = words(text) & words(other), min(len(words(text)), len(words(other)))
            assert smaller < 4 or len(shared) / smaller < 0.7, (text, other)


@pytest.mark.parametrize(("task", "samples"), SHAPED)
def test_what_is_made_follows_the_seed(task: Task, samples: int) -> None:
    first, again, fewer, other = (
        builtin.builtin(task, count, seed)
        for count, seed in ((samples, 3), (samples, 3), (2, 3), (samples, -3))
    )
    assert first.sha256 == again.sha256 != other.sha256
    assert len({content(item) for item in [*first.items, *other.items]}) == 2 * samples
    assert [content(item) for item in fewer.items] == [content(item) for item in first.items[:2]]


def test_images_have_the_statistics_of_photographs() -> None:
    images = builtin.builtin("image", 25, seed=0).items
    assert {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert all(image.ndim == 3 and image.shape[2] == 3 for image in images)
    assert len({image.shape for image in images}) > 5
    slopes, means, deviations = [], [], []
    for image in images:
        grey = np.asarray(Image.fromarray(image).convert("L").resize((128, 128)), float)
        spectrum = abs(
            np.fft.fft2((grey - grey.mean()) * np.outer(np.hanning(128), np.hanning(128)))
        )
        radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128) * 128] * 2))
        bands = [spectrum[(radius >= f) & (radius < 2 * f)].mean() for f in (2, 4, 8, 16, 32)]
        slopes.append(np.polyfit(np.log([2, 4, 8, 16, 32]), np.log(np.array(bands) + 1e-9), 1)[0])
        means.append(grey.mean())
        deviations.append(grey.std())
    assert -1.7 < np.median(slopes) < -0.8  # amplitude of natural images falls with about -1.2
    assert np.std(means) > 25 and 30 < np.median(deviations) < 70


def test_recordings_and_videos() -> None:
    recordings = builtin.builtin("audio", 6, seed=0).items
    assert all(wave.dtype == np.int16 and wave.ndim == 1 for wave in recordings)
    assert all(8000 <= len(wave) <= 96000 for wave in recordings)
    assert len({len(wave) for wave in recordings}) == 6
    peaks = [abs(wave.astype(int)).max() for wave in recordings]
    assert max(peaks) < 32767 and max(peaks) > 3 * min(peaks)
    for clip in builtin.builtin("video", 3, seed=0).items:
        assert clip.dtype == np.uint8 and clip.shape[0] == 16 and clip.shape[3] == 3
        assert (
            abs(clip[0].astype(int) - clip[-1]).mean() > abs(clip[0].astype(int) - clip[1]).mean()
        )


@pytest.mark.parametrize("task", ["text", "image"])
def test_the_note_says_what_it_costs(task: Task) -> None:
    found = builtin.builtin(task, 2, seed=0)
    assert found.source == "built-in" and found.to_json()["source"] == "built-in"
    (note,) = found.notes
    assert "no --calibration was given" in note and "in place of 0.99" in note
    assert note.endswith(": --calibration DATA")


@pytest.mark.parametrize("count,expected", [(8, 8 + 150), (100, 100)])
def test_few_items_get_built_in_ones_beside_them(count: int, expected: int) -> None:
    rng = np.random.default_rng(0)
    own = data.of(list(rng.integers(0, 255, (count, 8, 8, 3), np.uint8)), "mine.npy", count)
    found = builtin.beside(own, "image", 300, 0)
    assert len(found.items) == expected
    assert found.sha256 == own.sha256 if count == 100 else found.sha256 != own.sha256
    assert bool(found.notes) == (count == 8)


def content(item: Any) -> bytes:
    return item.encode() if isinstance(item, str) else bytes(item.tobytes())

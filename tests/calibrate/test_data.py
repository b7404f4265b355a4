"""Calibration data: which items are drawn, what names them, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.calibrate import data
from edgessl.errors import RecipeError
from edgessl.spec import Task

LINES = [f"text number {number}" for number in range(50)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)


def test_seed_decides_the_sample(texts: Path) -> None:
    first = data.load(texts, "text", 10, seed=1)
    assert first == data.load(texts, "text", 10, seed=1)
    other = data.load(texts, "text", 10, seed=2)
    assert set(first.items) != set(other.items) and first.sha256 != other.sha256
    assert len(set(first.items)) == 10 and set(first.items) <= set(LINES)
    assert first.items != sorted(first.items, key=LINES.index)  # a sample, not the first lines
    assert first.to_json() == {"source": "texts.txt", "samples": 10, "sha256": first.sha256}


def test_more_samples_than_texts(texts: Path) -> None:
    assert sorted(data.load(texts, "text", 1000, seed=0).items) == sorted(LINES)


def test_texts_are_stripped_distinct_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("  one \r\n\r\ntwo\n\t\none\n\u3000\nZürich 🙂\n".encode())
    assert sorted(data.load(path, "text", 9, seed=0).items) == ["Zürich 🙂", "one", "two"]


def test_sha256_names_the_content_and_not_the_file(texts: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.log"
    copy.write_text("\r\n\n".join(f" {line}" for line in LINES), encoding="utf-8")
    first, second = (data.load(path, "text", 7, seed=3) for path in (texts, copy))
    assert (first.items, first.sha256) == (second.items, second.sha256)
    assert second.source == "elsewhere.log"


def test_sha256_keeps_the_borders_of_items(tmp_path: Path) -> None:
    found = set()
    for content in ("ab\nc", "a\nbc", "abc"):
        path = tmp_path / "texts.txt"
        path.write_text(content)
        found.add(data.load(path, "text", 9, seed=0).sha256)
    assert len(found) == 3


def test_sha256_by_its_definition(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("é")
    content = "é".encode()
    expected = hashlib.sha256(len(content).to_bytes(8, "little") + content).hexdigest()
    assert data.load(path, "text", 1, seed=0).sha256 == expected


def test_folder_of_images(tmp_path: Path, images: Any) -> None:
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for number, image in enumerate(images):
        below = folder / "deeper" if number % 2 else folder
        Image.fromarray(image).save(below / f"{number}.{'PNG' if number % 3 else 'bmp'}")
    (folder / "notes.txt").write_text("not an image")
    found = data.load(folder, "image", 6, seed=0)
    assert len(set(found.items)) == 6
    assert {path.suffix for path in found.items} <= {".PNG", ".bmp"}
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    again = data.load(moved, "image", 6, seed=0)
    assert again.sha256 == found.sha256
    assert [path.name for path in again.items] == [path.name for path in found.items]


@pytest.mark.parametrize("name", ["images.npy", "images.npz"])
def test_arrays_of_images(tmp_path: Path, images: Any, name: str) -> None:
    path = tmp_path / name
    np.save(path, images) if name.endswith("npy") else np.savez_compressed(path, images)
    found = data.load(path, "image", 4, seed=5)
    assert len(found.items) == 4
    rows = [next(i for i, row in enumerate(images) if (row == item).all()) for item in found.items]
    assert len(set(rows)) == 4
    assert data.load(path, "image", 4, seed=5).sha256 == found.sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no texts"),
        (b"\n  \n\t\n", "holds no texts"),
        (b"fine\n\xff\xfe\n", r"not UTF-8 text \(byte 5\)"),
    ],
)
def test_bad_text_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        data.load(path, "text", 5, seed=0)


@pytest.mark.parametrize("samples", [0, -1])
def test_too_few_samples(texts: Path, samples: int) -> None:
    with pytest.raises(RecipeError, match=f"at least 1, not {samples}"):
        data.load(texts, "text", samples, seed=0)


@pytest.mark.parametrize("task", ["text", "image"])
def test_nothing_there(tmp_path: Path, task: Task) -> None:
    with pytest.raises(RecipeError, match="nowhere.*no such file or folder"):
        data.load(tmp_path / "nowhere", task, 5, seed=0)


def test_wrong_kind_for_the_task(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder; a text encoder needs a text file"):
        data.load(tmp_path, "text", 5, seed=0)
    with pytest.raises(RecipeError, match="an image encoder needs a folder of images"):
        data.load(texts, "image", 5, seed=0)
    with pytest.raises(RecipeError, match="holds no images"):
        data.load(tmp_path, "image", 5, seed=0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), r"float32 \(2, 4, 4, 3\); it should be uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"uint8 \(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 4), np.uint8), r"uint8 \(2, 4, 4, 4\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), "holds no images"),
    ],
)
def test_wrong_arrays(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(RecipeError, match=message):
        data.load(tmp_path / "images.npy", "image", 5, seed=0)


def test_folder_of_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.wav", "b.WAV", "deeper/c.wav", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    found = data.load(folder, "audio", 5, seed=0)
    assert {path.name for path in found.items} == {"a.wav", "b.WAV", "c.wav"}
    assert data.load(folder, "audio", 2, seed=0).sha256 != found.sha256


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_array_of_recordings(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "sounds.npy", np.arange(40).reshape(8, 5).astype(dtype))
    found = data.load(tmp_path / "sounds.npy", "audio", 3, seed=1)
    assert [item.shape for item in found.items] == [(5,)] * 3
    assert {item.dtype.name for item in found.items} == {np.dtype(dtype).name}


def test_folder_of_videos(tmp_path: Path, images: Any) -> None:
    for video in ("one", "two", "deep/three"):
        (tmp_path / video).mkdir(parents=True)
        for number, image in enumerate(images[:3]):
            Image.fromarray(image + len(video)).save(tmp_path / video / f"{number}.png")
    found = data.load(tmp_path, "video", 5, seed=0)
    assert {path.name for path in found.items} == {"one", "two", "three"}
    Image.fromarray(images[8]).save(tmp_path / "two" / "1.png")
    changed = data.load(tmp_path, "video", 5, seed=0)
    assert changed.items == found.items and changed.sha256 != found.sha256


def test_array_of_videos(tmp_path: Path, images: Any) -> None:
    np.save(tmp_path / "clips.npy", np.stack([images[:4], images[4:8]]))
    found = data.load(tmp_path / "clips.npy", "video", 5, seed=0)
    assert [item.shape for item in found.items] == [(4, 5, 4, 3)] * 2


@pytest.mark.parametrize(
    ("task", "array", "message"),
    [
        (
            "audio",
            np.zeros((2, 9)),
            r"float64 \(2, 9\); it should be float32 or int16 \(n, samples\)",
        ),
        ("audio", np.zeros(9, np.float32), r"float32 \(9,\); it should be"),
        ("audio", np.zeros((0, 9), np.float32), "holds no recordings"),
        ("video", np.zeros((2, 4, 4, 3), np.uint8), r"uint8 \(n, frames, height, width, 3\)"),
        ("video", np.zeros((2, 4, 4, 4, 1), np.uint8), "it should be uint8"),
        ("video", np.zeros((0, 2, 4, 4, 3), np.uint8), "holds no videos"),
    ],
)
def test_wrong_recordings_and_videos(tmp_path: Path, task: Task, array: Any, message: str) -> None:
    np.save(tmp_path / "data.npy", array)
    with pytest.raises(RecipeError, match=message):
        data.load(tmp_path / "data.npy", task, 5, seed=0)


def test_nothing_for_audio_or_video(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(RecipeError, match="holds no recordings"):
        data.load(tmp_path, "audio", 5, seed=0)
    with pytest.raises(RecipeError, match="an audio encoder needs a folder of .wav files, or an"):
        data.load(texts, "audio", 5, seed=0)
    with pytest.raises(RecipeError, match="a video encoder needs a folder of folders of frames"):
        data.load(texts, "video", 5, seed=0)


def test_several_arrays(tmp_path: Path, images: Any) -> None:
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(9))
    with pytest.raises(RecipeError, match=r"holds 2 arrays \(x, y\)"):
        data.load(tmp_path / "images.npz", "image", 5, seed=0)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RecipeError, match="cannot be read"):
        data.load(tmp_path / "images.npy", "image", 5, seed=0)


@pytest.mark.parametrize("name", ["images.npy", "images.npz"])
@pytest.mark.parametrize("kept", [0, 3, 20, 200])
def test_truncated_arrays(tmp_path: Path, images: Any, name: str, kept: int) -> None:
    path = tmp_path / name
    np.save(path, images) if name.endswith("npy") else np.savez(path, images)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RecipeError, match="cannot be read"):
        data.load(path, "image", 5, seed=0)


@pytest.mark.parametrize("position", [0.3, 0.5, 0.7])
def test_damaged_archive(tmp_path: Path, images: Any, position: float) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, images)
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="cannot be read"):
        data.load(path, "image", 5, seed=0)

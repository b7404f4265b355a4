"""Calibration images, recordings and videos: folders and arrays, and what is refused."""

from __future__ import annotations

import io
import shutil
import tracemalloc
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.calibrate import data
from edgessl.errors import RecipeError
from edgessl.spec import Task

LINES = [f"text number {number}" for number in range(50)]


def write_wav(path: Path, value: int, samples: int = 50) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.full(samples, value, "<i2").tobytes())


def save_images(folder: Path, count: int, size: int = 6) -> list[Path]:
    """PNGs of distinct noise, called 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)


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
    for number, name in enumerate(("a.wav", "b.WAV", "deeper/c.wav")):
        write_wav(folder / name, number)
    (folder / "notes.txt").write_text("no recording")
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
    for shift, video in enumerate(("one", "two", "deep/three")):
        (tmp_path / video).mkdir(parents=True)
        for number, image in enumerate(images[:3]):
            Image.fromarray(image + shift).save(tmp_path / video / f"{number}.png")
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


def test_nothing_for_audio_or_video(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a text")
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


def test_an_array_is_not_read_into_memory(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (60, 300, 300, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", array)
    tracemalloc.start()
    found = data.load(tmp_path / "images.npy", "image", 3, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.items) == 3 and array.nbytes > 1.5e7 and peak < 4e6


def test_source_of_the_folder_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path / "photos")
    assert data.load(Path("."), "image", 5, seed=0).source == "photos"


def test_unreadable_images_are_named_and_replaced(tmp_path: Path) -> None:
    paths = save_images(tmp_path, 60)
    paths[3].write_bytes(b"")
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = data.load(tmp_path, "image", 57, seed=0)
    assert len(set(found.items)) == 57 and set(found.items) < set(paths)
    everything = data.load(tmp_path, "image", 100, seed=0)
    assert set(everything.items) == {*paths} - {paths[3], paths[7]}
    assert sorted(name.partition(" ")[0] for name in everything.skipped) == [
        "3.png",
        "7.png",
        "gone.png",
    ]
    assert "left out 3 of 61 images tried" in everything.notes[0]
    assert "3.png (not an image that Pillow can read)" in everything.notes[0]


def test_too_many_unreadable_images(tmp_path: Path) -> None:
    paths = save_images(tmp_path, 40)
    for path in paths[:5]:
        path.write_bytes(b"")
    with pytest.raises(RecipeError, match=r"5 of 40 images tried \(12%\) cannot be used") as caught:
        data.load(tmp_path, "image", 300, seed=0)
    assert str(caught.value).count(".png (not an image") == 3
    paths[0].write_bytes(paths[20].read_bytes())  # readable, and a repetition
    found = data.load(tmp_path, "image", 300, seed=0)
    assert len(found.items) == 35 and len(found.skipped) == 4


def test_a_folder_of_bad_images_is_given_up_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        (tmp_path / f"{number}.jpg").write_bytes(b"no")
    opened: list[Any] = []
    real = Image.open

    def counting(file: Any) -> Any:
        opened.append(file)
        return real(file)

    monkeypatch.setattr(Image, "open", counting)
    with pytest.raises(RecipeError, match="cannot be used, more than 10%"):
        data.load(tmp_path, "image", 20, seed=0)
    assert len(opened) < 10


def test_images_of_the_same_content_are_drawn_once(tmp_path: Path) -> None:
    first, *rest = save_images(tmp_path, 12)
    for path in rest[:6]:
        shutil.copy(first, path)
    found = data.load(tmp_path, "image", 100, seed=0)
    assert len({path.read_bytes() for path in found.items}) == len(found.items) == 6


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    paths = save_images(tmp_path, 2)
    save_images(tmp_path / ".thumbnails", 2)
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves")
    assert set(data.load(tmp_path, "image", 9, seed=0).items) == set(paths)


def test_class_folders(tmp_path: Path) -> None:
    cats, dogs = save_images(tmp_path / "cat", 3), save_images(tmp_path / "dog", 2, size=7)
    (tmp_path / "labels.csv").write_text("file,label\n0.png,cat\n")
    assert set(data.load(tmp_path, "image", 9, seed=0).items) == {*cats, *dogs}


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.heic"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        RecipeError, match=r"holds no images, but files: 2 \.txt, 1 \.heic; an image"
    ):
        data.load(tmp_path, "image", 9, seed=0)


def test_unreadable_recordings(tmp_path: Path) -> None:
    for number in range(30):
        write_wav(tmp_path / f"{number}.wav", number)
    (tmp_path / "1.wav").write_bytes((tmp_path / "1.wav").read_bytes()[:60])
    (tmp_path / "2.wav").write_bytes(b"RIFF")
    write_wav(tmp_path / "3.wav", 0, samples=0)
    found = data.load(tmp_path, "audio", 300, seed=0)
    assert len(found.items) == 27
    assert sorted(found.skipped) == [
        "1.wav (truncated)",
        "2.wav (not a WAV file of plain PCM: it ends early)",
        "3.wav (no samples)",
    ]


def test_a_video_with_a_bad_frame(tmp_path: Path) -> None:
    for number in range(12):
        save_images(tmp_path / f"clip{number}", 3, size=4 + number)
    (tmp_path / "clip4" / "2.png").write_bytes(b"")
    found = data.load(tmp_path, "video", 300, seed=0)
    assert len(found.items) == 11
    assert found.skipped == ("clip4 (2.png: not an image that Pillow can read)",)


def test_recordings_with_nan_are_refused_by_index(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((9, 20)).astype(np.float32)
    for row, value in ((7, np.inf), (4, np.nan)):
        array[row, 3] = value
        np.save(tmp_path / "sounds.npy", array)
        with pytest.raises(RecipeError, match=f"item {row} of its 9 recordings holds NaN or inf"):
            data.load(tmp_path / "sounds.npy", "audio", 2, seed=0)


@pytest.mark.parametrize(
    ("array", "conversion"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), "(array * 255).round().astype('uint8')"),
        (np.zeros((2, 4, 4, 3), bool), "array.astype('uint8') * 255"),
        (np.zeros((2, 4, 4, 3), np.int64), "array.astype('uint8')"),
        (np.zeros((2, 4, 4), np.uint8), "np.repeat(array[..., None], 3, axis=-1)"),
        (np.zeros((2, 3, 4, 5), np.uint8), "array.transpose(0, 2, 3, 1)"),
        (np.zeros((2, 4, 5, 4), np.uint8), "array[..., :3]"),
    ],
)
def test_the_advised_conversion_makes_it_right(tmp_path: Path, array: Any, conversion: str) -> None:
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(RecipeError) as caught:
        data.load(tmp_path / "images.npy", "image", 5, seed=0)
    assert conversion in str(caught.value)
    np.save(tmp_path / "images.npy", eval(conversion, {"np": np, "array": array}))
    assert len(data.load(tmp_path / "images.npy", "image", 5, seed=0).items) == 1


def test_empty_items(tmp_path: Path) -> None:
    np.save(tmp_path / "sounds.npy", np.zeros((3, 0), np.float32))
    with pytest.raises(RecipeError, match="its items are empty"):
        data.load(tmp_path / "sounds.npy", "audio", 5, seed=0)


def test_a_large_photograph_is_checked_without_its_pixels_in_full(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000), (90, 120, 40)).save(buffer, "JPEG")
    for name, kept in (("whole.jpg", None), ("cut.jpg", len(buffer.getvalue()) // 2)):
        (tmp_path / name).write_bytes(buffer.getvalue()[:kept])
    for number in range(9):
        save_images(tmp_path / str(number), 1, size=5 + number)
    found = data.load(tmp_path, "image", 50, seed=0)
    assert found.skipped and found.skipped[0].startswith("cut.jpg (image file is truncated")
    assert tmp_path / "whole.jpg" in found.items

"""Clips against transformers' own processors and sampling, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import VideoMAEImageProcessorPil
from transformers.utils import constants
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from edgessl import image_config
from edgessl.errors import BundleError, RecipeError
from edgessl.runtimes.batches import BATCH_CLIPS, InOrder
from edgessl.runtimes.flow import batches
from edgessl.runtimes.video import VideoPreprocessor
from edgessl.spec import VideoSpec

SPEC = VideoSpec(4, 16, 16)
CONFIG: dict[str, Any] = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": 20},
    "crop_size": {"height": 16, "width": 16},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.25],
}


@pytest.fixture
def ours(tmp_path: Path) -> VideoPreprocessor:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONFIG))
    return VideoPreprocessor.open(tmp_path, SPEC)


def clip(frames: int, height: int = 30, width: int = 41, seed: int = 0) -> Any:
    shape = (frames, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def theirs(frames: Any) -> Any:
    settings = {k: v for k, v in CONFIG.items() if k != "image_processor_type"}
    processor: Any = VideoMAEImageProcessorPil(**settings)
    return np.array(processor(list(frames), return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("size", [(30, 41), (50, 22), (16, 16)])
def test_equals_transformers(ours: VideoPreprocessor, size: tuple[int, int]) -> None:
    video = clip(4, *size)
    np.testing.assert_array_equal(ours([video]), theirs(video))


def test_videomae_defaults_are_the_librarys(tmp_path: Path) -> None:
    content = json.dumps({"image_processor_type": "VideoMAEImageProcessor"})
    (tmp_path / "preprocessor_config.json").write_text(content)
    ours = VideoPreprocessor.open(tmp_path, VideoSpec(2, 224, 224))
    video = clip(2, 100, 150)
    expected = VideoMAEImageProcessorPil()(list(video), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ours([video]), expected)


@pytest.mark.parametrize("crop", [{"height": 24, "width": 24}, None])
def test_vjepa2_settings_are_the_librarys(tmp_path: Path, crop: Any) -> None:
    """Its processor needs torchvision; what it is told is compared instead."""
    path = tmp_path / "video_preprocessor_config.json"
    content = {"video_processor_type": "VJEPA2VideoProcessor", "size": {"shortest_edge": 9}}
    path.write_text(json.dumps(content | ({"crop_size": crop} if crop else {})))
    config = image_config.read(path)
    found = importlib.util.find_spec("transformers.models.vjepa2.video_processing_vjepa2")
    assert found is not None and found.origin is not None
    source = Path(found.origin).read_text()  # it does not import here
    assert 'kwargs["size"] = {"shortest_edge": resize_size}' in source
    assert "resize_size = int(crop_size * 256 / 224)" in source
    assert "resample = PILImageResampling.BILINEAR" in source and "crop_size = 256" in source
    assert "image_mean = IMAGENET_DEFAULT_MEAN" in source
    side = 24 if crop else 256
    assert (config.size, config.crop) == (int(side * 256 / 224), (side, side))
    assert config.resample == Image.Resampling.BILINEAR
    assert config.mean == tuple(constants.IMAGENET_DEFAULT_MEAN)
    assert config.std == tuple(constants.IMAGENET_DEFAULT_STD)
    assert config.scale == 1 / 255


def test_video_config_comes_before_image_config(tmp_path: Path, ours: VideoPreprocessor) -> None:
    other = {**CONFIG, "video_processor_type": "VideoMAEVideoProcessor", "image_mean": [0.0] * 3}
    del other["image_processor_type"]
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(other))
    video = clip(4)
    mean = np.array(CONFIG["image_mean"]) / np.array(CONFIG["image_std"])
    shifted = VideoPreprocessor.open(tmp_path, SPEC)([video]) - ours([video])
    np.testing.assert_allclose(
        shifted, np.broadcast_to(mean[:, None, None], shifted.shape), atol=1e-5
    )


@pytest.mark.parametrize("have", [4, 5, 7, 8, 63, 64, 65])
def test_sampling_is_the_librarys(ours: VideoPreprocessor, have: int) -> None:
    video = clip(have)
    metadata = VideoMetadata(total_num_frames=have, fps=25)
    chosen = default_sample_indices_fn(metadata, num_frames=4)
    np.testing.assert_array_equal(ours([video]), theirs(video[chosen]))


@pytest.mark.parametrize(("have", "chosen"), [(1, [0, 0, 0, 0]), (3, [0, 0, 1, 2])])
def test_short_clips_repeat_frames(ours: VideoPreprocessor, have: int, chosen: list[int]) -> None:
    video = clip(have)
    np.testing.assert_array_equal(ours([video]), theirs(video[chosen]))


def test_every_kind_of_clip(ours: VideoPreprocessor, tmp_path: Path) -> None:
    video = clip(12)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"frame{number}.png")  # frame10 after frame9
    (folder / "notes.txt").write_text("no frame")
    files = [folder / f"frame{number}.png" for number in range(12)]
    pictures = [Image.fromarray(frame) for frame in video]
    expected = ours([video])
    for item in (list(video), folder, str(folder), files, tuple(map(str, files)), pictures):
        np.testing.assert_array_equal(ours([item]), expected)
    several = np.stack([video, video[::-1]])
    np.testing.assert_array_equal(ours(several), ours([video, video[::-1]]))
    assert ours([]).shape == (0, 4, 3, 16, 16)


def test_batches_in_order(ours: VideoPreprocessor) -> None:
    videos = [clip(5, seed=seed) for seed in range(BATCH_CLIPS + 2)]
    feeder = InOrder(ours, "pixel_values_videos", BATCH_CLIPS)
    found = list(batches(feeder, videos))
    assert [rows for rows, _ in found] == [[0, 1, 2, 3], [4, 5]]
    together = np.concatenate([inputs["pixel_values_videos"] for _, inputs in found])
    np.testing.assert_array_equal(together, ours(videos))
    videos[5] = clip(0)
    with pytest.raises(RecipeError, match="video 5 has no frames"):
        list(batches(feeder, videos))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (clip(0), "video 1 has no frames"),
        ([], "video 1 has no frames"),
        (clip(4)[0], r"video 1 has shape \(30, 41, 3\); it should be \(frames, H, W, 3\)"),
        (clip(4) * 1.0, "video 1: image 0 has floating-point pixels"),
        ([*clip(3), b"no image"], "video 1: image 3 is not an image that Pillow can read"),
        ([*clip(3), None], "video 1: image 3 is of type NoneType"),
        (["nowhere.png"], r"video 1: image 0 \('nowhere.png'\) cannot be read: No such file"),
        ("nowhere", r"video 1 \('nowhere'\): no such folder"),
        (None, "video 1 is of type NoneType"),
        (b"bytes", "video 1 is of type bytes"),
    ],
)
def test_bad_clips(ours: VideoPreprocessor, item: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ours([clip(4), item])


def test_bad_folders(ours: VideoPreprocessor, tmp_path: Path) -> None:
    empty, film, broken = tmp_path / "empty", tmp_path / "film.mp4", tmp_path / "broken"
    empty.mkdir()
    film.write_bytes(b"moov")
    broken.mkdir()
    (broken / "1.png").write_bytes(b"\x89PNG")
    with pytest.raises(RecipeError, match="has no frames: no image files in it"):
        ours([empty])
    with pytest.raises(RecipeError, match="film.mp4.* is a file; edgessl reads frames.*ffmpeg -i"):
        ours([film])
    with pytest.raises(RecipeError, match="video 0: image 0 .*1.png.* is not an image"):
        ours([broken])


@pytest.mark.parametrize("items", ["folder", b"bytes", 3, clip(4)])
def test_not_a_list(ours: VideoPreprocessor, items: Any) -> None:
    with pytest.raises(RecipeError, match="Pass a (list|single video in a list)"):
        ours(items)


def test_config_of_another_size(tmp_path: Path, ours: VideoPreprocessor) -> None:
    with pytest.raises(BundleError, match="gives images of 16 x 16, but the manifest says 16 x 24"):
        VideoPreprocessor.open(tmp_path, VideoSpec(4, 16, 24))

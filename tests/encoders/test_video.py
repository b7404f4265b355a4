"""VideoMAE and V-JEPA 2 against transformers' own forward, from a checkpoint to two runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import edgessl
from edgessl import encoders, pipeline
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.encoders.families import FAMILIES
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, RecipeError, Unsupported
from edgessl.spec import EncoderSpec, Provenance, VideoSpec
from tests.builders import change_json, fill

library: Any = transformers  # untyped here and there
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8}
CASES: dict[str, Any] = {
    "videomae": library.VideoMAEConfig(
        image_size=16, num_frames=6, intermediate_size=40, use_mean_pooling=False, **SIZES
    ),
    "vjepa2": library.VJEPA2Config(
        crop_size=24,
        frames_per_clip=4,
        mlp_ratio=2.0,
        pred_hidden_size=24,
        pred_num_hidden_layers=1,
        pred_num_attention_heads=2,
        **SIZES,
    ),
}
SHAPES = {"videomae": (6, 3, 16, 16), "vjepa2": (4, 3, 24, 24)}
INPUTS = {"videomae": "pixel_values", "vjepa2": "pixel_values_videos"}
FILES = {"videomae": "preprocessor_config.json", "vjepa2": "video_preprocessor_config.json"}
PROCESSORS: dict[str, dict[str, Any]] = {
    "videomae": {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.4, 0.3],
    },
    "vjepa2": {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": {"height": 24, "width": 24},
        "size": {"shortest_edge": 27},
    },
}


def save(directory: Path, family: str) -> Any:
    """A checkpoint with random weights, and its model."""
    torch.manual_seed(3)
    model: Any = library.AutoModel.from_config(CASES[family])
    fill(model.eval(), seed=5)
    model.save_pretrained(directory)
    (directory / FILES[family]).write_text(json.dumps(PROCESSORS[family]))
    return model


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("tiny"))


def features(family: str, model: Any, pixels: torch.Tensor) -> Any:
    options = {"skip_predictor": True} if family == "vjepa2" else {}
    with torch.no_grad():
        return model(pixels, **options).last_hidden_state.numpy()


def pixels_of(family: str, count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPES[family], generator=torch.manual_seed(count))


def clips(count: int, frames: int = 9) -> Any:
    rng = np.random.default_rng(frames)
    return rng.integers(0, 256, (count, frames, 30, 40, 3), dtype=np.uint8)


def test_every_video_family_has_a_case() -> None:
    assert {name for name, row in FAMILIES.items() if row.task == "video"} == set(CASES)


@pytest.mark.parametrize("family", CASES)
def test_equals_transformers_on_every_runtime(family: str, tmp_path: Path) -> None:
    model = save(tmp_path / "model", family)
    source = tmp_path / "model"
    for target in ("onnx", "openvino"):
        built = edgessl.build(source, target, tmp_path / target, features=True)
        source = built.path  # the second target takes the first one's ONNX
        assert built.parity.within
        with edgessl.load(built.path) as session:
            for count in (1, 3):
                pixels = pixels_of(family, count)
                hidden = features(family, model, pixels)
                outputs = session.run({INPUTS[family]: pixels.numpy()})
                scale = max(1.0, np.abs(hidden).max())
                assert np.abs(outputs["last_hidden_state"] - hidden).max() <= 1e-4 * scale
                vector = hidden.mean(axis=1)
                assert np.abs(outputs["video_embedding"] - vector).max() <= 1e-4 * scale
        assert pipeline.verify(built.path)["ok"]


@pytest.mark.parametrize("family", CASES)
def test_positions_count(family: str, tmp_path: Path) -> None:
    """The frames in another order, and the picture upside down, are other videos."""
    save(tmp_path, family)
    encoder = load(tmp_path)
    pixels = pixels_of(family, 1).numpy()
    variants = np.concatenate([pixels, pixels[:, ::-1], pixels[:, :, :, ::-1]])
    vectors = run.forward(encoder, {INPUTS[family]: variants})["video_embedding"]
    assert np.abs(vectors[1:] - vectors[0]).max(axis=1).min() > 0.01


@pytest.mark.parametrize("pooling", ["mean", "max", "none"])
def test_poolings(pooling: str, tmp_path: Path) -> None:
    model = save(tmp_path, "videomae")
    pixels = pixels_of("videomae", 2)
    hidden = features("videomae", model, pixels)
    outputs = run.forward(
        load(tmp_path, pooling=pooling, normalize=True), {"pixel_values": pixels.numpy()}
    )
    if pooling == "none":
        np.testing.assert_allclose(outputs["last_hidden_state"], hidden, atol=1e-4)
        return
    vector = hidden.mean(axis=1) if pooling == "mean" else hidden.max(axis=1)
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["video_embedding"], vector, atol=1e-5)


@pytest.mark.parametrize("head", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_other_heads_are_dropped(head: str, tmp_path: Path) -> None:
    model: Any = getattr(transformers, head)(CASES["videomae"])
    fill(model.eval(), seed=5)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS["videomae"]))
    pixels = pixels_of("videomae", 2)
    hidden = features("videomae", model.videomae, pixels)
    outputs = run.forward(load(tmp_path), {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(outputs["video_embedding"], hidden.mean(axis=1), atol=1e-4)


def test_vjepa2_comes_without_its_predictor(tmp_path: Path) -> None:
    model = save(tmp_path, "vjepa2")
    encoder = load(tmp_path)
    ours = run.compute(encoder)["parameters"]
    assert ours == sum(p.numel() for p in model.encoder.parameters())
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("predictor.")}
    model.save_pretrained(tmp_path, state_dict=state)
    pixels = {"pixel_values_videos": pixels_of("vjepa2", 2).numpy()}
    (before,) = run.forward(encoder, pixels).values()
    (after,) = run.forward(load(tmp_path), pixels).values()
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("family", CASES)
def test_int8(family: str, tmp_path: Path) -> None:
    save(tmp_path / "model", family)
    np.save(tmp_path / "clips.npy", clips(24))
    for target in ("onnx", "openvino"):
        built = edgessl.build(
            tmp_path / "model",
            target,
            tmp_path / target,
            precision="int8",
            calibration=str(tmp_path / "clips.npy"),
            samples=20,
        )
        assert built.parity.within
        with edgessl.load(built.path) as session:
            assert session.embed(clips(3)).shape == (3, 48)


def test_spec(tmp_path: Path) -> None:
    save(tmp_path, "vjepa2")
    encoder = load(tmp_path)
    assert encoder.spec.preprocessing == VideoSpec(4, 24, 24)
    assert encoder.spec.inputs[0].shape == ("batch", 4, 3, 24, 24)
    assert EncoderSpec.from_json(encoder.spec.to_json()) == encoder.spec
    assert set(encoder.assets) == {"video_preprocessor_config.json", "config.json"}


def test_refusals(tmp_path: Path) -> None:
    save(tmp_path, "videomae")
    with pytest.raises(Unsupported, match="--pooling cls: videomae has patches"):
        load(tmp_path, pooling="cls")
    with pytest.raises(RecipeError, match="--image-size is for image encoders; this is a video"):
        load(tmp_path, image_size=(32, 32))
    with pytest.raises(RecipeError, match="--max-seconds is for audio encoders"):
        load(tmp_path, max_seconds=3)
    config = tmp_path / "preprocessor_config.json"
    change_json(config, crop_size={"height": 8, "width": 8})
    with pytest.raises(CheckpointError, match="frames of 8 x 8, the model takes 16 x 16"):
        load(tmp_path)
    config.write_text("{")
    with pytest.raises(CheckpointError, match="preprocessor_config.json cannot be read"):
        load(tmp_path)
    config.unlink()
    with pytest.raises(CheckpointError, match="processor.save_pretrained"):
        load(tmp_path)

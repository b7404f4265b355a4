"""Every audio family against transformers' own forward of each waveform alone, without padding."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
from edgessl.spec import AudioSpec, EncoderSpec, Provenance
from tests.builders import change_json, fill

Waveform = npt.NDArray[np.float32]

library: Any = transformers  # untyped here and there
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 32,
    "num_conv_pos_embedding_groups": 4,
    "conv_dim": (12,) * 7,
}
POSITIONS: dict[str, Any] = {"num_conv_pos_embeddings": 16}
LARGE: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    **POSITIONS,
}

CASES: dict[str, Any] = {
    "wav2vec2": library.Wav2Vec2Config(**POSITIONS, **SIZES),
    "wav2vec2-large": library.Wav2Vec2Config(**LARGE, **SIZES),
    "hubert": library.HubertConfig(**POSITIONS, **SIZES),
    "hubert-large": library.HubertConfig(
        conv_pos_batch_norm=True, feat_proj_layer_norm=False, **LARGE, **SIZES
    ),
    # Few buckets and a short range, so that distances reach every kind of bucket.
    "wavlm": library.WavLMConfig(num_buckets=16, max_bucket_distance=6, **POSITIONS, **SIZES),
    "wavlm-large": library.WavLMConfig(**LARGE, **SIZES),
    "data2vec-audio": library.Data2VecAudioConfig(conv_pos_kernel_size=7, **SIZES),
}


def save(directory: Path, case: str, **extractor: Any) -> Any:
    """A checkpoint with random weights, and its model."""
    torch.manual_seed(3)
    model: Any = library.AutoModel.from_config(CASES[case])
    fill(model.eval(), seed=5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_()
    model.save_pretrained(directory)
    library.Wav2Vec2FeatureExtractor(**extractor).save_pretrained(directory)
    return model


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("tiny"))


def waveforms(*lengths: int) -> list[Waveform]:
    rng = np.random.default_rng(list(lengths))
    return [rng.normal(0.1, 0.7, length).astype(np.float32) for length in lengths]


def padded(items: list[Waveform], value: float = 7.0) -> dict[str, npt.NDArray[Any]]:
    """One batch; what the padding holds must not matter."""
    longest = max(map(len, items))
    values = np.full((len(items), longest), value, np.float32)
    mask = np.zeros((len(items), longest), np.int64)
    for row, item in enumerate(items):
        values[row, : len(item)] = item
        mask[row, : len(item)] = 1
    return {"input_values": values, "attention_mask": mask}


def alone(model: Any, waveform: Waveform) -> Waveform:
    """transformers' features of one waveform, with no padding and no mask."""
    with torch.no_grad():
        hidden: Waveform = model(torch.from_numpy(waveform)[None]).last_hidden_state[0].numpy()
    return hidden


def test_every_audio_family_has_a_case() -> None:
    families = {name for name, row in FAMILIES.items() if row.task == "audio"}
    assert families == {config.model_type for config in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_equals_transformers_on_every_runtime(case: str, tmp_path: Path) -> None:
    model = save(tmp_path / "model", case)
    batches = [waveforms(3000), waveforms(400, 2300, 1999), waveforms(5000, 4999)]
    source = tmp_path / "model"
    for target in ("onnx", "openvino"):
        built = edgessl.build(source, target, tmp_path / target, features=True)
        source = built.path  # the second target takes the first one's ONNX
        assert built.parity.within
        with edgessl.load(built.path) as session:
            for batch in batches:
                outputs = session.run(padded(batch))
                for row, waveform in enumerate(batch):
                    hidden = alone(model, waveform)
                    features = outputs["last_hidden_state"][row, : len(hidden)]
                    scale = max(1.0, np.abs(hidden).max())
                    assert np.abs(features - hidden).max() <= 1e-4 * scale
                    vector = outputs["audio_embedding"][row]
                    assert np.abs(vector - hidden.mean(axis=0)).max() <= 1e-4 * scale


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_nothing(case: str, tmp_path: Path) -> None:
    save(tmp_path, case)
    encoder = load(tmp_path)
    items = waveforms(400, 719, 720, 3000)
    together = run.forward(encoder, padded(items))["audio_embedding"]
    for row, item in enumerate(items):
        one = run.forward(encoder, padded([item]))["audio_embedding"][0]
        np.testing.assert_allclose(together[row], one, atol=1e-5)
    assert np.abs(np.diff(together, axis=0)).max() > 0.01


def test_the_librarys_padded_batches_differ(tmp_path: Path) -> None:
    """Why the modules are walked here: with group norm the library's own result depends on it."""
    model = save(tmp_path, "wav2vec2")
    items = waveforms(1000, 3000)
    batch = {name: torch.from_numpy(array) for name, array in padded(items, 0.0).items()}
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state[0].numpy()
    expected = alone(model, items[0])
    assert np.abs(hidden[: len(expected)] - expected).max() > 0.01


def test_sessions_batch_by_length(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "hubert", do_normalize=True)
    built = edgessl.build(tmp_path / "model", "onnx", tmp_path / "bundle", features=True)
    items = waveforms(900, 4000, 401, 4000, 2500, 640)
    with edgessl.load(built.path) as session:
        vectors, features = session.embed(items), session.features(items)
        for row, item in enumerate(items):
            hidden = alone(model, (item - item.mean()) / np.sqrt(item.var() + 1e-7))
            np.testing.assert_allclose(features[row], hidden, atol=1e-4)
            np.testing.assert_allclose(vectors[row], hidden.mean(axis=0), atol=1e-4)
        assert session.embed([]).shape == (0, 32)
        short = {k: v[:, :399] for k, v in padded(items[:1]).items()}
        with pytest.raises(RecipeError, match="have 399 samples a recording.* at least 400"):
            session.run(short)
    assert pipeline.verify(built.path)["ok"]


@pytest.mark.parametrize("pooling", ["mean", "max", "none"])
@pytest.mark.parametrize("unit", [False, True])
def test_poolings(pooling: str, unit: bool, tmp_path: Path) -> None:
    model = save(tmp_path, "wavlm")
    items = waveforms(3000, 1500)
    outputs = run.forward(load(tmp_path, pooling=pooling, normalize=unit), padded(items))
    for row, item in enumerate(items):
        hidden = alone(model, item)
        if pooling == "none":
            got = outputs["last_hidden_state"][row, : len(hidden)]
            np.testing.assert_allclose(got, hidden, atol=1e-4)
            continue
        vector = hidden.mean(axis=0) if pooling == "mean" else hidden.max(axis=0)
        vector = vector / np.linalg.norm(vector) if unit else vector
        np.testing.assert_allclose(outputs["audio_embedding"][row], vector, atol=1e-4)


@pytest.mark.parametrize("convolutions", [((10, 5), (3, 2), (2, 2)), ((3, 1),), ((8, 4), (5, 5))])
def test_frames_by_the_librarys_formula(convolutions: tuple[tuple[int, int], ...]) -> None:
    spec = AudioSpec(16000, 1 << 20, convolutions)
    config = library.Wav2Vec2Config(
        conv_dim=(4,) * len(convolutions),
        conv_kernel=[kernel for kernel, _ in convolutions],
        conv_stride=[stride for _, stride in convolutions],
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_conv_pos_embedding_groups=1,
    )
    model: Any = library.Wav2Vec2Model(config)
    for samples in itertools.chain(range(spec.shortest, spec.shortest + 90), (9_999, 480_000)):
        assert spec.frames(samples) == int(model._get_feat_extract_output_lengths(samples))
    assert spec.frames(spec.shortest) == 1
    assert spec.frames(spec.shortest - 1) == 0


@pytest.mark.parametrize("case", ["wav2vec2", "wavlm"])
def test_int8(case: str, tmp_path: Path) -> None:
    save(tmp_path / "model", case)
    clips = np.stack(waveforms(*[1600] * 40))
    np.save(tmp_path / "clips.npy", clips)
    for target in ("onnx", "openvino"):
        built = edgessl.build(
            tmp_path / "model",
            target,
            tmp_path / target,
            precision="int8",
            calibration=str(tmp_path / "clips.npy"),
            samples=30,
            force=True,  # random weights bear rounding worse than trained ones
        )
        assert built.parity.cosine_mean > 0.97, built.parity
        assert built.manifest.calibration is not None
        assert built.manifest.calibration["samples"] == 30


def test_spec(tmp_path: Path) -> None:
    save(tmp_path, "data2vec-audio", sampling_rate=8000)
    encoder = load(tmp_path, max_seconds=3)
    spec = encoder.spec
    assert isinstance(spec.preprocessing, AudioSpec)
    assert (spec.preprocessing.sampling_rate, spec.preprocessing.max_samples) == (8000, 24000)
    assert spec.preprocessing.shortest == 400
    assert spec.axes["samples"].largest == 24000
    assert EncoderSpec.from_json(encoder.spec.to_json()) == spec
    facts = run.compute(encoder)
    assert facts["at"]["input_values"] == [1, 8000]
    assert facts["flops"] > 0
    assert not any("parametrizations" in name for name, _ in encoder.module.named_parameters())


def test_refusals(tmp_path: Path) -> None:
    save(tmp_path, "wav2vec2")
    for pooling in ("cls", "pooler", "lasttoken"):
        with pytest.raises(Unsupported, match=f"--pooling {pooling}: wav2vec2 has frames"):
            load(tmp_path, pooling=pooling)
    with pytest.raises(RecipeError, match="--max-length is for text encoders; this is an audio"):
        load(tmp_path, max_length=16)
    with pytest.raises(RecipeError, match="--image-size is for image encoders"):
        load(tmp_path, image_size=(32, 32))
    with pytest.raises(RecipeError, match="--max-seconds 0: .* at least 400 samples"):
        load(tmp_path, max_seconds=0)
    change_json(tmp_path / "config.json", add_adapter=True)
    with pytest.raises(Unsupported, match="add_adapter"):
        load(tmp_path)


def test_preprocessor_is_needed(tmp_path: Path) -> None:
    save(tmp_path, "hubert")
    config = tmp_path / "preprocessor_config.json"
    change_json(config, feature_extractor_type="WhisperFeatureExtractor")
    with pytest.raises(Unsupported, match="'WhisperFeatureExtractor' is not supported"):
        load(tmp_path)
    config.unlink()
    with pytest.raises(CheckpointError, match="extractor.save_pretrained"):
        load(tmp_path)

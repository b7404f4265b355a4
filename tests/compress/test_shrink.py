"""Heads and channels that are gone, of every family: the numbers, the files, and reading them again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgessl import compression, sizes
from edgessl.compress import saved
from edgessl.encoder import Encoder
from edgessl.encoders import structures
from edgessl.encoders.shrink import shrink
from edgessl.errors import CheckpointError, EdgesslError, RecipeError, Unsupported
from edgessl.export import onnx_writer
from edgessl.recipe import Recipe
from edgessl.shortening import shorten
from edgessl.sizes import Sizes
from edgessl.source import load_encoder
from edgessl.trimming import trim
from tests import small_vits
from tests.builders import TEXT_FAMILIES, change_json, fill, random_texts, save_text_model

library: Any = transformers  # untyped here and there
AUDIO: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 32,
    "num_conv_pos_embedding_groups": 4,
    "conv_dim": (12,) * 7,
}
POSITIONS = {"num_conv_pos_embeddings": 16}
# name -> config, where neither builders nor small_vits have one
CONFIGS: dict[str, Any] = {
    "beit": library.BeitConfig(use_relative_position_bias=True, **small_vits.WIDE),
    "beit, shared": library.BeitConfig(use_shared_relative_position_bias=True, **small_vits.WIDE),
    "beit, both": library.BeitConfig(
        use_relative_position_bias=True, use_shared_relative_position_bias=True, **small_vits.WIDE
    ),
    "data2vec-vision": library.Data2VecVisionConfig(
        use_relative_position_bias=True, **small_vits.WIDE
    ),
    "data2vec-vision, shared": library.Data2VecVisionConfig(
        use_shared_relative_position_bias=True, **small_vits.WIDE
    ),
    "dinov3_vit, gated": library.DINOv3ViTConfig(use_gated_mlp=True, **small_vits.WIDE),
    "siglip_vision_model": library.SiglipVisionConfig(**small_vits.WIDE),
    "wav2vec2": library.Wav2Vec2Config(**POSITIONS, **AUDIO),
    "hubert": library.HubertConfig(do_stable_layer_norm=True, **POSITIONS, **AUDIO),
    "data2vec-audio": library.Data2VecAudioConfig(conv_pos_kernel_size=7, **AUDIO),
    "videomae": library.VideoMAEConfig(num_frames=4, tubelet_size=2, **small_vits.WIDE),
    "vjepa2": library.VJEPA2Config(
        crop_size=24,
        frames_per_clip=4,
        mlp_ratio=2.0,
        pred_hidden_size=24,
        pred_num_hidden_layers=1,
        pred_num_attention_heads=2,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        patch_size=4,
    ),
}
TEXTS = [family for family in TEXT_FAMILIES if family in structures.FAMILIES]
CASES = [*TEXTS, *small_vits.CONFIGS, *CONFIGS]

Lists = list[tuple[list[int], list[int]]]


def save(directory: Path, case: str) -> Path:
    """A checkpoint with random weights."""
    if case in TEXTS:
        return save_text_model(directory, case)
    if case in small_vits.CONFIGS:
        small_vits.save(directory, case)
        return directory
    model = library.AutoModel.from_config(CONFIGS[case])
    fill(model, seed=5)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(directory)
    size = {"height": 24, "width": 24}
    processor = {"size": size, "crop_size": size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if model.config.model_type in ("wav2vec2", "hubert", "data2vec-audio"):
        library.Wav2Vec2FeatureExtractor().save_pretrained(directory)
    elif case == "vjepa2":
        content = {"video_processor_type": "VJEPA2VideoProcessor", **processor}
        (directory / "video_preprocessor_config.json").write_text(json.dumps(content))
    else:
        kind = "VideoMAEImageProcessor" if case == "videomae" else "ViTImageProcessor"
        content = {"image_processor_type": kind, **processor}
        (directory / "preprocessor_config.json").write_text(json.dumps(content))
    return directory


def load(directory: Path) -> Encoder:
    return load_encoder(Recipe(model=str(directory)))


def layers(encoder: Encoder) -> list[structures.Layer]:
    backbone: Any = encoder.module.backbone
    return structures.find(encoder.spec.family, backbone, backbone.config.num_hidden_layers)


def uneven(encoder: Encoder, seed: int = 0) -> Lists:
    """Some heads and channels of each layer, never all."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> list[int]:
        chosen = rng.choice(count, int(rng.integers(1, count)), replace=False)
        return sorted(chosen.tolist())

    return [(some(layer.heads), some(layer.channels)) for layer in layers(encoder)]


def cut(encoder: Encoder, kept: Lists) -> Encoder:
    """A copy, shrunk."""
    small = copy.deepcopy(encoder)
    for layer, (heads, channels) in zip(layers(small), kept, strict=True):
        shrink(layer, heads, channels)
        assert (layer.heads, layer.channels) == (len(heads), len(channels))
    return copy.deepcopy(small)


def silenced(encoder: Encoder, kept: Lists) -> Encoder:
    """A whole copy in which what is not kept says nothing."""
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for layer, (heads, channels) in zip(layers(copied), kept, strict=True):
            out, down = layer.linear(layer.names.out).weight, layer.linear(layer.names.down).weight
            for head in set(range(layer.heads)) - set(heads):
                out[:, head * layer.context : (head + 1) * layer.context] = 0
            down[:, sorted(set(range(layer.channels)) - set(channels))] = 0
    return copied


def some_inputs(encoder: Encoder) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = onnx_writer.example_inputs(encoder)  # whose last item is padded
    for name, tensor in found.items():
        if name == "input_ids":
            found[name] = torch.randint(5, 30, tensor.shape, generator=generator)
        elif tensor.is_floating_point():
            found[name] = torch.randn(tensor.shape, generator=generator)
    return {name: tensor for name, tensor in found.items() if name != "patch_indices"}


def vector(encoder: Encoder) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = encoder.module(**some_inputs(encoder))[0]
    return found


def write(stage: Path, model: Path, whole: Encoder, small: Encoder, kept: Lists) -> Path:
    """As a pruned checkpoint of *model*."""
    old = compression.read(str(model))
    backbone: Any = whole.module.backbone
    before = sizes.read(old.config)
    tensors = saved.tensors(old.tensors, backbone, small.module.backbone)  # type: ignore[arg-type]
    stage.mkdir()
    config = sizes.put(old.config, backbone.config, saved.sizes(before, kept))
    compression.write(stage, old, tensors, config)
    return stage


def test_every_family_has_a_case() -> None:
    assert {case.partition(",")[0] for case in CASES} | {"siglip_text_model"} == set(
        structures.FAMILIES
    )


@pytest.mark.parametrize("case", CASES)
def test_what_is_gone_said_nothing(case: str, tmp_path: Path) -> None:
    encoder = load(save(tmp_path / "model", case))
    kept = uneven(encoder)
    small = cut(encoder, kept)
    expected = vector(silenced(encoder, kept))
    assert (vector(encoder) - expected).abs().max() > 1e-2
    torch.testing.assert_close(vector(small), expected, atol=1e-5, rtol=0)

    stage = write(tmp_path / "small", tmp_path / "model", encoder, small, kept)
    again = load(stage)
    torch.testing.assert_close(vector(again), vector(small), atol=0, rtol=0)
    assert type(again.module.backbone).__name__ == type(encoder.module.backbone).__name__


@pytest.mark.parametrize("case", ["mpnet", "beit, both"])
def test_export(case: str, tmp_path: Path) -> None:
    import onnxruntime

    model = save(tmp_path / "model", case)
    encoder = load(model)
    kept = uneven(encoder)
    stage = write(tmp_path / "small", model, encoder, cut(encoder, kept), kept)
    small = load(stage)
    onnx_writer.write(small, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    inputs = {name: tensor.numpy() for name, tensor in some_inputs(small).items()}
    expected = vector(silenced(encoder, kept)).numpy()
    np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=1e-5)


@pytest.mark.parametrize("case", ["bert", "distilbert", "vit_mae", "nomic_bert"])
def test_channels_alone_are_an_ordinary_checkpoint(case: str, tmp_path: Path) -> None:
    encoder = load(save(tmp_path / "model", case))
    kept = [(list(range(layer.heads)), list(range(1, 48, 2))) for layer in layers(encoder)]
    small = cut(encoder, kept)
    stage = write(tmp_path / "small", tmp_path / "model", encoder, small, kept)
    assert sizes.ENTRY not in json.loads((stage / "config.json").read_text())
    plain, info = library.AutoModel.from_pretrained(stage, output_loading_info=True)
    assert not info["mismatched_keys"] and not info["missing_keys"]
    backbone: Any = small.module.backbone
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name))
    torch.testing.assert_close(vector(load(stage)), vector(small), atol=0, rtol=0)


def test_other_sizes_are_refused_by_transformers(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "bert")
    encoder = load(model)
    kept = uneven(encoder)
    stage = write(tmp_path / "small", model, encoder, cut(encoder, kept), kept)
    with pytest.raises(RuntimeError, match="mismatch"):
        library.AutoModel.from_pretrained(stage)


@pytest.mark.parametrize("case", ["mpnet", "vit"])
def test_again(case: str, tmp_path: Path) -> None:
    """What is pruned can be pruned."""
    encoder = load(save(tmp_path / "model", case))
    first = uneven(encoder)
    first[0] = ([0, 2, 3], first[0][1])
    small = cut(encoder, first)
    stage = write(tmp_path / "small", tmp_path / "model", encoder, small, first)
    second = [(list(range(len(heads)))[-1:], [0, 1]) for heads, _ in first]
    least = cut(load(stage), second)
    torch.testing.assert_close(vector(least), vector(cut(small, second)), atol=0, rtol=0)
    last = write(tmp_path / "least", stage, load(stage), least, second)
    found = sizes.read(json.loads((last / "config.json").read_text()))
    assert found == Sizes(tuple((heads[-1],) for heads, _ in first), (2,) * len(first))
    torch.testing.assert_close(vector(load(last)), vector(least), atol=0, rtol=0)


def test_what_else_the_checkpoint_has_stays(tmp_path: Path) -> None:
    save_text_model(tmp_path / "model", "bert", head="ForMaskedLM")
    model = library.AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    model.half().save_pretrained(tmp_path / "model")
    encoder = load(tmp_path / "model")
    kept = uneven(encoder)
    small = cut(encoder, kept)
    stage = write(tmp_path / "small", tmp_path / "model", encoder, small, kept)
    old, new = (compression.read(str(path)) for path in (tmp_path / "model", stage))
    assert set(old.tensors) == set(new.tensors)
    changed = {
        name for name in old.tensors if not torch.equal(old.tensors[name], new.tensors[name])
    }
    assert len(changed) == 20 and all(".layer." in name for name in changed)
    assert {tensor.dtype for tensor in new.tensors.values()} == {torch.float16}
    torch.testing.assert_close(vector(load(stage)), vector(small), atol=0, rtol=0)


def test_fewer_layers_and_tokens_of_a_pruned_checkpoint(tmp_path: Path) -> None:
    model = save_text_model(tmp_path / "model", "mpnet", num_hidden_layers=3)
    encoder = load(model)
    kept = uneven(encoder)
    stage = write(tmp_path / "small", model, encoder, cut(encoder, kept), kept)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(random_texts(30)) + "\n", encoding="utf-8")
    found = shorten(str(stage), [str(texts)], tmp_path / "short", keep=1)  # which compares vectors
    entry = sizes.read(json.loads((tmp_path / "short" / "config.json").read_text()))
    heads, channels = kept[found.kept[0]]
    assert entry == Sizes((tuple(heads),), (len(channels),))
    trimmed = trim(str(tmp_path / "short"), [str(texts)], tmp_path / "trim")  # which does, too
    assert trimmed.identical_vectors > 10
    again = sizes.read(json.loads((tmp_path / "trim" / "config.json").read_text()))
    assert again == entry


def test_nothing_is_not_kept(tmp_path: Path) -> None:
    layer = layers(load(save(tmp_path / "model", "bert")))[0]
    for heads, channels, said in (
        ([], [0], "one head at least"),
        ([0], [], "one channel at least"),
        ([4], [0], "no head 4: the layer has 4"),
        ([0], [-1], "no channel -1"),
    ):
        with pytest.raises(RecipeError, match=said):
            shrink(layer, heads, channels)
    assert (layer.heads, layer.channels) == (4, 48)


def test_layers_that_are_described_otherwise(tmp_path: Path) -> None:
    swiglu = library.Dinov2Config(use_swiglu_ffn=True, **small_vits.SIZES)
    keys = library.DebertaV2Config(relative_attention=True, pos_att_type=["c2p"], **AUDIO)
    for config, said in ((swiglu, "no linear layer mlp.fc1"), (keys, "too many: .*pos_key_proj")):
        model = library.AutoModel.from_config(config)
        with pytest.raises(Unsupported, match=said):
            structures.find(config.model_type, model, 3)


def test_weights_of_another_name_are_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "bert")
    encoder = load(model)
    backbone: Any = encoder.module.backbone
    small: Any = cut(encoder, uneven(encoder)).module.backbone
    tensors = compression.read(str(model)).tensors
    assert saved.tensors(tensors, backbone, backbone).keys() == tensors.keys()
    tensors["encoder.layer.0.output.dense.weight"] += 1
    with pytest.raises(Unsupported, match="do not have encoder.layer.0"):
        saved.tensors(tensors, backbone, small)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ([1], "does not list"),
        ({"heads": [[0], [1]]}, "does not list"),
        ({"heads": [[0], [1]], "channels": [4]}, "heads of 2 layers and the channels of 1"),
        ({"heads": [[0]], "channels": [4]}, "0 lists of 1 modules"),
        ({"heads": [[0], []], "channels": [4, 4]}, "one head at least"),
        ({"heads": [[0], [4]], "channels": [4, 4]}, "no head 4"),
        ({"heads": [[0], [1]], "channels": [4, 49]}, "no channel 48"),
        ({"heads": [[0], [1]], "channels": [4, 4]}, "do not have the shapes"),
    ],
)
def test_damaged_entries(entry: Any, said: str, tmp_path: Path) -> None:
    model = save(tmp_path / "model", "bert")
    change_json(model / "config.json", **{sizes.ENTRY: entry})
    with pytest.raises(CheckpointError, match=said):
        load(model)


def test_a_family_without_a_description(tmp_path: Path) -> None:
    model = save_text_model(tmp_path / "model", "albert")
    change_json(model / "config.json", **{sizes.ENTRY: {"heads": [[0]], "channels": [4]}})
    with pytest.raises(EdgesslError, match="of albert are not described"):
        load(model)

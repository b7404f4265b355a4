"""int8 of encoders that differ in structure, through their real export, on both runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import transformers

from edgessl import encoders, parity
from edgessl.backend import Arrays
from edgessl.calibrate import observe, quantize
from edgessl.calibrate.observe import Data
from edgessl.export import onnx_writer
from edgessl.parity import cosine
from edgessl.source import prepare_with
from edgessl.spec import EncoderSpec, Provenance
from edgessl.target import TARGETS
from tests.builders import fill, random_texts, save_text_model
from tests.float_graphs import compile_openvino, openvino_operators

library: Any = transformers  # untyped here and there
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def albert(directory: Path) -> None:
    """Two layers with the same weights."""
    save_text_model(directory, "albert")


def deberta(directory: Path) -> None:
    """Products of relative positions, with the weights of queries and keys."""
    save_text_model(directory, "deberta-v2", num_hidden_layers=1)


def wav2vec2(directory: Path) -> None:
    """Convolutions worth quantizing, activations between them, and a mask made of booleans."""
    save(
        directory,
        library.Wav2Vec2Config(
            vocab_size=32,
            conv_dim=(32,) * 4,
            conv_kernel=(10, 8, 4, 4),
            conv_stride=(5, 8, 4, 2),
            num_feat_extract_layers=4,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **SIZES,
        ),
    )
    library.Wav2Vec2FeatureExtractor().save_pretrained(directory)


def resnet(directory: Path) -> None:
    """Convolutions and nothing else."""
    config = library.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1])
    save(directory, config)
    library.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(directory)


def save(directory: Path, config: Any) -> None:
    torch.manual_seed(3)
    model = library.AutoModel.from_config(config).eval()
    fill(model, seed=5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    model.save_pretrained(directory)


def items(spec: EncoderSpec, seed: int) -> list[Any]:
    if spec.task == "text":
        return random_texts(40, seed)
    rng = np.random.default_rng(seed)
    if spec.task == "image":
        return [parity._image(rng, 32, 32) for _ in range(24)]
    lengths = rng.integers(3000, 6000, 8)
    tones = [np.sin(np.arange(length) * rng.uniform(0.05, 0.8)) for length in lengths]
    noisy = [0.3 * tone + rng.normal(0, 0.05, len(tone)) for tone in tones]
    return [(wave.clip(-1, 1) * 32767).astype(np.int16) for wave in noisy]


# family -> operators in int8, and those of them that OpenVINO computes once, as it loads
CASES: dict[Callable[[Path], None], tuple[int, int]] = {
    albert: (13, 0),
    deberta: (8, 2),
    wav2vec2: (10, 0),
    resnet: (6, 0),
}


@pytest.mark.parametrize("make", CASES)
def test_vectors_stay(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "model")
    encoder = encoders.load(tmp_path / "model", encoders.LoadOptions(), Provenance("tiny"))
    fp32, path = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    onnx_writer.write(encoder, fp32)
    spec = encoder.spec
    prepare = prepare_with(encoder.assets, spec, tmp_path)
    given = Data(items(spec, 1), prepare, spec)
    feeds = [prepare(items(spec, 2)[i : i + 4]) for i in range(0, 8, 4)]
    exact = vectors(fp32, spec, feeds)
    for target in ("onnx", "openvino", "tensorrt"):
        form = TARGETS[target].int8
        if make is resnet and not form.convolutions:
            continue
        shutil.copy(fp32, path)
        facts = quantize.static(path, given, form)
        found = {"onnxruntime": vectors(path, spec, feeds)}
        if not form.fused:
            assert facts["operators"] == {"int8": CASES[make][0], "float": 0}
            found["openvino"] = vectors(path, spec, feeds, openvino=True)
            ran = openvino_operators(onnx.load(path))
            in_int8 = ran["FullyConnected I8"] + ran["Convolution I8"]
            assert in_int8 == CASES[make][0] - CASES[make][1]
            assert not ran["FullyConnected F32"]
        for runtime, ours in found.items():
            near = cosine(exact, ours)
            assert near.mean() > 0.995 and near.min() > 0.97, (target, runtime)


def vectors(
    path: Path, spec: EncoderSpec, feeds: list[Arrays], openvino: bool = False
) -> npt.NDArray[np.float32]:
    model, name = onnx.load(path), str(spec.vector)
    if openvino:
        compiled = compile_openvino(model)
        return np.concatenate([compiled(feed)[name] for feed in feeds])
    session = observe.open_session(model, [])
    return np.concatenate([session.run([name], feed)[0] for feed in feeds])

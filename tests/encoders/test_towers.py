"""Models with two towers, fine-tuned classifiers, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import edgessl
from edgessl import encoders
from edgessl.encoders.options import LoadOptions
from edgessl.errors import RecipeError, Unsupported
from edgessl.spec import Provenance
from tests.builders import change_json, fill, save_text_model, save_tokenizer

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
IMAGE: dict[str, Any] = {
    **{key: value for key, value in TEXT.items() if key != "max_position_embeddings"},
    "image_size": 32,
    "patch_size": 8,
}
TEXTS = ["hello world", "ab", "", "the quick brown fox 42"]


def save_towers(directory: Path, kind: str) -> Any:
    """A tiny CLIP or SigLIP, both towers, with a tokenizer and an image processor."""
    vocabulary = save_tokenizer(directory)
    config: Any = getattr(transformers, f"{kind}Config")
    text: dict[str, Any] = {**TEXT, "vocab_size": vocabulary, "pad_token_id": 0}
    if kind == "CLIP":
        # Published checkpoints have the projection's width in all three places.
        text |= {"bos_token_id": 1, "eos_token_id": 2, "projection_dim": 20}
        image = {**IMAGE, "projection_dim": 20}
        settings = config(text_config=text, vision_config=image, projection_dim=20)
    else:
        settings = config(text_config={**text, "projection_size": 32}, vision_config=IMAGE)
    model = getattr(transformers, f"{kind}Model")(settings).eval()
    fill(model, seed=11)
    model.save_pretrained(directory)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def vector_of(result: Any) -> Any:
    """transformers 5 returns the tower's output, earlier releases its vector."""
    return getattr(result, "pooler_output", result).numpy()


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_both_towers(kind: str, target: str, tmp_path: Path) -> None:
    model = save_towers(tmp_path / "model", kind)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.manual_seed(1))
    built = edgessl.build(tmp_path / "model", target, tmp_path / "image", tower="image")
    with torch.no_grad():
        expected = vector_of(model.get_image_features(pixel_values=pixels))
    with edgessl.load(built.path) as session:
        ours = session.run({"pixel_values": pixels.numpy()})["image_embedding"]
    np.testing.assert_allclose(ours, expected, atol=1e-4)

    built = edgessl.build(tmp_path / "model", target, tmp_path / "text", tower="text")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    with edgessl.load(built.path) as session:
        ours = session.embed(TEXTS)
        assert session.prepare(["a"])["input_ids"].shape[1] == (24 if kind == "Siglip" else 3)
    for text, row in zip(TEXTS, ours, strict=True):
        options = {"padding": "max_length"} if kind == "Siglip" else {}  # as SigLIP's own card
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=24, **options)
        given = {"input_ids": inputs["input_ids"]}
        with torch.no_grad():
            result = vector_of(model.get_text_features(**given))
        np.testing.assert_allclose(row, result[0], atol=1e-4)


def test_a_tower_has_to_be_chosen(tmp_path: Path) -> None:
    save_towers(tmp_path / "clip", "CLIP")
    with pytest.raises(RecipeError, match="choose one with --tower image or --tower text"):
        encoders.load(tmp_path / "clip", LoadOptions(), Provenance("clip"))
    save_text_model(tmp_path / "bert")
    with pytest.raises(RecipeError, match=r"bert \(bert\) has only one"):
        encoders.load(tmp_path / "bert", LoadOptions(tower="text"), Provenance("bert"))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_text_classifier(family: str, tmp_path: Path) -> None:
    head = "ForSequenceClassification"
    save_text_model(tmp_path / "model", family, head=head, num_labels=3)
    auto: Any = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(tmp_path / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    built = edgessl.build(tmp_path / "model", "onnx", tmp_path / "bundle", probabilities=True)
    assert built.manifest.encoder.outputs[0].shape == ("batch", 3)
    with edgessl.load(built.path) as session:
        ours = session.embed(TEXTS)
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        given = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        expected = model(**given).logits.softmax(-1)
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def test_image_classifier_of_several_labels(tmp_path: Path) -> None:
    library: Any = transformers.ViTForImageClassification
    settings: dict[str, Any] = {"num_labels": 4, "problem_type": "multi_label_classification"}
    model = library(transformers.ViTConfig(**IMAGE, **settings)).eval()
    fill(model, seed=2)
    model.save_pretrained(tmp_path / "model")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    built = edgessl.build(tmp_path / "model", "onnx", tmp_path / "bundle", probabilities=True)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.manual_seed(1))
    with edgessl.load(built.path) as session:
        ours = session.run({"pixel_values": pixels.numpy()})["probabilities"]
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits.sigmoid()
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def test_probabilities_need_a_classifier(tmp_path: Path) -> None:
    save_text_model(tmp_path / "plain")
    with pytest.raises((Unsupported, edgessl.CheckpointError), match="lack|needs a fine-tuned"):
        encoders.load(tmp_path / "plain", LoadOptions(probabilities=True), Provenance("plain"))
    head = "ForSequenceClassification"
    save_text_model(tmp_path / "number", head=head, num_labels=1)
    with pytest.raises(Unsupported, match="a number, not probabilities"):
        encoders.load(tmp_path / "number", LoadOptions(probabilities=True), Provenance("n"))
    with pytest.raises(RecipeError, match="without --pooling"):
        LoadOptions(probabilities=True, pooling="cls")


def test_refused_by_name(tmp_path: Path) -> None:
    directory = save_text_model(tmp_path / "bert")
    change_json(directory / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(Unsupported, match="quantized on disk already"):
        encoders.load(directory, LoadOptions(), Provenance("bert"))
    code = {"AutoModel": "modeling.Own"}
    change_json(
        directory / "config.json", quantization_config=None, model_type="own", auto_map=code
    )
    with pytest.raises(Unsupported, match=r"its own code \(auto_map\), and edgessl runs none"):
        encoders.load(directory, LoadOptions(), Provenance("bert"))

"""What a bundle carries for other libraries, without those libraries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgessl
from edgessl import bundle, ecosystem, openvino_core, parity
from edgessl.spec import EncoderSpec, ImageSpec, TensorSpec, TextSpec
from tests.builders import save_mae, save_text_model

FEATURES = TensorSpec("last_hidden_state", "float32", ("batch", "sequence", 8))


def text_spec(features: bool = False, **fields: Any) -> EncoderSpec:
    axes = ("batch", "sequence")
    vector = TensorSpec("sentence_embedding", "float32", ("batch", 8))
    spec = EncoderSpec(
        task="text",
        family="bert",
        pooling="mean",
        normalize=True,
        inputs=(
            TensorSpec("input_ids", "int64", axes),
            TensorSpec("attention_mask", "int64", axes),
        ),
        outputs=(vector, FEATURES) if features else (vector,),
        preprocessing=TextSpec(max_length=16),
    )
    return replace(spec, **fields)


def image_spec(features: bool = False) -> EncoderSpec:
    vector = TensorSpec("image_embedding", "float32", ("batch", 8))
    return EncoderSpec(
        task="image",
        family="vit_mae",
        pooling="mean",
        normalize=False,
        inputs=(TensorSpec("pixel_values", "float32", ("batch", 3, 32, 32)),),
        outputs=(vector, FEATURES) if features else (vector,),
        preprocessing=ImageSpec(32, 32),
    )


def read(files: dict[str, bytes]) -> dict[str, Any]:
    return {name: json.loads(content) for name, content in files.items()}


def kinds(files: dict[str, bytes]) -> list[str]:
    return [module["type"].rpartition(".")[2] for module in read(files)["modules.json"]]


def modes(files: dict[str, bytes]) -> list[str]:
    pooling = read(files)["1_Pooling/config.json"]
    return [key for key, value in pooling.items() if value is True]


def test_a_vector_is_opened_as_the_features_of_one_token() -> None:
    files = ecosystem.files(text_spec(), "onnx", {"opset": 21}, plain=False)

    assert ecosystem.repeated_vector(text_spec()) == "sentence_embedding"
    assert set(files) == {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"}
    assert kinds(files) == ["Transformer", "Pooling"]  # the graph has normalised it
    assert modes(files) == ["pooling_mode_cls_token"]
    assert read(files)["1_Pooling/config.json"]["word_embedding_dimension"] == 8
    assert read(files)["sentence_bert_config.json"] == {
        "max_seq_length": 16,
        "do_lower_case": False,
    }


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ("cls", "cls_token"),
        ("mean", "mean_tokens"),
        ("max", "max_tokens"),
        ("weightedmean", "weightedmean_tokens"),
        ("lasttoken", "lasttoken"),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_features_are_pooled_over_there(pooling: str, mode: str, normalize: bool) -> None:
    spec = text_spec(features=True, pooling=pooling, normalize=normalize)
    files = ecosystem.files(spec, "onnx", {}, plain=True)

    assert ecosystem.repeated_vector(spec) is None
    assert kinds(files) == ["Transformer", "Pooling"] + ["Normalize"] * normalize
    assert modes(files) == [f"pooling_mode_{mode}"]


@pytest.mark.parametrize(
    ("spec", "target", "plain"),
    [
        (text_spec(), "tensorrt", True),
        (text_spec(preprocessing=TextSpec(16, pad_to=16)), "onnx", True),
        (text_spec(outputs=(FEATURES,), pooling="none"), "onnx", True),
        (text_spec(features=True), "onnx", False),  # Dense modules follow the pooling
        (text_spec(features=True, pooling="pooler"), "onnx", True),
        (
            text_spec(
                outputs=(TensorSpec("sentence_embedding", "float32", ("batch", 4)), FEATURES)
            ),
            "onnx",
            True,
        ),
        (image_spec(), "openvino", True),
        (image_spec(features=True), "onnx", True),
    ],
)
def test_no_files_where_the_vectors_would_differ(
    spec: EncoderSpec, target: str, plain: bool
) -> None:
    assert ecosystem.files(spec, target, {}, plain) == {}


def test_features_alone_and_probabilities_are_not_repeated() -> None:
    assert ecosystem.repeated_vector(text_spec(outputs=(FEATURES,), pooling="none")) is None
    classifier = TensorSpec("probabilities", "float32", ("batch", 3))
    spec = text_spec(outputs=(classifier,), pooling="probabilities")
    assert ecosystem.repeated_vector(spec) is None
    assert ecosystem.files(spec, "onnx", {}, plain=True) == {}


def test_images_are_a_modality_of_their_own() -> None:
    settings = read(ecosystem.files(image_spec(), "onnx", {}, plain=True))
    assert settings["sentence_bert_config.json"] == {
        "modality_config": {
            "image": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "module_output_name": "token_embeddings",
    }


@pytest.mark.parametrize(("wanted", "hint"), [("f32", "f32"), ("f16", "f32"), ("bf16", "bf16")])
def test_openvino_is_told_how_to_compute(wanted: str, hint: str) -> None:
    files = ecosystem.files(text_spec(), "openvino", {"inference_precision": wanted}, plain=True)
    settings = read(files)["sentence_bert_config.json"]
    assert settings["model_args"] == {"ov_config": {"INFERENCE_PRECISION_HINT": hint}}


def test_prompts_keep_their_names() -> None:
    named = {"query": "query: ", "passage": "passage: "}

    def prompts(**fields: Any) -> Any:
        spec = text_spec(preprocessing=TextSpec(16, **fields))
        return read(ecosystem.files(spec, "onnx", {}, plain=True)).get(ecosystem.PROMPTS)

    assert prompts() is None
    assert prompts(prompts=named) == {"prompts": named, "default_prompt_name": None}
    assert prompts(prompts=named, prompt="passage: ")["default_prompt_name"] == "passage"
    assert prompts(prompt="a: ") == {
        "prompts": {"default": "a: "},
        "default_prompt_name": "default",
    }
    assert prompts(prompts=named, include_prompt=False) is None


def test_tokenizer_config() -> None:
    given = {
        "tokenizer_class": "TokenizersBackend",
        "model_max_length": 512,
        "max_length": 128,
        "local_files_only": True,
        "pad_token": "é",
    }
    content = ecosystem.tokenizer_config(json.dumps(given).encode(), 256)
    assert json.loads(content) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 256,
        "max_length": 256,
        "pad_token": "é",
    }
    bare = ecosystem.tokenizer_config(b'{"tokenizer_class": "BertTokenizer"}', 9)
    assert json.loads(bare) == {"tokenizer_class": "BertTokenizer", "model_max_length": 9}


Build = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build("bert", "onnx")``: a tiny bundle; do not change it."""
    folder = tmp_path_factory.mktemp("ecosystem")

    def once(model: str, target: str) -> Path:
        path = folder / f"{model}-{target}"
        if path.exists():
            return path
        if target == "openvino":
            return edgessl.build(once(model, "onnx"), target, path).path
        checkpoint = {"bert": save_text_model, "mae": save_mae}[model](folder / model)
        return edgessl.build(checkpoint, target, path).path

    return once


def outputs(path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Every output of the bundle's graph, by the runtime library alone."""
    if (path / "model.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(path / "model.onnx")
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core.core("a test").compile_model(
        path / "openvino_model.xml", "CPU", settings
    )
    return {port.any_name: array for port, array in compiled(inputs).items()}


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("model", ["bert", "mae"])
def test_the_graph_gives_its_vector_twice(build: Build, model: str, target: str) -> None:
    path = build(model, target)
    manifest = bundle.read(path)
    assert bundle.check_files(path, manifest) == []
    assert not manifest.encoder.has_features
    for batch in parity.read(path / bundle.REFERENCE):
        found = outputs(path, dict(batch.inputs))
        assert set(found) == {manifest.encoder.vector, "last_hidden_state"}
        vector = found[str(manifest.encoder.vector)]
        assert found["last_hidden_state"].shape == (len(vector), 1, manifest.encoder.dimensions)
        np.testing.assert_array_equal(found["last_hidden_state"][:, 0], vector)


def test_a_bundle_with_features_gives_the_features(build: Build, tmp_path: Path) -> None:
    built = edgessl.build(
        build("bert", "onnx").parent / "bert", "onnx", tmp_path / "onnx", features=True
    )
    again = edgessl.build(built.path, "openvino", tmp_path / "openvino")
    for path in (built.path, again.path):
        batch = parity.read(path / bundle.REFERENCE)[-1]
        hidden = outputs(path, dict(batch.inputs))["last_hidden_state"]
        np.testing.assert_allclose(hidden, batch.outputs["last_hidden_state"], atol=1e-5)
        listed = json.loads((path / "modules.json").read_text())
        assert [module["path"] for module in listed][:2] == ["", "1_Pooling"]


def test_the_files_are_listed_and_say_what_the_manifest_says(build: Build) -> None:
    path = build("bert", "openvino")
    manifest = bundle.read(path)
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= set(
        manifest.files
    )
    prepared = manifest.encoder.preprocessing
    assert isinstance(prepared, TextSpec)
    tokenizer = json.loads((path / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == prepared.max_length
    assert not (build("mae", "openvino") / "modules.json").exists()


def test_what_is_built_from_a_bundle_starts_from_one_vector(build: Build, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from edgessl.export import onnx_graph

    source = build("bert", "onnx") / "model.onnx"
    onnx_graph.copy_without_repeat(source, tmp_path / "bare.onnx")
    bare = onnx.load(tmp_path / "bare.onnx")
    onnx.checker.check_model(bare)
    assert [output.name for output in bare.graph.output] == ["sentence_embedding"]
    assert onnx_graph.repeat(bare, "sentence_embedding")
    assert not onnx_graph.repeat(bare, "sentence_embedding")  # once is enough
    assert bare.SerializeToString() == source.read_bytes()
    # a graph that never had it is copied as it is
    onnx_graph.copy_without_repeat(tmp_path / "bare.onnx", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "bare.onnx").read_bytes()

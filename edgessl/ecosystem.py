"""What a bundle carries so that other libraries open it: see docs/ecosystem.md.

optimum, and with it sentence-transformers, reads one output only, ``last_hidden_state``, and lets
its caller pool it. A bundle without features therefore gives its vector under that name too, as
the features ``(batch, 1, dim)`` of a text of one token, which any of them pools to the vector
itself; a bundle with features is pooled over there, by the modules that ``files`` names.
"""

from __future__ import annotations

import json
from typing import Any

from edgessl.spec import FEATURES_NAME, VECTOR_NAMES, EncoderSpec, TextSpec

MODULES = "modules.json"
TRANSFORMER = "sentence_bert_config.json"
POOLING = "1_Pooling/config.json"
PROMPTS = "config_sentence_transformers.json"
NAMES = (MODULES, TRANSFORMER, POOLING, PROMPTS)

_TYPES = "sentence_transformers.models."  # their name in every version since 2019
_POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# Of the process that saved the tokenizer: nothing that a device could use.
_PASSING = ("is_local", "local_files_only")


def repeated_vector(spec: EncoderSpec) -> str | None:
    """The output that a graph is to give as ``last_hidden_state`` too; None: it gives none."""
    return None if spec.has_features or not _has_vector(spec) else spec.vector


def files(
    spec: EncoderSpec, target: str, compatibility: dict[str, Any], plain: bool
) -> dict[str, bytes]:
    """The files by which sentence-transformers opens the bundle: path inside it -> content.

    Args:
        compatibility: the manifest's facts of what was built for *target*.
        plain: the vector is the features pooled, and normalised at most: no layers follow.

    Returns:
        nothing where sentence-transformers cannot give the bundle's vectors.
    """
    if not _opens(spec, target, plain):
        return {}
    modules = ["Transformer", "Pooling"]
    pooling = "cls"  # of the one token that the vector stands for
    if spec.has_features:
        pooling = spec.pooling
        modules += ["Normalize"] * spec.normalize
    found: dict[str, Any] = {
        MODULES: [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": _TYPES + kind}
            for i, kind in enumerate(modules)
        ],
        TRANSFORMER: _transformer(spec, compatibility),
        POOLING: {
            "word_embedding_dimension": spec.dimensions,
            **{key: mode == pooling for mode, key in _POOLINGS.items()},
        },
    }
    prompts, default = _prompts(spec)
    if prompts:
        found[PROMPTS] = {"prompts": prompts, "default_prompt_name": default}
    return {name: json.dumps(content, indent=2).encode() for name, content in found.items()}


def tokenizer_config(content: bytes, max_length: int) -> bytes:
    """tokenizer_config.json with the length that the bundle cuts texts at.

    Other libraries have no manifest to read it from, and fastembed takes the smaller of the two
    lengths that may stand here.
    """
    config = json.loads(content)
    config["model_max_length"] = max_length
    if "max_length" in config:
        config["max_length"] = max_length
    if config.get("tokenizer_class") == "TokenizersBackend":  # transformers 5 alone knows it
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in _PASSING:
        config.pop(name, None)
    return json.dumps(config, indent=2, ensure_ascii=False).encode()


def _has_vector(spec: EncoderSpec) -> bool:
    return spec.vector in VECTOR_NAMES.values()


def _opens(spec: EncoderSpec, target: str, plain: bool) -> bool:
    text = isinstance(spec.preprocessing, TextSpec)
    if not _has_vector(spec) or spec.task not in ("text", "image"):
        return False
    # Its OpenVINO class takes texts alone.
    if target not in ("onnx", "openvino") or (target == "openvino" and not text):
        return False
    if isinstance(spec.preprocessing, TextSpec) and spec.preprocessing.pad_to is not None:
        return False  # it pads to the longest of the batch
    if not spec.has_features:
        return True
    widths = {output.name: output.shape[-1] for output in spec.outputs}
    poolings = _POOLINGS if text else ("cls",)  # it would count the class token among the patches
    return plain and spec.pooling in poolings and widths[FEATURES_NAME] == spec.dimensions


def _transformer(spec: EncoderSpec, compatibility: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if isinstance(spec.preprocessing, TextSpec):
        settings["max_seq_length"] = spec.preprocessing.max_length
        settings["do_lower_case"] = spec.preprocessing.lowercase
    else:
        how = {"method": "forward", "method_output_name": FEATURES_NAME}
        settings |= {"modality_config": {"image": how}, "module_output_name": "token_embeddings"}
    if "inference_precision" in compatibility:
        # OpenVINO would take bf16 unasked, even for the f16 that no CPU of that kind has.
        wanted = compatibility["inference_precision"]
        hint = {"INFERENCE_PRECISION_HINT": "f32" if wanted == "f16" else wanted}
        settings["model_args"] = {"ov_config": hint}
    return settings


def _prompts(spec: EncoderSpec) -> tuple[dict[str, str], str | None]:
    """Its prompts by name, and the name of the one that goes before every text."""
    text = spec.preprocessing
    if not isinstance(text, TextSpec) or not text.include_prompt:
        return {}, None
    prompts = dict(text.prompts)
    if not text.prompt:
        return prompts, None
    for name, prompt in prompts.items():
        if prompt == text.prompt:
            return prompts, name
    return {**prompts, "default": text.prompt}, "default"

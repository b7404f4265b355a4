"""Checkpoint -> ``Encoder``: one file a family."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgessl.encoder import Encoder
from edgessl.encoders import original, sentence_transformers
from edgessl.encoders.checkpoint import read_config
from edgessl.encoders.families import FAMILIES, TOWERS, Family
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, RecipeError, Unsupported, nearest
from edgessl.spec import Provenance
from edgessl.target import resolve

__all__ = ["LoadOptions", "load"]


def load(path: Path, options: LoadOptions, source: Provenance) -> Encoder:
    """Load the encoder at *path*, whatever its family and layout.

    Args:
        path: a Hugging Face or sentence-transformers directory, a directory that timm saved, or
            a weights file in its authors' own layout (``edgessl.encoders.original``).
        options: what the user decides.
        source: where *path* comes from; what had to be assumed is added to its ``assumptions``.

    Raises:
        CheckpointError: not a model, or one that is damaged or unsafe.
        Unsupported: not an encoder, or of a family that edgessl does not know.
        RecipeError: an option that does not fit this encoder.
    """
    if original.is_original(path):
        with tempfile.TemporaryDirectory(prefix="edgessl-") as folder:
            converted = original.convert(path, Path(folder) / "model")
            assumptions = (f"converted from: {converted.origin}", *converted.assumptions)
            source = replace(source, assumptions=assumptions)
            encoder = _load_directory(Path(folder) / "model", options, source)
        origin = replace(encoder.provenance, weights_sha256=converted.sha256)
        return replace(encoder, provenance=origin)
    if path.is_file():
        raise CheckpointError(
            f"{source.source} is not a weights file that edgessl reads (.pth, .pt, .bin, "
            ".safetensors): give that, or the directory that holds the model's config.json."
        )
    return _load_directory(path, options, source)


def _load_directory(directory: Path, options: LoadOptions, source: Provenance) -> Encoder:
    place = sentence_transformers.transformer_directory(directory)
    config = read_config(place)
    model_type = config.get("model_type")
    if model_type is None and (inferred := original.infer_model_type(config, place)):
        model_type, why = inferred
        source = replace(source, assumptions=(*source.assumptions, f"{model_type}: {why}"))
        with _with_model_type(directory, place, model_type) as (copy, config):
            return _load_family(copy, config, model_type, options, source)
    if not isinstance(model_type, str):
        raise CheckpointError(
            f"{source.source}: config.json has no model_type, so the family is unknown. "
            f'Add one, e.g. "model_type": "bert". Families: {", ".join(FAMILIES)}.'
        )
    return _load_family(directory, config, model_type, options, source)


def _load_family(
    directory: Path,
    config: dict[str, object],
    model_type: str,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    if "quantization_config" in config:
        raise Unsupported(
            f"{source.source}: its weights are quantized on disk already (quantization_config in "
            "config.json); give edgessl the float checkpoint that they were made from."
        )
    family = _family(model_type, config, options, source.source)
    options.require_task(family.task)
    encoder: Encoder = resolve(family.loader)(directory, config, family, options, source)
    return encoder


@contextmanager
def _with_model_type(
    directory: Path, place: Path, model_type: str
) -> Iterator[tuple[Path, dict[str, object]]]:
    """*directory* again, in links, with a config.json that says its model_type: transformers
    would guess one from the folder's name."""
    config = {**read_config(place), "model_type": model_type}
    with tempfile.TemporaryDirectory(prefix="edgessl-") as folder:
        copy = Path(folder) / directory.name
        for file in directory.rglob("*"):
            if file.is_file() and file != place / "config.json":
                link = copy / file.relative_to(directory)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
        changed = copy / place.relative_to(directory) / "config.json"
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_text(json.dumps(config, indent=2), encoding="utf-8")
        yield copy, config


def _family(model_type: str, config: dict[str, object], options: LoadOptions, name: str) -> Family:
    if model_type in TOWERS:
        if options.tower is None:
            raise RecipeError(
                f"{name} has an image and a text tower: choose one with --tower image or "
                "--tower text (a bundle each; their vectors compare)."
            )
        return TOWERS[model_type][options.tower]
    if options.tower is not None:
        raise RecipeError(f"--tower {options.tower}: {name} ({model_type}) has only one.")
    if model_type not in FAMILIES:
        code = " It brings its own code (auto_map), and edgessl runs none." * ("auto_map" in config)
        raise Unsupported(f"{name}: {_why_not(model_type)}{code}")
    return FAMILIES[model_type]


def _why_not(model_type: str) -> str:
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if model_type in causal and model_type not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return f"{model_type} is a decoder-only language model; edgessl takes encoders."
    return (
        f"{model_type!r} is not a family that edgessl loads.{nearest(model_type, FAMILIES)} "
        f"Families: {', '.join(FAMILIES)}."
    )

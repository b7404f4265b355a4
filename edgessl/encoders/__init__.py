"""Checkpoint -> ``Encoder``: one file a family."""

from __future__ import annotations

from pathlib import Path

from edgessl.encoder import Encoder
from edgessl.encoders import sentence_transformers
from edgessl.encoders.checkpoint import read_config
from edgessl.encoders.families import FAMILIES
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, Unsupported, nearest
from edgessl.spec import Provenance
from edgessl.target import resolve

__all__ = ["LoadOptions", "load"]


def load(directory: Path, options: LoadOptions, source: Provenance) -> Encoder:
    """Load the encoder in *directory*, whatever its family.

    Raises:
        CheckpointError: not a model directory, or one that is damaged or unsafe.
        Unsupported: not an encoder, or of a family that edgessl does not know.
        RecipeError: an option that does not fit this encoder.
    """
    config = read_config(sentence_transformers.transformer_directory(directory))
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError(
            f"{source.source}: config.json has no model_type, so the family is unknown. "
            f'Add one, e.g. "model_type": "bert". Families: {", ".join(FAMILIES)}.'
        )
    if model_type not in FAMILIES:
        raise Unsupported(f"{source.source}: {_why_not(model_type)}")
    family = FAMILIES[model_type]
    encoder: Encoder = resolve(family.loader)(directory, config, family, options, source)
    return encoder


def _why_not(model_type: str) -> str:
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if model_type in causal and model_type not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return f"{model_type} is a decoder-only language model; edgessl takes encoders."
    return (
        f"{model_type!r} is not a family that edgessl loads.{nearest(model_type, FAMILIES)} "
        f"Families: {', '.join(FAMILIES)}."
    )

"""Text encoders of transformers, and the sentence-transformers modules that follow them."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgessl import ecosystem
from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint, sentence_transformers
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head, HeadPlan, own_vector, probabilities, require_classifier
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.encoders.quiet import quiet_transformers
from edgessl.encoders.weights import Weights
from edgessl.errors import CheckpointError, RecipeError, Unsupported, first_line
from edgessl.spec import PROBABILITIES, EncoderSpec, Provenance, TensorSpec, TextSpec

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = ("tokenizer.json", TOKENIZER_CONFIG)


class TextEncoder(torch.nn.Module):
    """``input_ids``, ``attention_mask`` -> vector and/or features."""

    def __init__(self, backbone: torch.nn.Module, head: Head, mask: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.mask = mask

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        mask: torch.Tensor | None = attention_mask
        if self.mask == "none":
            mask = None
        elif self.mask == "additive":
            # The library takes a ready additive mask as it is. Making it here keeps its own
            # mask-building (gathers and scatters, different in every release) out of the graph.
            dtype = next(self.backbone.parameters()).dtype
            kept = attention_mask[:, None, None, :].to(dtype)
            mask = (1 - kept) * torch.finfo(dtype).min
        result = self.backbone(input_ids=input_ids, attention_mask=mask)
        if self.head.plan.pooling == PROBABILITIES:
            return (probabilities(result.logits, self.backbone.config),)
        pooled = own_vector(result) if self.head.plan.pooling == "pooler" else None
        outputs: tuple[torch.Tensor, ...] = self.head(
            result.last_hidden_state, attention_mask, pooled
        )
        return outputs


def load(
    directory: Path,
    config: dict[str, Any],
    family: Family,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    """Load a text encoder from a Hugging Face or sentence-transformers directory.

    Raises:
        CheckpointError: weights or tokenizer are missing, damaged, or do not fit together.
        Unsupported: a decoder, or a module or pooling that edgessl does not have.
        RecipeError: ``max_length`` beyond the position table, an unknown prompt.
    """
    import transformers

    if options.image_size is not None:
        raise RecipeError("--image-size is for image encoders; this is a text encoder.")
    if config.get("is_decoder") and family.reads == "AutoModel":
        raise Unsupported(f"{source.source}: config.json says is_decoder; edgessl takes encoders.")
    layout = sentence_transformers.read(directory, options.pooling, options.prompt)
    pooling = layout.pooling or family.pooling
    reads = family.reads
    if options.probabilities:
        pooling, reads = PROBABILITIES, "AutoModelForSequenceClassification"
    weights = checkpoint.find_weights(layout.transformer)
    checkpoint.check_weights(weights)
    # A missing pooler would be random; it is only allowed to be missing where it is not used.
    own = pooling in ("pooler", PROBABILITIES)
    backbone: Any = checkpoint.load_module(
        getattr(transformers, reads),
        layout.transformer,
        weights,
        allowed_missing=() if own else (r"(^|\.)pooler\.",),
    )
    if not own and hasattr(backbone, "pooler"):
        backbone.pooler = None
    shape = backbone.config
    if options.probabilities:
        require_classifier(shape, source.source)
    tokenizer, assets = _tokenizer(layout.transformer)
    vocabulary = max(tokenizer.get_vocab().values(), default=-1) + 1
    if vocabulary > shape.vocab_size:
        raise CheckpointError(
            f"{source.source}: the tokenizer has {vocabulary} tokens, the model's table only "
            f"{shape.vocab_size}: tokenizer and weights are not of the same model."
        )
    normalized = layout.normalize if options.normalize is None else options.normalize
    plan = HeadPlan(
        pooling,
        normalized,
        options.features,
        left_padded=tokenizer.padding_side == "left",
        dense=layout.load_dense(),
        dimensions=options.dimensions,
    )
    module = TextEncoder(backbone, Head(plan), family.mask).eval()
    max_length = _max_length(
        options.max_length,
        layout.max_length or int(tokenizer.model_max_length),
        getattr(shape, "max_position_embeddings", None),
        family.position_offset,
    )
    axes = ("batch", "sequence")
    spec = EncoderSpec(
        task="text",
        family=family.model_type,
        pooling=pooling,
        normalize=normalized and pooling not in ("none", PROBABILITIES),
        inputs=(
            TensorSpec("input_ids", "int64", axes),
            TensorSpec("attention_mask", "int64", axes),
        ),
        outputs=output_specs("text", pooling, options, _output_shapes(module), "sequence"),
        preprocessing=TextSpec(
            max_length=max_length,
            lowercase=layout.lowercase,
            prompt=layout.prompt,
            prompts=layout.prompts,
            include_prompt=layout.include_prompt,
            pad_to=family.pad_to and min(family.pad_to, shape.max_position_embeddings),
        ),
    )
    return Encoder(
        module=module,
        spec=spec,
        provenance=replace(source, weights_sha256=_sha256(weights, layout)),
        assets={
            **assets,
            TOKENIZER_CONFIG: ecosystem.tokenizer_config(assets[TOKENIZER_CONFIG], max_length),
            "config.json": (layout.transformer / "config.json").read_bytes(),
        },
        plain=not layout.dense,
    )


def _sha256(weights: Weights, layout: sentence_transformers.Layout) -> str:
    """Of the transformer's weights; where Dense modules follow, over the hashes of all."""
    hashes = [checkpoint.sha256(weights)]
    hashes += [checkpoint.sha256(checkpoint.find_weights(folder)) for folder in layout.dense]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _output_shapes(module: TextEncoder) -> list[torch.Size]:
    example = torch.ones(1, 3, dtype=torch.int64)
    with torch.no_grad():
        return [output.shape for output in module(example, example)]


def _max_length(asked: int | None, declared: int, table: int | None, offset: int) -> int:
    """Tokens that a text may have: what was asked for, else what the checkpoint declares.

    *table*: rows of the position table; None for models with relative positions only.
    """
    positions = sys.maxsize if table is None else table - offset
    if asked is not None and not 3 <= asked <= positions:
        raise RecipeError(
            f"--max-length {asked}: this model's position table allows 3 to {positions} tokens."
        )
    longest = asked or min(declared, positions)
    # A tokenizer that knows no limit says 1e30; T5 was pretrained on 512 tokens.
    return longest if longest < 1_000_000 else 512


def _tokenizer(directory: Path) -> tuple[Any, dict[str, bytes]]:
    """The tokenizer as the library itself reads it, and its files.

    Saved anew rather than copied: an older checkpoint may hold only a vocab.txt, and settings
    in tokenizer_config.json override those in tokenizer.json when the library loads them.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
    except Exception as err:  # whatever the library raises, the file is what is wrong
        raise CheckpointError(
            f"{directory.name}: its tokenizer cannot be read ({first_line(err)}). The directory "
            "needs tokenizer.json, or the vocabulary files of its tokenizer."
        ) from err
    # Without any of its files the library makes a tokenizer that knows no words, and says nothing.
    files = set(tokenizer.vocab_files_names.values())
    if not any((directory / name).is_file() for name in files):
        raise CheckpointError(
            f"{directory.name} has no tokenizer: none of {', '.join(sorted(files))}. Save it beside "
            "the weights: tokenizer.save_pretrained(DIRECTORY)."
        )
    if not tokenizer.is_fast:
        raise Unsupported(
            f"{directory.name}: its tokenizer ({type(tokenizer).__name__}) exists only in Python "
            "and cannot run on a device; edgessl needs one that has a tokenizer.json."
        )
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        tokenizer.save_pretrained(folder)
        assets = {name: (Path(folder) / name).read_bytes() for name in TOKENIZER_FILES}
    return tokenizer, assets

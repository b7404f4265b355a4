"""BERT-shaped text encoders: BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT, MPNet, ELECTRA, ALBERT."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint, sentence_transformers
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.encoders.quiet import quiet_transformers
from edgessl.encoders.weights import first_line
from edgessl.errors import CheckpointError, RecipeError, Unsupported
from edgessl.spec import EncoderSpec, Provenance, TensorSpec, TextSpec

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class TextEncoder(torch.nn.Module):
    """``input_ids``, ``attention_mask`` -> vector and/or features."""

    def __init__(self, backbone: torch.nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        # The library takes a ready additive mask as it is. Making it here keeps its own
        # mask-building (gathers and scatters, different in every release) out of the graph.
        dtype = next(self.backbone.parameters()).dtype
        additive = (1 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min
        hidden = self.backbone(input_ids=input_ids, attention_mask=additive).last_hidden_state
        outputs: tuple[torch.Tensor, ...] = self.head(hidden, attention_mask)
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
        RecipeError: ``max_length`` beyond the position table.
    """
    from transformers import AutoModel

    if config.get("is_decoder"):
        raise Unsupported(f"{source.source}: config.json says is_decoder; edgessl takes encoders.")
    layout = sentence_transformers.read(directory, options.pooling)
    weights = checkpoint.find_weights(layout.transformer)
    checkpoint.check_weights(weights)
    backbone: Any = checkpoint.load_module(
        AutoModel, layout.transformer, weights, allowed_missing=(r"(^|\.)pooler\.",)
    )
    if hasattr(backbone, "pooler"):
        backbone.pooler = None  # its tanh layer is never part of an embedding
    shape = backbone.config
    assets, tokenizer_limit, vocabulary = _tokenizer(layout.transformer)
    if vocabulary > shape.vocab_size:
        raise CheckpointError(
            f"{source.source}: the tokenizer has {vocabulary} tokens, the model's table only "
            f"{shape.vocab_size}: tokenizer and weights are not of the same model."
        )
    pooling = layout.pooling or "mean"
    normalized = layout.normalize if options.normalize is None else options.normalize
    axes = ("batch", "sequence")
    spec = EncoderSpec(
        task="text",
        family=family.model_type,
        pooling=pooling,
        normalize=normalized and pooling != "none",
        inputs=(
            TensorSpec("input_ids", "int64", axes),
            TensorSpec("attention_mask", "int64", axes),
        ),
        outputs=output_specs("text", pooling, options.features, shape.hidden_size, "sequence"),
        preprocessing=TextSpec(
            max_length=_max_length(
                options.max_length,
                layout.max_length or tokenizer_limit,
                shape.max_position_embeddings - family.position_offset,
            ),
            lowercase=layout.lowercase,
            prompt=layout.prompt,
        ),
    )
    return Encoder(
        module=TextEncoder(backbone, Head(pooling, normalized, options.features)).eval(),
        spec=spec,
        provenance=replace(source, weights_sha256=checkpoint.sha256(weights)),
        assets={**assets, "config.json": (layout.transformer / "config.json").read_bytes()},
    )


def _max_length(asked: int | None, declared: int, positions: int) -> int:
    """Tokens that a text may have: what was asked for, else what the checkpoint declares."""
    if asked is not None and not 3 <= asked <= positions:
        raise RecipeError(
            f"--max-length {asked}: this model's position table allows 3 to {positions} tokens."
        )
    return asked or min(declared, positions)


def _tokenizer(directory: Path) -> tuple[dict[str, bytes], int, int]:
    """The tokenizer's files as the library itself reads them, its length limit, its size.

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
    highest = max(tokenizer.get_vocab().values(), default=-1)
    return assets, int(tokenizer.model_max_length), highest + 1

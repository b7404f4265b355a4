"""Old text directories whose config.json does not say its model_type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.encoders.original import reading

_LAYER = r"encoder\.layer\.0\.attention\.self\.query\.weight$"
_BERT_EMBEDDINGS = (
    r"(^|\.)embeddings\.(word_embeddings|position_embeddings|token_type_embeddings|LayerNorm|"
    r"position_ids|token_type_ids)(\.|$)"
)


@dataclass(frozen=True)
class _Rule:
    """``names``: expressions that must each match a weight; ``keys``: what config.json must have,
    with one value where it is given."""

    model_type: str
    because: str
    names: tuple[str, ...]
    keys: Mapping[str, object]


_ANY = object()
_BERT_KEYS = {"vocab_size": _ANY, "hidden_act": _ANY, "type_vocab_size": _ANY}
# The first that fits: the special before the general.
_RULES = (
    _Rule(
        "distilbert",
        "its weights are called transformer.layer.*.attention.q_lin",
        (r"(^|\.)transformer\.layer\.0\.attention\.q_lin\.weight$",),
        {"vocab_size": _ANY, "n_layers": _ANY, "dim": _ANY},
    ),
    _Rule(
        "albert",
        "its weights are called albert_layer_groups",
        (r"encoder\.albert_layer_groups\.0\.",),
        {"vocab_size": _ANY, "embedding_size": _ANY},
    ),
    _Rule(
        "electra",
        "its weights have ELECTRA's names",
        (r"(^electra\.|^embeddings_project\.)", _LAYER),
        {**_BERT_KEYS, "embedding_size": _ANY},
    ),
    _Rule("camembert", "its weights are called roberta.* and its vocabulary is CamemBERT's",
          (r"^roberta\.", _LAYER), {**_BERT_KEYS, "vocab_size": 32005}),
    _Rule("xlm-roberta", "its weights are called roberta.* and its vocabulary is XLM-RoBERTa's",
          (r"^roberta\.", _LAYER), {**_BERT_KEYS, "vocab_size": 250002}),
    _Rule("roberta", "its weights are called roberta.*", (r"^roberta\.", _LAYER), _BERT_KEYS),
    _Rule("bert", "its weights are called bert.encoder.layer", (rf"^bert\.{_LAYER}",), _BERT_KEYS),
    _Rule("camembert", "it has BERT's names, one token type and CamemBERT's vocabulary",
          (rf"^{_LAYER}",), {**_BERT_KEYS, "type_vocab_size": 1, "vocab_size": 32005}),
    _Rule("xlm-roberta", "it has BERT's names, one token type and XLM-RoBERTa's vocabulary",
          (rf"^{_LAYER}",), {**_BERT_KEYS, "type_vocab_size": 1, "vocab_size": 250002}),
    _Rule("roberta", "it has BERT's names and one token type", (rf"^{_LAYER}",),
          {**_BERT_KEYS, "type_vocab_size": 1}),
    _Rule("bert", "it has BERT's names and two token types", (rf"^{_LAYER}",),
          {**_BERT_KEYS, "type_vocab_size": 2}),
)  # fmt: skip
# The same layer names, another network.
_NOT = (r"crossattention", r"distance_embedding", r"relative_attention_bias", r"rel_embeddings")


def infer_model_type(config: dict[str, Any], directory: Path) -> tuple[str, str] | None:
    """The model_type of a text *directory* whose *config* has none: it, and what was assumed.

    None where config and weights together do not say it.

    Raises:
        CheckpointError: the weights are missing, damaged or unsafe.
    """
    if "model_type" in config:
        return None
    names = list(reading.read(directory).content)
    if any(re.search(pattern, name) for pattern in _NOT for name in names):
        return None
    for rule in _RULES:
        if not _fits(rule, config, names):
            continue
        if rule.model_type not in ("distilbert", "albert") and _unknown_embeddings(names):
            return None
        return rule.model_type, (
            f"config.json has no model_type; taken as {rule.model_type}, as {rule.because}"
        )
    return None


def _fits(rule: _Rule, config: dict[str, Any], names: list[str]) -> bool:
    return all(
        key in config and (value is _ANY or config[key] == value)
        for key, value in rule.keys.items()
    ) and all(any(re.search(pattern, name) for name in names) for pattern in rule.names)


def _unknown_embeddings(names: list[str]) -> list[str]:
    """Tables beside words, positions and token types, as layout or visual models have them."""
    return [
        name
        for name in names
        if re.search(r"^(\w+\.)?embeddings\.", name) and not re.search(_BERT_EMBEDDINGS, name)
    ]

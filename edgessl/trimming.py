"""A text checkpoint with fewer tokens: tokenizer and embedding table cut together, and checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgessl import compression
from edgessl.backend import Report, silent
from edgessl.compress import vocabulary
from edgessl.compress.vocabulary import Cut
from edgessl.compression import Checkpoint, dumped
from edgessl.encoder import Encoder
from edgessl.errors import CheckpointError, RecipeError, Unsupported
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from edgessl.spec import TextSpec
from edgessl.staging import check_output, staged

_CHECKED_TEXTS, _CHECKED_VECTORS = 20_000, 64
# Names of what has a row, or a number, for each token: the table, and a head's way back to it.
_BY_TOKEN = re.compile(
    r"(^|\.)(word_embeddings|embed_tokens|tok_embeddings|token_embedding|shared|wte)\.weight$"
    r"|(^|\.)(decoder|lm_head|embedding_transformation|generator_lm_head)(\.decoder)?\.(weight|bias)$"
    r"|(^|\.)(predictions|lm_head|vocab_projector|head)\.bias$"
    r"|(^|\.)vocab_projector\.weight$"
)


@dataclass(frozen=True)
class Trimmed:
    """``covered``: share of the corpus's texts that need no token but those that were kept.
    ``bytes``: of weights and tokenizer. ``identical_texts`` got the same tokens and
    ``identical_vectors`` the same vectors, bit for bit."""

    path: str
    tokens_before: int
    tokens_after: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    texts: int
    covered: float
    identical_texts: int
    identical_vectors: int


def trim(
    model: str,
    corpus: Sequence[str],
    output: Path,
    *,
    size: int | None = None,
    column: str | None = None,
    revision: str | None = None,
    report: Report = silent,
) -> Trimmed:
    """Write *model* to the directory *output* with the tokens that the texts of *corpus* need.

    Args:
        model: a directory in the Hugging Face or sentence-transformers layout, or a hub id.
        corpus: files of texts, as docs/embed.md has them; *column* of a table.
        size: tokens to keep at most, the most frequent first; None: all that occur.

    Raises:
        RecipeError: no texts, or *size* is too small.
        Unsupported: no text encoder, or a tokenizer that cannot be cut.
        CheckpointError: the checkpoint cannot be read, or the smaller one says something else.
        OutputError: *output* is there already, or cannot be written.
    """
    check_output(output, overwrite=False)
    report("reading the checkpoint")
    old = compression.read(model, revision, report)
    encoder = load_encoder(Recipe(model=model, revision=revision), report)
    spec = encoder.spec.preprocessing
    if not isinstance(spec, TextSpec):
        raise Unsupported(f"{model!r} is no text encoder: it has no vocabulary.")
    config = old.config
    if not isinstance(config.get("vocab_size"), int):
        raise Unsupported(
            f"{old.source}: its config.json has no vocab_size of its own (a model of two towers?), "
            "so its vocabulary cannot be cut."
        )
    tokenizer = encoder.assets["tokenizer.json"].decode()

    report("counting tokens")
    counts, number = _count(tokenizer, _texts(corpus, column, spec))
    if number == 0:
        raise RecipeError(f"data {corpus[0]!r}: no text in it that can be used.")
    prompts = [_prepared(spec, prompt) for prompt in spec.prompts.values()]
    counts.update(dict.fromkeys(_count(tokenizer, prompts)[0], number))  # before any of them
    made = vocabulary.cut(tokenizer, counts, size, _fixed(config))
    if made.kept[-1] >= config["vocab_size"]:
        raise CheckpointError(f"{old.source}: the tokenizer has tokens that the table has not.")
    report("checking that the tokens are the same")
    covered, checked, sample = _covered(tokenizer, made, _texts(corpus, column, spec))

    smaller = _rows(old, made.kept)
    settings = {
        **vocabulary.renumbered(config, made.new, config["vocab_size"]),
        "vocab_size": len(made.kept),
    }
    with staged(output, overwrite=False) as stage:
        report("writing the smaller checkpoint")
        compression.write(stage, old, smaller, settings, _files(encoder, made))
        report("comparing vectors")
        same = _compare(encoder, load_encoder(Recipe(model=str(stage))), sample)
        facts = Trimmed(
            path=str(output),
            tokens_before=config["vocab_size"],
            tokens_after=len(made.kept),
            parameters_before=old.parameters,
            parameters_after=compression.count(smaller.values()),
            bytes_before=compression.size(old.tensors.values()) + len(tokenizer.encode()),
            bytes_after=compression.size(smaller.values()) + len(made.tokenizer.encode()),
            texts=number,
            covered=covered,
            identical_texts=checked,
            identical_vectors=same,
        )
        compression.note(stage, old, "vocabulary", asdict(replace(facts, path="")))
    return facts


def _texts(corpus: Sequence[str], column: str | None, spec: TextSpec) -> Iterator[str]:
    """What the tokenizer is given of the corpus: with the model's own prompt before it."""
    from edgessl.embed import inputs

    for block in inputs.blocks(inputs.Source(tuple(corpus), "text", column), 4096):
        yield from (_prepared(spec, spec.prompt + text) for text in block.items if text.strip())


def _prepared(spec: TextSpec, text: str) -> str:
    return text.lower() if spec.lowercase else text


def _count(tokenizer: str, texts: Iterable[str]) -> tuple[Counter[int], int]:
    counts: Counter[int] = Counter()
    number = 0
    for ids in vocabulary.encoded(tokenizer, texts):
        counts.update(ids)
        number += 1
    return counts, number


def _fixed(config: Mapping[str, Any]) -> set[int]:
    """Ids that settings name; and all up to that of padding, from which RoBERTa counts its
    positions."""
    named = {
        value
        for key, value in config.items()
        if key.endswith("_token_id")
        and isinstance(value, int)
        and 0 <= value < config["vocab_size"]
    }
    return named | set(range((config.get("pad_token_id") or 0) + 1))


def _covered(tokenizer: str, made: Cut, texts: Iterable[str]) -> tuple[float, int, list[str]]:
    """Share of the texts that are covered, how many got the same tokens, and some of them.

    Raises:
        CheckpointError: a covered text gets other tokens.
    """
    new, kept = made.new, set(made.kept)
    first = list(islice(texts, _CHECKED_TEXTS))
    pairs = zip(
        first,
        vocabulary.encoded(tokenizer, first),
        vocabulary.encoded(made.tokenizer, first),
        strict=True,
    )
    fine: list[str] = []
    for text, before, after in pairs:
        if not kept.issuperset(before):
            continue
        if [new[old] for old in before] != after:
            raise CheckpointError(
                f"the smaller tokenizer cuts a text that it covers in another way: {text[:80]!r}. "
                "Its vocabulary cannot be trimmed."
            )
        fine.append(text)
    step = max(1, len(fine) // _CHECKED_VECTORS)
    return len(fine) / len(first), len(fine), fine[::step][:_CHECKED_VECTORS]


def _rows(old: Checkpoint, kept: Sequence[int]) -> dict[str, Any]:
    """The rows of the tokens that were kept, of every tensor that has one for each."""
    import torch

    wanted, size = torch.tensor(kept), old.config["vocab_size"]
    cut = {
        name: tensor[wanted]
        for name, tensor in old.tensors.items()
        if tensor.ndim > 0 and tensor.shape[0] == size and _BY_TOKEN.search(name)
    }
    if not any(tensor.ndim == 2 for tensor in cut.values()):
        raise Unsupported(f"{old.source}: no table of {size:,} tokens among its weights.")
    return {**old.tensors, **cut}


def _files(encoder: Encoder, made: Cut) -> dict[str, str]:
    settings = json.loads(encoder.assets["tokenizer_config.json"])
    settings.pop("added_tokens_decoder", None)  # by id; tokenizer.json has the same
    return {"tokenizer.json": made.tokenizer, "tokenizer_config.json": dumped(settings)}


def _compare(before: Encoder, after: Encoder, texts: Sequence[str]) -> int:
    """How many texts have the same vector in both.

    Raises:
        CheckpointError: one has not.
    """
    from edgessl import checkpoint_session

    if not texts:
        return 0
    with checkpoint_session.opened(before) as old, checkpoint_session.opened(after) as new:
        plain = {"prompt": ""}
        one, other = (session.using(**plain).embed(list(texts)) for session in (old, new))
    if not np.array_equal(one, other):
        raise CheckpointError(
            f"the smaller model gives other vectors (off by {abs(one - other).max():.2g}): its "
            "vocabulary cannot be trimmed."
        )
    return len(texts)

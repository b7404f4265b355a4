"""Cut a tokenizer down to the tokens that a corpus uses: tokenizer.json in, tokenizer.json out.

A text that needs no other tokens is cut into the same pieces as before. WordPiece takes the longest
piece that it knows, Unigram the most probable path, BPE the first merge that applies: of each the
old choice is still there, and nothing new is. Other texts fall into smaller pieces, down to single
letters, which are always kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edgessl.errors import RecipeError, Unsupported

_BATCH = 1000  # texts
_BYTE = "<0x"  # how a piece begins that stands for a byte


@dataclass(frozen=True)
class Cut:
    """``tokenizer``: the text of the new tokenizer.json. ``kept``: old ids, by new id."""

    tokenizer: str
    kept: tuple[int, ...]

    @property
    def new(self) -> dict[int, int]:
        """Old id -> new id."""
        return {old: new for new, old in enumerate(self.kept)}


def encoded(tokenizer: str, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token ids of each text, with special tokens, neither padded nor cut.

    Args:
        tokenizer: the text of a tokenizer.json.
    """
    from tokenizers import Tokenizer

    opened = Tokenizer.from_str(tokenizer)
    opened.no_padding()
    opened.no_truncation()
    left = iter(texts)
    while batch := list(islice(left, _BATCH)):
        for encoding in opened.encode_batch(batch):
            yield encoding.ids


def cut(
    tokenizer: str, counts: Counter[int], size: int | None = None, always: Iterable[int] = ()
) -> Cut:
    """Keep the tokens that occur in *counts*, the most frequent first.

    Args:
        tokenizer: the text of a tokenizer.json: WordPiece, BPE, Unigram or WordLevel.
        size: tokens to keep at most; None: all that occur. Special tokens, single letters and
            the ids in *always* are kept in any case.

    Raises:
        RecipeError: *size* is less than what has to be kept.
        Unsupported: another kind of tokenizer.
    """
    data = json.loads(tokenizer)
    pieces = _Pieces.of(data["model"])
    kept = {token["id"] for token in data["added_tokens"]} | set(always)
    kept |= pieces.letters()
    for number in list(kept):
        kept |= pieces.passed_through(number)
    if size is not None and size < len(kept):
        raise RecipeError(
            f"a vocabulary of {size:,} tokens is too small: {len(kept):,} are special tokens and "
            "single letters, which are always kept."
        )
    for number, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        needed = {number} | pieces.passed_through(number)
        if size is None or len(kept | needed) <= size:
            kept |= needed
    order = tuple(sorted(kept))
    new = Cut("", order).new
    _renumber(data, pieces, new)
    return Cut(json.dumps(data, ensure_ascii=False), order)


def renumbered(settings: Any, new: Mapping[int, int], size: int) -> Any:
    """Settings whose keys like ``pad_token_id`` hold ids of a vocabulary of *size*, with the new
    ones. An id that is gone becomes None; one that never was a token's stays as it is."""

    def number(old: Any) -> Any:
        known = isinstance(old, int) and 0 <= old < size
        return new.get(old) if known else old

    if isinstance(settings, list):
        return [renumbered(item, new, size) for item in settings]
    if not isinstance(settings, dict):
        return settings
    found = {}
    for key, value in settings.items():
        if not key.endswith(("_token_id", "_token_ids")):
            found[key] = renumbered(value, new, size)
        else:
            found[key] = (
                [number(old) for old in value] if isinstance(value, list) else number(value)
            )
    return found


@dataclass(frozen=True)
class _Pieces:
    """A tokenizer's model: ``parts``: of BPE, piece -> the pieces that it is merged from."""

    model: Mapping[str, Any]
    names: Mapping[int, str]
    ids: Mapping[str, int]
    parts: Mapping[str, set[str]]

    @staticmethod
    def of(model: Mapping[str, Any]) -> _Pieces:
        kind = model.get("type")
        if kind == "Unigram":
            names = {number: piece for number, (piece, _) in enumerate(model["vocab"])}
        elif kind in ("WordPiece", "BPE", "WordLevel"):
            names = {number: piece for piece, number in model["vocab"].items()}
        else:
            raise Unsupported(f"the vocabulary of a {kind} tokenizer cannot be cut.")
        parts: dict[str, set[str]] = {}
        for left, right in _merges(model):
            parts.setdefault(_merged(model, left, right), set()).update((left, right))
        return _Pieces(model, names, {piece: number for number, piece in names.items()}, parts)

    def letters(self) -> set[int]:
        """What any text can be made of, and what stands for what cannot."""
        kind, unknown = self.model["type"], str(self.model.get("unk_token"))
        kept = {self.ids[unknown]} if unknown in self.ids else set()
        if kind == "WordPiece":
            lead = self.model["continuing_subword_prefix"]
            kept |= {n for n, piece in self.names.items() if len(piece.removeprefix(lead)) == 1}
        elif kind == "BPE":
            kept |= {n for n, piece in self.names.items() if piece not in self.parts}
        elif kind == "Unigram":
            kept |= {n for n, p in self.names.items() if len(p) == 1 or p.startswith(_BYTE)}
            # What an unknown letter costs is counted from the least probable piece.
            scores = [score for _, score in self.model["vocab"]]
            kept |= {scores.index(min(scores)), self.model["unk_id"] or 0}
        return kept

    def passed_through(self, number: int) -> set[int]:
        """The pieces that BPE merges on its way to this one."""
        found: set[str] = set()
        left = [self.names.get(number, "")]
        while left:
            parts = self.parts.get(left.pop(), set()) - found
            found |= parts
            left += parts
        return {self.ids[piece] for piece in found if piece in self.ids}


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", ()))
    return [(left, right) for left, right in pairs]


def _merged(model: Mapping[str, Any], left: str, right: str) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _renumber(data: dict[str, Any], pieces: _Pieces, new: Mapping[int, int]) -> None:
    """In place: the whole of tokenizer.json."""
    model = data["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in new]
        if model["unk_id"] is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        in_order = sorted((new[old], piece) for old, piece in pieces.names.items() if old in new)
        model["vocab"] = {piece: number for number, piece in in_order}
    if "merges" in model:
        known = {piece for piece, old in pieces.ids.items() if old in new}
        model["merges"] = [
            [left, right]
            for left, right in _merges(model)
            if {left, right, _merged(model, left, right)} <= known
        ]
    for token in data["added_tokens"]:
        token["id"] = new[token["id"]]
    if data.get("padding"):
        data["padding"]["pad_id"] = new[data["padding"]["pad_id"]]
    _renumber_template(data.get("post_processor"), new)


def _renumber_template(processor: Any, new: Mapping[int, int]) -> None:
    """The ids that a post-processor adds: a template's, RoBERTa's, BERT's, or a sequence of such."""
    if not processor:
        return
    for inner in processor.get("processors", ()):
        _renumber_template(inner, new)
    for name in ("cls", "sep"):
        if isinstance(processor.get(name), list):
            piece, old = processor[name]
            processor[name] = [piece, new[old]]
    for special in (processor.get("special_tokens") or {}).values():
        special["ids"] = [new[old] for old in special["ids"]]

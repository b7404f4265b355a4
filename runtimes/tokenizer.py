"""A bundle's tokenizer: its files read as transformers reads them, and many texts through it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer, normalizers

from edgessl import assets
from edgessl.errors import BundleError, ItemError, Refused, refuse

TokenIds = npt.NDArray[np.int64]

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_TOGETHER = 200_000  # characters that are tokenized at once: each takes some 200 bytes
# Texts up to which the library's thread pool costs more than it brings, and their characters.
_FEW = 4
_SHORT = 4_000


def around(directory: Path, tokenizer: Tokenizer) -> tuple[TokenIds, TokenIds]:
    """The ids of the special tokens before and after a text."""
    sample, bare = next(_tokenizable(tokenizer), ("", []))
    encoding = tokenizer.encode(sample)
    ids, special = encoding.ids, encoding.special_tokens_mask
    first = special.index(0) if 0 in special else len(ids)
    last = first + len(bare)
    added = tokenizer.num_special_tokens_to_add(False)
    if ids[first:last] != bare or len(ids) - len(bare) != added:
        raise assets.damaged(directory / TOKENIZER, "special tokens do not go around a text")
    return np.array(ids[:first], dtype=np.int64), np.array(ids[last:], dtype=np.int64)


def _tokenizable(tokenizer: Tokenizer) -> Iterator[tuple[str, list[int]]]:
    """Texts of which there are tokens, and these without the special ones."""
    for sample in _samples(tokenizer):
        try:
            ids = tokenizer.encode(sample, add_special_tokens=False).ids
        except Exception:  # its vocabulary has neither the sample nor an unknown token
            continue
        if ids:
            yield sample, ids


def _samples(tokenizer: Tokenizer) -> Iterator[str]:
    yield from ("a", "1", "\u4e00")
    yield from tokenizer.get_vocab(with_added_tokens=False)


def read(path: Path) -> Tokenizer:
    if not path.is_file():
        raise assets.missing(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as err:  # tokenizers raises a bare Exception
        raise assets.damaged(path, str(err)) from err


def side(
    directory: Path, config: dict[str, Any], key: str, stored: dict[str, Any]
) -> Literal["left", "right"]:
    """The config's word, else the one stored in tokenizer.json, else right: transformers' order."""
    side = str(config.get(key) or stored.get("direction") or "right")
    if side == "left":
        return "left"
    if side == "right":
        return "right"
    raise assets.damaged(
        directory / TOKENIZER_CONFIG, f"{key} is {side!r}, expected 'left' or 'right'"
    )


def pad_id(
    directory: Path, config: dict[str, Any], tokenizer: Tokenizer, stored: dict[str, Any]
) -> int:
    token = config.get("pad_token") or stored.get("pad_token")
    if isinstance(token, dict):  # an AddedToken with its options
        token = token.get("content")
    if not isinstance(token, str):
        raise BundleError(
            f"{directory / TOKENIZER_CONFIG} names no pad_token, so that texts of different "
            "lengths make no batch. Set pad_token on the tokenizer, then export again."
        )
    found = tokenizer.token_to_id(token)
    if found is None:
        raise assets.damaged(
            directory / TOKENIZER_CONFIG, f"pad_token {token!r} is not in {TOKENIZER}"
        )
    return int(found)


def lowercase_first(tokenizer: Tokenizer) -> None:
    """Lowercase before the other normalizers, unless one of them is already ``Lowercase``.

    What sentence-transformers 5 does for ``do_lower_case``. Its normalizer maps each character
    alone, unlike str.lower, and is not applied to special tokens.
    """
    present = tokenizer.normalizer
    if present is None:
        tokenizer.normalizer = normalizers.Lowercase()
        return
    state = json.loads(present.__getstate__())
    steps = state["normalizers"] if state["type"] == "Sequence" else [state]
    if not any(step["type"] == "Lowercase" for step in steps):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), present])


def fast(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """The tokens of each text, without their offsets."""
    if len(texts) <= _FEW and sum(map(len, texts)) < _SHORT:
        return [tokenizer.encode_batch_fast([text])[0] for text in texts]
    return list(tokenizer.encode_batch_fast(texts))


def head(text: str, characters: int) -> str:
    """The beginning of a long text, so many characters or somewhat less, up to where a word ends;
    the text itself where that saves little or no word ends there."""
    if len(text) <= 2 * characters:
        return text
    space = characters
    while (space := text.rfind(" ", characters // 2, space)) > 0:
        if not text[space - 1].isspace():
            return text[:space]
    return text


def groups(indices: Sequence[int], texts: list[str]) -> Iterator[tuple[Sequence[int], list[str]]]:
    """Stretches of texts that are together of bounded length."""
    start = characters = 0
    for stop, text in enumerate(texts):
        characters += len(text)
        if characters > _TOGETHER and stop > start:
            yield indices[start:stop], texts[start:stop]
            start, characters = stop, len(text)
    yield indices[start:], texts[start:]


def tokenized(
    encode: Callable[[list[str]], list[Encoding]],
    indices: Sequence[int],
    texts: list[str],
    refused: Refused | None,
) -> list[Encoding | None]:
    """The tokens of each text; None for one that the tokenizer itself refuses."""
    try:
        return list(encode(texts))
    except Exception as err:  # tokenizers raises a bare Exception
        if len(texts) == 1:
            error = ItemError(f"text {indices[0]}: the tokenizer refuses it: {err}", indices[0])
            refuse(error, refused, err)
            return [None]
    return [tokenized(encode, [index], [text], refused)[0] for index, text in zip(indices, texts)]


def wrong(text: object, index: int) -> ItemError | None:
    """Why *text* cannot be taken."""
    if not isinstance(text, str):
        hint = " Decode it: text.decode('utf-8')." if isinstance(text, bytes) else ""
        return ItemError(f"text {index} is {kind(text)}, not str.{hint}", index)
    if not valid(text):
        return ItemError(
            f"text {index} is not valid Unicode (half of a surrogate pair). "
            "Repair it: text.encode('utf-8', 'replace').decode('utf-8').",
            index,
        )
    return None


def valid(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def kind(value: object) -> str:
    return "None" if value is None else type(value).__name__

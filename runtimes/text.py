"""Strings to ``input_ids``, exactly as transformers' tokenizers do it, without transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers

from edgessl import assets
from edgessl.errors import BundleError, RecipeError
from edgessl.spec import TextSpec

TokenIds = npt.NDArray[np.int64]

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class TextPreprocessor:
    """A bundle's tokenizer. Nothing changes after ``open``: threads may share it."""

    tokenizer: Tokenizer
    prompt: str
    pad_id: int
    pad_left: bool
    pad_to: int

    @staticmethod
    def open(directory: Path, spec: TextSpec) -> TextPreprocessor:
        """Read ``tokenizer.json`` and ``tokenizer_config.json`` from *directory*.

        Truncation and padding follow *spec* and the config, whatever tokenizer.json carries.

        Raises:
            BundleError: a file is missing or damaged, names no padding token, or leaves no room
                for the special tokens within ``spec.max_length``.
        """
        config = assets.read_object(directory / TOKENIZER_CONFIG)
        tokenizer = _read_tokenizer(directory / TOKENIZER)
        stored_truncation = tokenizer.truncation or {}
        stored_padding = tokenizer.padding or {}
        special = tokenizer.num_special_tokens_to_add(False)
        if spec.max_length < max(special, 1):
            raise BundleError(
                f"max_length {spec.max_length} in the manifest of {str(directory)!r} is too small: "
                f"the tokenizer adds {special} special tokens. Export again with a larger one."
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(
            spec.max_length,
            direction=_side(directory, config, "truncation_side", stored_truncation),
        )
        tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
        if spec.lowercase:
            _lowercase_first(tokenizer)
        return TextPreprocessor(
            tokenizer=tokenizer,
            prompt=spec.prompt,
            pad_id=_pad_id(directory, config, tokenizer, stored_padding),
            pad_left=_side(directory, config, "padding_side", stored_padding) == "left",
            pad_to=spec.pad_to or 0,
        )

    def __call__(self, texts: Sequence[str]) -> dict[str, TokenIds]:
        """``batch(encode(texts))``."""
        return self.batch(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """The token ids of each text: int64, ``(length,)``, cut at ``max_length``, not padded.

        As sentence-transformers 5 does: first the prompt, then lowercase inside the tokenizer,
        which leaves special tokens in the text as they are.
        A tokenizer without special tokens gives an empty array for an empty text.

        Raises:
            RecipeError: *texts* is no list, or an item is not a string or not valid Unicode;
                names its index.
        """
        prepared = self._prepare(texts)
        try:
            encodings = self.tokenizer.encode_batch(prepared)
        except Exception as err:  # tokenizers raises TypeError or a bare Exception
            raise _refused(prepared, err) from err
        return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]

    def batch(self, encodings: Sequence[TokenIds]) -> dict[str, TokenIds]:
        """``input_ids`` and ``attention_mask``, int64, ``(batch, longest)``, padded.

        Padding goes to the side that the tokenizer says, the right unless it says left. An empty
        list gives arrays of shape ``(0, 0)``.
        """
        lengths = self.lengths(encodings)
        longest = max(int(lengths.max(initial=0)), self.pad_to if len(encodings) else 0)
        columns = np.arange(longest)[::-1] if self.pad_left else np.arange(longest)
        real = columns < lengths[:, None]
        input_ids = np.full(real.shape, self.pad_id, dtype=np.int64)
        if len(encodings):
            input_ids[real] = np.concatenate(encodings)
        return {"input_ids": input_ids, "attention_mask": real.astype(np.int64)}

    @staticmethod
    def lengths(encodings: Sequence[TokenIds]) -> TokenIds:
        """Tokens in each encoding, special ones included: int64, ``(batch,)``."""
        return np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))

    def _prepare(self, texts: Sequence[str]) -> list[str]:
        if isinstance(texts, (str, bytes)) or not hasattr(texts, "__iter__"):
            raise RecipeError(f"expected a list of texts, got {_kind(texts)}. Pass a list: [text].")
        prepared = []
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                hint = " Decode it: text.decode('utf-8')." if isinstance(text, bytes) else ""
                raise RecipeError(f"text {index} is {_kind(text)}, not str.{hint}")
            prepared.append(self.prompt + text)
        return prepared


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _refused(texts: list[str], err: Exception) -> RecipeError:
    """The error for the first text that is not Unicode, else for what the tokenizer said."""
    for index, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as cause:
            return RecipeError(
                f"text {index} is not valid Unicode ({cause.reason}). "
                "Repair it: text.encode('utf-8', 'replace').decode('utf-8')."
            )
    return RecipeError(f"the tokenizer refused the texts: {err}")


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise assets.missing(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as err:  # tokenizers raises a bare Exception
        raise assets.damaged(path, str(err)) from err


def _side(
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


def _pad_id(
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


def _lowercase_first(tokenizer: Tokenizer) -> None:
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

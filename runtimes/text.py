"""Strings to ``input_ids``, exactly as transformers' tokenizers do it, without transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from edgessl import assets
from edgessl.errors import (
    BundleError,
    ItemError,
    RecipeError,
    Refused,
    Unsupported,
    nearest,
    refuse,
)
from edgessl.runtimes import tokenizer as files
from edgessl.runtimes.chunks import Chunks, TokenIds, split
from edgessl.runtimes.options import InputOptions
from edgessl.spec import TextSpec

# A text that is much longer than will be kept is tokenized only so far: the characters looked at
# for each token kept, and the tokens beyond, by which what was left off can change nothing kept.
_CHARACTERS = 8
_BEYOND = 64


@dataclass(frozen=True)
class TextPreprocessor:
    """A bundle's tokenizer. Nothing changes after ``open``: threads may share it.

    ``before``, ``after``: the ids of the special tokens around every text.
    """

    tokenizer: Tokenizer
    spec: TextSpec
    pad_id: int
    pad_left: bool
    cut_left: bool
    before: TokenIds
    after: TokenIds
    prompt: str
    max_length: int
    long: str = "cut"

    @staticmethod
    def open(directory: Path, spec: TextSpec) -> TextPreprocessor:
        """Read ``tokenizer.json`` and ``tokenizer_config.json`` from *directory*.

        Truncation and padding follow *spec* and the config, whatever tokenizer.json carries.

        Raises:
            BundleError: a file is missing or damaged, names no padding token, or leaves no room
                for the special tokens within ``spec.max_length``.
        """
        config = assets.read_object(directory / files.TOKENIZER_CONFIG)
        tokenizer = files.read(directory / files.TOKENIZER)
        truncation, padding = tokenizer.truncation or {}, tokenizer.padding or {}
        special = tokenizer.num_special_tokens_to_add(False)
        if spec.max_length < max(special, 1):
            raise BundleError(
                f"max_length {spec.max_length} in the manifest of {str(directory)!r} is too small: "
                f"the tokenizer adds {special} special tokens. Export again with a larger one."
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()  # so that calls may differ; the library's own is slower, too
        tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
        if spec.lowercase:
            files.lowercase_first(tokenizer)
        before, after = files.around(directory, tokenizer)
        return TextPreprocessor(
            tokenizer=tokenizer,
            spec=spec,
            pad_id=files.pad_id(directory, config, tokenizer, padding),
            pad_left=files.side(directory, config, "padding_side", padding) == "left",
            cut_left=files.side(directory, config, "truncation_side", truncation) == "left",
            before=before,
            after=after,
            prompt=spec.prompt,
            max_length=spec.max_length,
        )

    def using(self, options: InputOptions) -> TextPreprocessor:
        """The same tokenizer with another prompt, ``max_length`` or way with long texts.

        Raises:
            RecipeError: a prompt that the model does not name, a ``max_length`` beyond the
                bundle's, or one that leaves no room for a text.
            Unsupported: a prompt for a model that pools without it.
        """
        special, longest = len(self.before) + len(self.after), self.spec.max_length
        max_length = longest if options.max_length is None else options.max_length
        if not max(special, 1) <= max_length <= longest:
            raise RecipeError(
                f"max_length {max_length}: this bundle takes {max(special, 1)} to {longest} tokens "
                f"a text, {special} special ones included."
            )
        prompt = choose_prompt(self.spec, options.prompt, options.prompt_name)
        if options.long == "chunk":
            taken = special + len(self.tokenizer.encode(prompt, add_special_tokens=False))
            if taken >= max_length:
                raise RecipeError(
                    f"max_length {max_length} leaves no room for a text: the special tokens and "
                    f"the prompt that go into every chunk are {taken}."
                )
        return replace(self, prompt=prompt, max_length=max_length, long=options.long)

    def __call__(self, texts: Sequence[str]) -> dict[str, TokenIds]:
        """``batch(encode(texts))``."""
        return self.batch(self.encode(texts))

    def encode(
        self,
        texts: Sequence[str],
        first: int = 0,
        refused: Refused | None = None,
        cut: Callable[[int], None] | None = None,
    ) -> list[TokenIds]:
        """The token ids of each text: int64, ``(length,)``, at most ``max_length``, not padded.

        As sentence-transformers 5 does: first the prompt, then lowercase inside the tokenizer,
        which leaves special tokens in the text as they are.
        A tokenizer without special tokens gives an empty array for an empty text.

        Args:
            first: index that messages give to the first text.
            refused: is told the index and the error of each text that cannot be encoded, which is
                then left out; None: the error is raised.
            cut: is told the index of each text that was cut at ``max_length``.

        Raises:
            ItemError: an item is not a string or not valid Unicode, or is too long where
                ``long`` is ``"refuse"``.
            RecipeError: *texts* is no list; or ``long`` is ``"chunk"``, which ``chunks`` does.
        """
        if self.long == "chunk":
            raise RecipeError(
                "long='chunk' makes several inputs of one text, here is one for each."
            )
        found = []
        for index, text, encoding in self._encodings(texts, first, refused):
            ids = np.array(encoding.ids, dtype=np.int64)
            if len(ids) > self.max_length:
                if self.long == "refuse":
                    refuse(self._too_long(text, index), refused)
                    continue
                ids = self._cut(ids)
                if cut is not None:
                    cut(index)
            found.append(ids)
        return found

    def chunks(
        self, texts: Sequence[str], first: int = 0, refused: Refused | None = None, overlap: int = 0
    ) -> Chunks:
        """Every text as one piece, or as several where it has more than ``max_length`` tokens.

        Special tokens and the prompt are in every piece; a piece ends where a word does. Owners
        count from 0, the texts that were refused left out.

        Args:
            first, refused: as ``encode`` takes them.
            overlap: tokens that a piece has in common with its predecessor, at most.

        Raises:
            ItemError: an item is not a string or not valid Unicode.
            RecipeError: *texts* is no list; no room for a text, or for so much overlap.
        """
        pieces: list[TokenIds] = []
        counts: list[int] = []
        weights: list[int] = []
        for _, _, encoding in self._encodings(texts, first, refused, whole=True):
            ids = np.array(encoding.ids, dtype=np.int64)
            if len(ids) <= self.max_length:
                parts, sizes = [ids], [1]
            else:
                parts, sizes = self._split(ids, encoding, overlap)
            pieces += parts
            weights += sizes
            counts.append(len(parts))
        owners = np.repeat(np.arange(len(counts)), counts)
        return Chunks(pieces, owners, np.asarray(weights, dtype=np.float64))

    def batch(self, encodings: Sequence[TokenIds]) -> dict[str, TokenIds]:
        """``input_ids`` and ``attention_mask``, int64, ``(batch, longest)``, padded.

        Padding goes to the side that the tokenizer says, the right unless it says left. An empty
        list gives arrays of shape ``(0, 0)``.
        """
        pad_to = self.spec.pad_to or 0
        if len(encodings) == 1 and len(encodings[0]) >= pad_to:
            input_ids = encodings[0][None, :]
            return {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids)}
        lengths = self.lengths(encodings)
        longest = max(int(lengths.max(initial=0)), pad_to if len(encodings) else 0)
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

    def _encodings(
        self, texts: Sequence[str], first: int, refused: Refused | None, whole: bool = False
    ) -> Iterator[tuple[int, str, Encoding]]:
        """(index, text with its prompt, its tokens) of every good text.

        ``whole``: to the last token, and with the words that tokens are of.
        """
        encode = self.tokenizer.encode_batch if whole else partial(files.fast, self.tokenizer)
        enough = _CHARACTERS * (self.max_length + _BEYOND)
        for indices, group in files.groups(*self._prepare(texts, first, refused)):
            some = group if whole or self.cut_left else [files.head(text, enough) for text in group]
            encodings = files.tokenized(encode, indices, some, refused)
            for index, text, part, encoding in zip(indices, group, some, encodings):
                if encoding is None:
                    continue
                if part is not text and len(encoding) < self.max_length + _BEYOND:
                    encoding = self.tokenizer.encode_batch_fast([text])[0]
                yield index, text, encoding

    def _prepare(
        self, texts: Sequence[str], first: int, refused: Refused | None
    ) -> tuple[Sequence[int], list[str]]:
        """The index of each good text, and the text after its prompt."""
        if isinstance(texts, (str, bytes)) or not hasattr(texts, "__iter__"):
            raise RecipeError(
                f"expected a list of texts, got {files.kind(texts)}. Pass a list: [text]."
            )
        indices, prepared = [], []
        for index, text in enumerate(texts, first):
            error = files.wrong(text, index)
            if error is not None:
                refuse(error, refused)
                continue
            indices.append(index)
            prepared.append(self.prompt + text)
        return indices, prepared

    def _cut(self, ids: TokenIds) -> TokenIds:
        """The special tokens, and as much between them as ``max_length`` allows."""
        content = ids[len(self.before) : len(ids) - len(self.after)]
        room = self.max_length - len(self.before) - len(self.after)
        kept = content[len(content) - room :] if self.cut_left else content[:room]
        return np.concatenate([self.before, kept, self.after])

    def _split(
        self, ids: TokenIds, encoding: Encoding, overlap: int
    ) -> tuple[list[TokenIds], list[int]]:
        inner = slice(len(self.before), len(ids) - len(self.after))
        prompt = 0  # tokens that are of the prompt alone
        for _, end in encoding.offsets[inner] if self.prompt else ():
            if end > len(self.prompt):
                break
            prompt += 1
        text = slice(inner.start + prompt, inner.stop)
        return split(
            ids[text],
            ids[: text.start],
            self.after,
            self.max_length,
            encoding.word_ids[text],
            overlap,
        )

    def _too_long(self, text: str, index: int) -> ItemError:
        tokens = len(self.tokenizer.encode(text))
        return ItemError(
            f"text {index} has {tokens} tokens, {self.max_length} are taken (max_length). Shorten "
            "it, or choose long='cut' or long='chunk'.",
            index,
        )


def choose_prompt(spec: TextSpec, prompt: str | None = None, name: str | None = None) -> str:
    """What goes before every text: *prompt*, the model's own called *name*, or its default.

    Raises:
        RecipeError: the model has no prompt of that name, or *prompt* is no valid text.
        Unsupported: the model's pooling leaves prompts out, which the graph cannot.
    """
    if name is not None and name not in spec.prompts:
        raise RecipeError(
            f"this bundle has no prompt {name!r}.{nearest(str(name), spec.prompts)} "
            f"It has: {', '.join(map(repr, spec.prompts)) or 'none'}. Any text goes with prompt=."
        )
    chosen = spec.prompt
    if name is not None:
        chosen = spec.prompts[name]
    elif prompt is not None:
        chosen = prompt
    if not isinstance(chosen, str) or not files.valid(chosen):
        raise RecipeError(f"prompt is {chosen!r}, expected a string of valid Unicode.")
    if chosen and not spec.include_prompt:
        raise Unsupported("this model pools without its prompt, which edgessl cannot yet.")
    return chosen

"""Small tokenizers of every kind, texts that are hard on them, and transformers beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from edgessl.runtimes.text import TextPreprocessor
from edgessl.spec import TextSpec

Pair = tuple[Any, TextPreprocessor]
KINDS = ("minilm", "saved_minilm", "bpe", "unigram", "left")
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

HARD_TEXTS = [
    "",
    " ",
    "\n\t \u3000\u00a0\u200b",
    "Plain English, with punctuation... and 3.14!",
    "naïve café — “quotes” ½ ﬁ Ǆ",
    "e\u0301 n\u0303 Z\u0351\u036b\u0343 a" + "\u0301" * 40,
    "Ελληνικά ΣΊΣΥΦΟΣ, Русский текст, İstanbul ıI ß ẞ",
    "中文字符测试。日本語のテキスト、カタカナ ｱｲｳ 한국어 ㅎㅏㄴ",
    "العربية مَعَ تَشْكِيل עברית \u202eright to left\u202c",
    "हिन्दी বাংলা தமிழ் ไทย ພາສາລາວ አማርኛ ქართული",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ \ufe0f 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
    "\x00 \x01\x02 a\x07b \x1b[31m \x7f \x85 \ufffd \ufeff \uffff \U0010ffff",
    "[CLS] [SEP] [MASK] [PAD] [UNK] x[SEP]y [sep]",
    "<s> </s> <mask> <pad> <unk> x </s>y <S> a <mask>",
    "a\r\nb\r\nc\u2028d\u2029e",
    "x" * 500,
    "word " * 700,
    "ab " * 3 + "🙂" * 300,
    "https://example.org/a?b=c&d=e#f user@example.org C:\\path\\file",
]


def _template(tokenizer: Tokenizer) -> Any:
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    return processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)


def _bpe(texts: list[str]) -> Tokenizer:
    """As RoBERTa: bytes, a mask token that takes the space before it, <s> ... </s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = _template(tokenizer)
    return tokenizer


def _unigram(texts: list[str]) -> Tokenizer:
    """As XLM-R: SentencePiece's Unigram with its visible spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("  ", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = _template(tokenizer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path, **options: Any) -> None:
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, **SPECIAL, **options).save_pretrained(directory)


def save_all(root: Path, minilm: Path, sentences: list[str]) -> Path:
    """A directory for each of KINDS below *root*."""
    AutoTokenizer.from_pretrained(minilm).save_pretrained(root / "saved_minilm")
    for name, tokenizer, options in (
        ("bpe", _bpe(sentences[:300]), {"mask_token": AddedToken("<mask>", lstrip=True)}),
        ("unigram", _unigram(sentences[:300]), {}),
        ("left", _bpe(sentences[:300]), {"padding_side": "left", "truncation_side": "left"}),
    ):
        save_tokenizer(tokenizer, root / name, **options)
    (root / "minilm").symlink_to(minilm)
    return root


def pair(directory: Path, **spec: Any) -> Pair:
    """transformers' tokenizer and ours; 40 tokens at most unless *spec* says otherwise."""
    ours = TextPreprocessor.open(directory, TextSpec(**{"max_length": 40, **spec}))
    return AutoTokenizer.from_pretrained(directory), ours


def assert_same(
    reference: Any, ours: TextPreprocessor, texts: list[str], max_length: int = 40
) -> None:
    expected = reference(
        texts, padding=True, truncation=True, max_length=max_length, return_tensors="np"
    )
    actual = ours(texts)
    assert list(actual) == ["input_ids", "attention_mask"]
    for name, array in actual.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **changes}), encoding="utf-8")

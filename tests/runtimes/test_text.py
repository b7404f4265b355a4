"""TextPreprocessor against transformers' own tokenizers: the same ids and masks, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from edgessl.errors import BundleError, RecipeError
from edgessl.runtimes.text import TextPreprocessor
from edgessl.spec import TextSpec

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


def _save(tokenizer: Tokenizer, directory: Path, **options: Any) -> None:
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, **SPECIAL, **options).save_pretrained(directory)


@pytest.fixture(scope="module")
def tokenizers_root(
    tmp_path_factory: pytest.TempPathFactory, minilm: Path, sentences: list[str]
) -> Path:
    """A folder with one directory for each of KINDS but ``minilm`` itself."""
    root = tmp_path_factory.mktemp("tokenizers")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(root / "saved_minilm")
    for name, tokenizer, options in (
        ("bpe", _bpe(sentences[:300]), {"mask_token": AddedToken("<mask>", lstrip=True)}),
        ("unigram", _unigram(sentences[:300]), {}),
        ("left", _bpe(sentences[:300]), {"padding_side": "left", "truncation_side": "left"}),
    ):
        _save(tokenizer, root / name, **options)
    (root / "minilm").symlink_to(minilm)
    return root


Pair = tuple[Any, TextPreprocessor]


@pytest.fixture(scope="module")
def pairs(tokenizers_root: Path) -> dict[str, Pair]:
    """transformers' tokenizer and ours, of each kind; 40 tokens at most."""
    return {
        kind: (
            AutoTokenizer.from_pretrained(tokenizers_root / kind),
            TextPreprocessor.open(tokenizers_root / kind, TextSpec(max_length=40)),
        )
        for kind in KINDS
    }


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


@pytest.mark.parametrize("kind", KINDS)
def test_real_sentences(pairs: dict[str, Pair], sentences: list[str], kind: str) -> None:
    assert_same(*pairs[kind], sentences)


@pytest.mark.parametrize("kind", KINDS)
def test_hard_texts_together_and_alone(pairs: dict[str, Pair], kind: str) -> None:
    assert_same(*pairs[kind], HARD_TEXTS)
    for text in HARD_TEXTS:
        assert_same(*pairs[kind], [text])


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_unicode(pairs: dict[str, Pair], kind: str, texts: list[str]) -> None:
    assert_same(*pairs[kind], texts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [2, 3, 7, 128, 512])
def test_max_length_counts_special_tokens(
    tokenizers_root: Path, pairs: dict[str, Pair], kind: str, max_length: int
) -> None:
    ours = TextPreprocessor.open(tokenizers_root / kind, TextSpec(max_length))
    assert_same(pairs[kind][0], ours, HARD_TEXTS, max_length)
    assert max(ours.lengths(ours.encode(HARD_TEXTS))) == max_length


def test_left_padding_and_truncation_are_on_the_left(pairs: dict[str, Pair]) -> None:
    reference, ours = pairs["left"]
    batch = ours(["a", "one two three four " * 30])
    assert batch["attention_mask"][0].tolist() == [0] * 37 + [1] * 3
    assert set(batch["input_ids"][0, :37].tolist()) == {reference.pad_token_id}
    assert reference.decode(batch["input_ids"][1]).endswith(" three four </s>")


def test_stored_truncation_and_padding_are_overridden(minilm: Path, sentences: list[str]) -> None:
    stored = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["truncation"]["max_length"] == 128
    assert stored["padding"]["strategy"] == {"Fixed": 128}
    ours = TextPreprocessor.open(minilm, TextSpec(max_length=300))
    assert ours(["short"])["input_ids"].shape == (1, 3)
    assert ours([" ".join(sentences[:100])])["input_ids"].shape == (1, 300)


def test_padding_is_taken_from_the_tokenizer_where_the_config_is_silent(
    tokenizers_root: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizers_root / "bpe" / "tokenizer.json"))
    tokenizer.enable_padding(direction="left", pad_id=1, pad_token="<pad>")
    tokenizer.enable_truncation(9, direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert_same(reference, TextPreprocessor.open(tmp_path, TextSpec(40)), HARD_TEXTS)


def test_split_special_tokens(tokenizers_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizers_root / "bpe", tmp_path, dirs_exist_ok=True)
    edit_config(tmp_path, split_special_tokens=True)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    ours = TextPreprocessor.open(tmp_path, TextSpec(40))
    assert_same(reference, ours, HARD_TEXTS)
    plain = TextPreprocessor.open(tokenizers_root / "bpe", TextSpec(40))
    assert len(ours.encode(["<mask>"])[0]) > len(plain.encode(["<mask>"])[0])


def test_pad_token_may_be_an_object(tokenizers_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizers_root / "bpe", tmp_path, dirs_exist_ok=True)
    edit_config(tmp_path, pad_token={"__type": "AddedToken", "content": "<pad>", "special": True})
    assert TextPreprocessor.open(tmp_path, TextSpec(40)).pad_id == 1


PROMPT = "Query:  "


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_comes_first(tokenizers_root: Path, pairs: dict[str, Pair], kind: str) -> None:
    texts = ["  padded  ", "", " \n", "x "]
    with_prompt = TextPreprocessor.open(tokenizers_root / kind, TextSpec(40, prompt=PROMPT))
    expected = pairs[kind][1]([PROMPT + text for text in texts])
    np.testing.assert_array_equal(with_prompt(texts)["input_ids"], expected["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase_as_sentence_transformers_sets_it(tokenizers_root: Path, kind: str) -> None:
    reference = AutoTokenizer.from_pretrained(tokenizers_root / kind)
    backend = reference.backend_tokenizer
    present = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])
    ours = TextPreprocessor.open(tokenizers_root / kind, TextSpec(40, lowercase=True))
    assert_same(reference, ours, [*HARD_TEXTS, "SHOUTING <MASK> <mask> [SEP]"])


def test_lowercase_is_not_added_twice(tokenizers_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizers_root / "bpe", tmp_path, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("A", "B"), normalizers.Lowercase()]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = TextPreprocessor.open(tmp_path, TextSpec(40, lowercase=True))
    assert ours.encode(["A"])[0].tolist() == ours.encode(["b"])[0].tolist()


def test_empty_list(pairs: dict[str, Pair]) -> None:
    ours = pairs["bpe"][1]
    assert ours.encode([]) == []
    assert ours.lengths([]).shape == (0,)
    for array in ours([]).values():
        assert array.shape == (0, 0)
        assert array.dtype == np.int64


def test_encode_then_batch_in_any_order(pairs: dict[str, Pair], sentences: list[str]) -> None:
    reference, ours = pairs["saved_minilm"]
    encodings = ours.encode(sentences[:50])
    lengths = ours.lengths(encodings)
    assert lengths.tolist() == [len(ids) for ids in encodings]
    rows = np.argsort(lengths)[::-1][:7]
    batch = ours.batch([encodings[row] for row in rows])
    expected = reference(
        [sentences[row] for row in rows],
        padding=True,
        truncation=True,
        max_length=40,
        return_tensors="np",
    )
    np.testing.assert_array_equal(batch["input_ids"], expected["input_ids"], strict=True)
    np.testing.assert_array_equal(batch["attention_mask"].sum(axis=1), lengths[rows])


def test_no_special_tokens_and_no_text_is_no_token(tmp_path: Path, tokenizers_root: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizers_root / "bpe" / "tokenizer.json"))
    tokenizer.post_processor = processors.ByteLevel()
    _save(tokenizer, tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    ours = TextPreprocessor.open(tmp_path, TextSpec(40))
    assert_same(reference, ours, ["", "a b c"])
    assert ours.encode([""])[0].shape == (0,)
    assert ours([""])["input_ids"].shape == (1, 0)


def test_many_threads_share_one(pairs: dict[str, Pair], sentences: list[str]) -> None:
    ours = pairs["minilm"][1]
    groups = [sentences[start : start + 20] for start in range(0, 800, 20)]
    alone = [ours(group)["input_ids"] for group in groups]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda group: ours(group)["input_ids"], groups))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sequences_of_strings_are_taken(pairs: dict[str, Pair]) -> None:
    ours = pairs["bpe"][1]
    expected = ours(["one", "two"])["input_ids"]
    others: list[Any] = [("one", "two"), np.array(["one", "two"]), np.array(["one", "two"], object)]
    for texts in others:
        np.testing.assert_array_equal(ours(texts)["input_ids"], expected)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (b"bytes", "text 1 is bytes, not str. Decode it"),
        (None, "text 1 is None, not str"),
        (7, "text 1 is int"),
        (("a", "pair"), "text 1 is tuple"),
        (float("nan"), "text 1 is float"),
        ("half a \ud83d pair", "text 1 is not valid Unicode"),
    ],
)
def test_wrong_item_is_named(pairs: dict[str, Pair], item: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        pairs["minilm"][1](["fine", item, "fine"])


@pytest.mark.parametrize("texts", ["one text", b"one text", None, 7])
def test_a_text_alone_is_no_list(pairs: dict[str, Pair], texts: Any) -> None:
    with pytest.raises(RecipeError, match=r"Pass a list: \[text\]"):
        pairs["minilm"][1](texts)


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **changes}), encoding="utf-8")


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: (d / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    (lambda d: (d / "tokenizer_config.json").unlink(), r"tokenizer_config\.json is missing"),
    (lambda d: _halve(d / "tokenizer.json"), r"tokenizer\.json: damaged"),
    (lambda d: _halve(d / "tokenizer_config.json"), r"tokenizer_config\.json: damaged"),
    (lambda d: (d / "tokenizer.json").write_text("{}"), r"tokenizer\.json: damaged"),
    (lambda d: (d / "tokenizer_config.json").write_text("[]"), "a list, not an object"),
    (lambda d: (d / "tokenizer_config.json").write_bytes(b"\xff"), "damaged"),
    (lambda d: edit_config(d, pad_token=None), "names no pad_token"),
    (lambda d: edit_config(d, pad_token="<absent>"), "'<absent>' is not in tokenizer.json"),
    (lambda d: edit_config(d, padding_side="both"), "padding_side is 'both'"),
    (lambda d: edit_config(d, truncation_side=3), "truncation_side is '3'"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE)
def test_damaged_directory(
    tokenizers_root: Path, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    shutil.copytree(tokenizers_root / "bpe", tmp_path, dirs_exist_ok=True)
    TextPreprocessor.open(tmp_path, TextSpec(40))
    damage(tmp_path)
    with pytest.raises(BundleError, match=says):
        TextPreprocessor.open(tmp_path, TextSpec(40))


@pytest.mark.parametrize("max_length", [-1, 0, 1])
def test_max_length_without_room(minilm: Path, max_length: int) -> None:
    with pytest.raises(BundleError, match="adds 2 special tokens"):
        TextPreprocessor.open(minilm, TextSpec(max_length))

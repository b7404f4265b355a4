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
    Tokenizer,
    normalizers,
    processors,
)
from transformers import AutoTokenizer

from edgessl.errors import BundleError, ItemError, RecipeError
from edgessl.runtimes.text import TextPreprocessor
from edgessl.spec import TextSpec
from tests.text_models import HARD_TEXTS, KINDS, Pair, assert_same, edit_config, save_tokenizer


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
    save_tokenizer(tokenizer, tmp_path)
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
        (np.float32(1), "text 1 is float32"),
        (np.bytes_(b"bytes"), "text 1 is bytes_, not str. Decode it"),
        (["nested"], "text 1 is list"),
        ("half a \ud83d pair", "text 1 is not valid Unicode"),
    ],
)
def test_wrong_item_is_named(pairs: dict[str, Pair], item: Any, says: str) -> None:
    with pytest.raises(ItemError, match=says) as raised:
        pairs["minilm"][1](["fine", item, "fine"])
    assert raised.value.index == 1
    told: list[tuple[int, str]] = []
    ours = pairs["minilm"][1].encode(
        ["fine", item, "good"], 20, lambda index, error: told.append((index, str(error)))
    )
    assert [ids.tolist() for ids in ours] == [
        ids.tolist() for ids in pairs["minilm"][1].encode(["fine", "good"])
    ]
    assert [index for index, _ in told] == [21] and told[0][1].startswith("text 21 is ")


@pytest.mark.parametrize("texts", ["one text", b"one text", None, 7])
def test_a_text_alone_is_no_list(pairs: dict[str, Pair], texts: Any) -> None:
    with pytest.raises(RecipeError, match=r"Pass a list: \[text\]"):
        pairs["minilm"][1](texts)


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

"""Cut tokenizers: covered texts keep their pieces, all others can still be read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgessl.compress.vocabulary import Cut, cut, encoded, renumbered
from edgessl.errors import RecipeError, Unsupported
from tests.text_models import HARD_TEXTS, save_all

KINDS = ("minilm", "bpe", "unigram", "left")


@pytest.fixture(scope="module")
def tokenizers(
    tmp_path_factory: pytest.TempPathFactory, minilm: Path, sentences: list[str]
) -> dict[str, str]:
    root = save_all(tmp_path_factory.mktemp("tokenizers"), minilm, sentences)
    return {kind: (root / kind / "tokenizer.json").read_text("utf-8") for kind in KINDS}


def counted(tokenizer: str, texts: list[str]) -> Counter[int]:
    return Counter(number for ids in encoded(tokenizer, texts) for number in ids)


def pieces(tokenizer: str, text: str) -> list[str]:
    opened = Tokenizer.from_str(tokenizer)
    opened.no_truncation()
    opened.no_padding()
    found: list[str] = opened.encode(text).tokens
    return found


def assert_same(before: str, made: Cut, texts: list[str]) -> None:
    pairs = zip(encoded(before, texts), encoded(made.tokenizer, texts), strict=True)
    for text, (old, new) in zip(texts, pairs, strict=True):
        assert [made.kept[number] for number in new] == old, text


@pytest.mark.parametrize("kind", KINDS)
def test_covered_texts_keep_their_tokens(
    kind: str, tokenizers: dict[str, str], sentences: list[str]
) -> None:
    before, texts = tokenizers[kind], sentences[:12] + HARD_TEXTS[:6]
    made = cut(before, counted(before, texts))
    total = Tokenizer.from_str(before).get_vocab_size()
    opened = Tokenizer.from_str(made.tokenizer)
    assert opened.get_vocab_size() == len(made.kept) < total
    assert sorted(opened.get_vocab().values()) == list(range(len(made.kept)))
    assert_same(before, made, texts)
    for text in texts:  # the pieces themselves, by name
        assert pieces(made.tokenizer, text) == pieces(before, text)


@pytest.mark.parametrize("kind", KINDS)
def test_words_made_of_covered_texts_in_any_order(
    kind: str, tokenizers: dict[str, str], sentences: list[str]
) -> None:
    before = tokenizers[kind]
    words = sorted({word for text in sentences[:60] for word in text.split()})
    made = cut(before, counted(before, [" ".join(words), *words]))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.sampled_from(words), min_size=1, max_size=12))
    def same(chosen: list[str]) -> None:
        text = " ".join(chosen)
        (old,) = encoded(before, [text])
        if set(old) <= set(made.kept):
            assert_same(before, made, [text])

    same()


@pytest.mark.parametrize("kind", KINDS)
def test_other_texts_fall_into_letters_and_not_into_unknowns(
    kind: str, tokenizers: dict[str, str]
) -> None:
    before = tokenizers[kind]
    made = cut(before, counted(before, ["a short text"]))
    text = "entirely different words about photosynthesis"
    known, now = pieces(before, text), pieces(made.tokenizer, text)
    assert len(now) > len(known)
    assert [p for p in now if "unk" in p.lower()] == [p for p in known if "unk" in p.lower()]


def test_the_most_frequent_are_kept_and_bpe_keeps_the_way_to_them(
    tokenizers: dict[str, str], sentences: list[str]
) -> None:
    for kind in ("minilm", "bpe"):
        before = tokenizers[kind]
        counts = counted(before, sentences[:300])
        least = len(cut(before, Counter()).kept)
        made = cut(before, counts, size=least + 30)
        assert least < len(made.kept) <= least + 30
        kept = [counts[number] for number in made.kept if counts[number]]
        dropped = [count for number, count in counts.items() if number not in made.new]
        assert max(kept) >= max(dropped)
        assert made.new[counts.most_common(1)[0][0]] >= 0
        with pytest.raises(RecipeError, match="too small"):
            cut(before, counts, size=least - 1)


def test_special_tokens_and_what_is_named_stay(tokenizers: dict[str, str]) -> None:
    before = tokenizers["minilm"]
    made = cut(before, Counter(), always=range(5))
    assert made.kept[:5] == (0, 1, 2, 3, 4)
    text = "[CLS] a [MASK] b [SEP]"
    assert pieces(made.tokenizer, text) == pieces(before, text)
    data = json.loads(made.tokenizer)
    assert {t["content"]: made.kept[t["id"]] for t in data["added_tokens"]} == {
        t["content"]: t["id"] for t in json.loads(before)["added_tokens"]
    }


def test_other_kinds_are_refused() -> None:
    with pytest.raises(Unsupported, match="Odd tokenizer"):
        cut('{"model": {"type": "Odd"}, "added_tokens": []}', Counter())


def test_settings_are_renumbered() -> None:
    old = {
        "pad_token_id": 5,
        "eos_token_id": [5, 9],
        "sep_token_id": None,
        "mask_token_id": 128002,
        "nested": {"bos_token_id": 7},
        "hidden_size": 9,
    }
    assert renumbered(old, {5: 1, 7: 2}, 10) == {
        "pad_token_id": 1,
        "eos_token_id": [1, None],
        "sep_token_id": None,
        "mask_token_id": 128002,
        "nested": {"bos_token_id": 2},
        "hidden_size": 9,
    }

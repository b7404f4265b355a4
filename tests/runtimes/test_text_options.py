"""What a call may change about texts: prompts, ``max_length`` and what becomes of long ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from edgessl.errors import EdgesslError, ItemError, RecipeError, Unsupported
from edgessl.runtimes.options import InputOptions
from edgessl.runtimes.text import TextPreprocessor
from edgessl.runtimes.tokenizer import head
from edgessl.spec import EncoderSpec, TensorSpec, TextSpec
from tests.text_models import HARD_TEXTS, KINDS, Pair, assert_same

PROMPTS = {"query": "query: ", "passage": "passage: ", "nothing": ""}


class Counted:
    """A tokenizer that remembers how many characters each call brought."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.calls: list[int] = []

    def encode_batch_fast(self, texts: list[str]) -> Any:
        self.calls.append(sum(map(len, texts)))
        return self.tokenizer.encode_batch_fast(texts)


def counting(ours: TextPreprocessor) -> tuple[TextPreprocessor, Counted]:
    spy = Counted(ours.tokenizer)
    tokenizer: Any = spy
    return replace(ours, tokenizer=tokenizer), spy


def with_prompts(directory: Path, **spec: Any) -> TextPreprocessor:
    return TextPreprocessor.open(directory, TextSpec(40, prompts=PROMPTS, **spec))


def ids(preprocessor: TextPreprocessor, *texts: str) -> list[list[int]]:
    return [encoding.tolist() for encoding in preprocessor.encode(texts)]


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_go_before_the_text(
    tokenizers_root: Path, pairs: dict[str, Pair], kind: str
) -> None:
    ours = with_prompts(tokenizers_root / kind, prompt="passage: ")
    for options, prompt in (
        (InputOptions(), "passage: "),
        (InputOptions(prompt_name="query"), "query: "),
        (InputOptions(prompt_name="nothing"), ""),
        (InputOptions(prompt="Instruct: find\nQuery:"), "Instruct: find\nQuery:"),
        (InputOptions(prompt=""), ""),
    ):
        reference = pairs[kind][0]([prompt + t for t in HARD_TEXTS], truncation=True, max_length=40)
        assert ids(ours.using(options), *HARD_TEXTS) == reference["input_ids"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (InputOptions(prompt_name="qeury"), "no prompt 'qeury'. Did you mean 'query'"),
        (InputOptions(prompt_name="x"), "It has: 'query', 'passage', 'nothing'"),
        (InputOptions(prompt="\ud800"), "valid Unicode"),
        (InputOptions(prompt=b"query: "), "prompt is b'query: ', expected a string"),  # type: ignore[arg-type]
        (InputOptions(max_length=41), "max_length 41: this bundle takes 2 to 40 tokens"),
        (InputOptions(max_length=1), "max_length 1: .*2 special ones included"),
        (InputOptions(max_length=5, long="chunk", prompt="query: "), "leaves no room.*are 5"),
    ],
)
def test_options_that_make_no_sense(minilm: Path, options: InputOptions, says: str) -> None:
    shorter = InputOptions(max_length=5, long="chunk", prompt="query")
    ours = with_prompts(minilm).using(shorter)
    if "room" in says:
        options = replace(options, prompt="query: : ")
        says = "leaves no room for a text.*are 5"
    with pytest.raises(RecipeError, match=says):
        ours.using(options)


def test_no_named_prompts(minilm: Path) -> None:
    ours = TextPreprocessor.open(minilm, TextSpec(40))
    with pytest.raises(RecipeError, match="It has: none. Any text goes with prompt="):
        ours.using(InputOptions(prompt_name="query"))


def test_a_model_that_pools_without_its_prompt_gets_none(minilm: Path) -> None:
    ours = with_prompts(minilm, include_prompt=False)
    for options in (InputOptions(prompt_name="query"), InputOptions(prompt="query: ")):
        with pytest.raises(Unsupported, match="pools without its prompt"):
            ours.using(options)
    assert ids(ours.using(InputOptions(prompt_name="nothing")), "a") == ids(ours, "a")


def test_prompts_are_kept_in_the_manifest() -> None:
    text = TextSpec(40, prompt="passage: ", prompts=PROMPTS, include_prompt=False)
    axes = ("batch", "sequence")
    inputs = (TensorSpec("input_ids", "int64", axes),)
    spec = EncoderSpec("text", "bert", "mean", True, inputs, (), text)
    assert EncoderSpec.from_json(spec.to_json()) == spec
    older = spec.to_json()
    del older["preprocessing"]["prompts"], older["preprocessing"]["include_prompt"]
    assert EncoderSpec.from_json(older).preprocessing == TextSpec(40, prompt="passage: ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [2, 3, 17, 40])
def test_max_length_of_a_call(pairs: dict[str, Pair], kind: str, max_length: int) -> None:
    reference, ours = pairs[kind]
    assert_same(reference, ours.using(InputOptions(max_length=max_length)), HARD_TEXTS, max_length)
    assert_same(reference, ours, HARD_TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_is_told(pairs: dict[str, Pair], sentences: list[str], kind: str) -> None:
    reference, ours = pairs[kind]
    cut: list[int] = []
    ours.encode(sentences[:300], 1000, cut=cut.append)
    lengths = [len(tokens) for tokens in reference(sentences[:300])["input_ids"]]
    assert cut == [1000 + row for row, length in enumerate(lengths) if length > 40]
    assert 0 < len(cut) < 300


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_may_be_refused(pairs: dict[str, Pair], sentences: list[str], kind: str) -> None:
    reference, ours = pairs[kind]
    refusing = ours.using(InputOptions(long="refuse"))
    texts = [*sentences[:60], " ".join(sentences), "short"]
    lengths = [len(tokens) for tokens in reference(texts)["input_ids"]]
    told: list[tuple[int, EdgesslError]] = []
    found = refusing.encode(texts, 5, lambda *refusal: told.append(refusal))
    fitting = [text for text, length in zip(texts, lengths, strict=True) if length <= 40]
    assert [tokens.tolist() for tokens in found] == ids(ours, *fitting)
    for index, error in told:
        says = f"text {index} has {lengths[index - 5]} tokens, 40 are taken (max_length)."
        assert str(error).startswith(says) and isinstance(error, ItemError)
    assert [index - 5 for index, _ in told] == [i for i, n in enumerate(lengths) if n > 40]
    with pytest.raises(ItemError, match=f"^text {told[0][0] - 5} has "):
        refusing.encode(texts)


WORDS = st.sampled_from(
    [
        "the",
        "Camera",
        "naïve",
        "x" * 70,
        "[SEP]",
        "<mask>",
        "e\u0301",
        "中文",
        "🙂🙂",
        "3.14",
        "</s>",
    ]
)
GAPS = st.sampled_from(
    [" ", "  ", " " * 40, "\n", " \t ", ". ", "", "\u00a0", "\u3000", " <mask> "]
)


@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(st.tuples(WORDS, GAPS), min_size=1, max_size=30),
    times=st.integers(1, 400),
    max_length=st.integers(2, 40),
)
@settings(max_examples=50, deadline=None)
def test_what_a_long_text_leaves_off_changes_nothing(
    pairs: dict[str, Pair], kind: str, words: list[tuple[str, str]], times: int, max_length: int
) -> None:
    reference, ours = pairs[kind]
    text = "".join(word + gap for word, gap in words) * times
    assert_same(reference, ours.using(InputOptions(max_length=max_length)), [text], max_length)


@pytest.mark.parametrize("kind", ["minilm", "bpe", "unigram"])
@pytest.mark.parametrize(
    "text",
    [
        "one more word " * 70_000,
        "x" * 300_000,
        " " * 300_000 + "end",
        "中文字符" * 50_000,
        "a\n" * 99_999,
    ],
    ids=["words", "one word", "spaces", "no spaces", "lines"],
)
def test_a_megabyte(pairs: dict[str, Pair], kind: str, text: str) -> None:
    reference, ours = pairs[kind]
    assert_same(reference, ours, [text, "short"])


def test_a_megabyte_is_not_tokenized_to_its_end(minilm: Path, sentences: list[str]) -> None:
    ours, spy = counting(TextPreprocessor.open(minilm, TextSpec(256)))
    text = " ".join(sentences * 5)
    assert len(text) > 900_000
    assert len(ours.encode([text])[0]) == 256
    assert sum(spy.calls) < 5_000


def test_texts_are_tokenized_some_at_a_time(pairs: dict[str, Pair], sentences: list[str]) -> None:
    ours, spy = counting(pairs["minilm"][1])
    texts = sentences * 2
    assert len(ours.encode(texts)) == len(texts)
    assert sum(spy.calls) == sum(map(len, texts))
    assert len(spy.calls) > 1 and max(spy.calls) <= 200_000


def test_head_ends_with_a_word() -> None:
    text = "some words " * 100
    assert head(text, 50) == "some words some words some words some words some"
    for whole in (text[:100], text[:51], ""):
        assert head(whole, 50) is whole
    solid = "x" * 200
    assert head(solid, 50) is solid
    gaps = "ab" + " " * 200
    assert head(gaps, 50) is gaps


def test_invalid_unicode_is_found_far_behind_what_is_kept(pairs: dict[str, Pair]) -> None:
    ours = pairs["minilm"][1]
    text = "word " * 100_000
    with pytest.raises(ItemError, match="text 1 is not valid Unicode"):
        ours.encode([text, text + "\udc80"])


def test_a_text_that_the_tokenizer_itself_refuses(tmp_path: Path, tokenizers_root: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"good": 0, "<pad>": 1}, unk_token="<absent>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    shutil.copy(tokenizers_root / "bpe" / "tokenizer_config.json", tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = TextPreprocessor.open(tmp_path, TextSpec(8))
    told: list[int] = []
    found = ours.encode(["good"] * 9 + ["bad"] + ["good good"], 0, lambda i, e: told.append(i))
    assert [tokens.tolist() for tokens in found] == [[0]] * 9 + [[0, 0]]
    assert told == [9]
    with pytest.raises(ItemError, match="text 1: the tokenizer refuses it: .*UNK"):
        ours.encode(["good", "bad"])


def test_one_text_needs_no_padding(pairs: dict[str, Pair]) -> None:
    ours = pairs["minilm"][1]
    (tokens,) = ours.encode(["a few words"])
    np.testing.assert_array_equal(ours.batch([tokens])["input_ids"], tokens[None, :], strict=True)
    padded = replace(ours, spec=replace(ours.spec, pad_to=16)).batch([tokens])
    assert padded["input_ids"].shape == (1, 16)
    assert padded["attention_mask"].sum() == len(tokens)

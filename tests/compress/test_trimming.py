"""A real checkpoint with a smaller vocabulary: other libraries read it, and it says the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgessl import cli, compression, trimming
from edgessl.checkpoint_session import load, opened
from edgessl.errors import EdgesslError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "texts.txt"
    lines = [" ".join(text.split()) for text in sentences[:1500]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, minilm: Path, corpus: Path
) -> tuple[Path, trimming.Trimmed]:
    output = tmp_path_factory.mktemp("small") / "minilm"
    return output, trimming.trim(str(minilm), [str(corpus)], output)


def test_it_is_much_smaller_and_covers_its_corpus(small: tuple[Path, trimming.Trimmed]) -> None:
    output, facts = small
    assert facts.covered == 1.0 and facts.identical_texts == facts.texts
    assert facts.tokens_after < 0.35 * facts.tokens_before
    assert facts.bytes_after < 0.65 * facts.bytes_before
    written = sum((output / n).stat().st_size for n in ("model.safetensors", "tokenizer.json"))
    assert written == pytest.approx(facts.bytes_after, rel=0.001)
    notes = json.loads((output / compression.NOTES).read_text("utf-8"))[-1]
    assert notes["vocabulary"]["tokens_after"] == facts.tokens_after


def test_transformers_gives_the_same_vectors(
    small: tuple[Path, trimming.Trimmed], minilm: Path, corpus: Path
) -> None:
    """The original library, on texts of the corpus, from both directories."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = corpus.read_text("utf-8").splitlines()[5:500:25]
    found = []
    for directory in (minilm, small[0]):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = AutoModel.from_pretrained(directory).eval()
        inputs = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).last_hidden_state.numpy())
    assert np.array_equal(*found)


def test_a_text_that_is_not_covered_still_has_a_vector(
    small: tuple[Path, trimming.Trimmed], minilm: Path
) -> None:
    text = ["chloroplasts and mitochondria are organelles"]
    with opened(load(str(minilm))) as old, opened(load(str(small[0]))) as new:
        one, other = (session.embed(text)[0] for session in (old, new))
    assert 0.1 < float(one @ other) < 0.9999


def test_the_command(
    tmp_path: Path, minilm: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    base = ["compress", str(minilm), "-o", str(output), "-q"]
    assert cli.run([*base, "--vocab", str(corpus), "--vocab-size", "5000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens_after"] == 5000 and 0.5 < found["covered"] < 1
    assert cli.run([*base, "--vocab", str(corpus)]) == 2
    assert "exists" in capsys.readouterr().err or output.is_dir()
    assert cli.run(["compress", str(minilm), "-o", str(tmp_path / "b"), "-q"]) == 2
    assert "several, one after the other" in capsys.readouterr().err


def test_wrong_use(tmp_path: Path, minilm: Path, mae: Path, corpus: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n", encoding="utf-8")
    cases: list[tuple[Path, Path, int | None, str]] = [
        (mae, corpus, None, "is no text encoder"),
        (minilm, empty, None, "no text"),
        (minilm, corpus, 100, "too small"),
        (minilm, tmp_path / "nowhere.txt", None, "nowhere.txt"),
    ]
    for model, data, size, said in cases:
        output = tmp_path / "out"
        with pytest.raises(EdgesslError, match=said):
            trimming.trim(str(model), [str(data)], output, size=size)
        assert not output.exists()

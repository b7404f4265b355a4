"""Passes of a recipe: one on what the other has written, in their order, and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgessl
from edgessl import bundle, cli, passes, recipe
from edgessl.compression import NOTES
from edgessl.errors import RecipeError
from edgessl.passes import Pass
from edgessl.shortening import shorten
from edgessl.trimming import trim
from tests.builders import random_texts, save_text_model

Printed = pytest.CaptureFixture[str]
RECIPE = """
[encoder]
model = "model"
[layers]
keep = 2
data = "texts.txt"
[prune]
flops = "0.8x"
data = "texts.txt"
[vocabulary]
data = "texts.txt"
[target]
name = "onnx"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_text_model(tmp_path / "model", "bert", num_hidden_layers=3)
    (tmp_path / "texts.txt").write_text("\n".join(random_texts(60)) + "\n", encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def done(directory: Path) -> list[str]:
    """What was done to a checkpoint, in its order."""
    known = {"layers", "pruning", "vocabulary", "distillation"}
    entries = json.loads((directory / NOTES).read_text(encoding="utf-8"))
    return [name for entry in entries for name in entry if name in known]


def test_one_after_the_other(folder: Path, capsys: Printed) -> None:
    (folder / "recipe.toml").write_text(RECIPE.replace("0.8x", "0.9x"), encoding="utf-8")
    asked = ["compress", "--recipe", str(folder / "recipe.toml"), "-o", str(folder / "small")]
    assert cli.run(asked) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("pass ")] == [
        "pass        layers",
        "pass        prune",
        "pass        vocabulary",
    ]
    assert done(folder / "small") == ["layers", "pruning", "vocabulary"]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("model", "recipe.toml", "small", "texts.txt"),
    ]


def test_the_same_as_by_hand(folder: Path) -> None:
    data = [str(folder / "texts.txt")]
    steps = (Pass("layers", {"keep": 1, "data": data}), Pass("vocabulary", {"data": data}))
    whole = recipe.Recipe(model=str(folder / "model"), passes=steps)
    with passes.chained(whole, folder / "out") as (smaller, found):
        weights = (Path(smaller.model) / "model.safetensors").read_bytes()
    shorten(str(folder / "model"), data, folder / "a", keep=1)
    trim(str(folder / "a"), data, folder / "b")
    assert weights == (folder / "b" / "model.safetensors").read_bytes()
    assert [type(one).__name__ for one in found] == ["Shortened", "Trimmed"]


def test_a_stopped_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    real = passes.run

    def run(one: Pass, *args: Any, **kwargs: Any) -> Any:
        names.append(one.name)
        if names == ["layers", "prune"]:
            raise KeyboardInterrupt
        return real(one, *args, **kwargs)

    monkeypatch.setattr(passes, "run", run)
    whole = recipe.read(folder / "recipe.toml")
    with pytest.raises(KeyboardInterrupt), passes.chained(whole, folder / "out"):
        pass
    with passes.chained(whole, folder / "out") as (_, found):
        pass
    assert names == ["layers", "prune", "prune", "vocabulary"]
    assert found[0] is None and None not in found[1:]
    assert not list(folder.glob(".*"))


def test_other_data_is_not_taken_for_the_same(folder: Path) -> None:
    whole = recipe.Recipe(
        model=str(folder / "model"),
        passes=(Pass("layers", {"keep": 1, "data": (str(folder / "texts.txt"),)}),),
    )
    with pytest.raises(KeyboardInterrupt), passes.chained(whole, folder / "out"):
        raise KeyboardInterrupt  # of what comes after the passes
    (folder / "texts.txt").write_text("\n".join(random_texts(61)) + "\n", encoding="utf-8")
    with passes.chained(whole, folder / "out") as (_, found):
        assert None not in found


def test_a_bundle_of_a_recipe(folder: Path, capsys: Printed) -> None:
    asked = ["export", "--recipe", str(folder / "recipe.toml"), "-o", str(folder / "bundle"), "-q"]
    assert cli.run(asked) == 0
    manifest = bundle.read(folder / "bundle")
    assert [one["pass"] for one in manifest.recipe["passes"]] == ["layers", "prune", "vocabulary"]
    assert manifest.recipe["model"] == manifest.provenance.source == "model"
    assert str(folder) not in manifest.dumps()
    assert cli.run(["inspect", str(folder / "bundle")]) == 0
    assert "layers, pruning, vocabulary of model" in capsys.readouterr().out
    with edgessl.load(folder / "bundle") as session:
        (vector,) = session.embed(["some text"])
    assert np.isfinite(vector).all()
    assert not list(folder.glob(".*"))


def test_the_whole_encoder_teaches(folder: Path, capsys: Printed) -> None:
    """Where a recipe names no teacher; and it is no matter where that recipe is run."""
    text = """
[encoder]
model = "model"
[layers]
keep = 1
data = "texts.txt"
[distill]
epochs = 1
objectives = ["embedding", "hidden=0.5"]
data = "texts.txt"
"""
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    asked = ["compress", "--recipe", str(folder / "recipe.toml"), "-o", str(folder / "small")]
    assert cli.run([*asked, "--json"]) == 0
    shortened, taught = json.loads(capsys.readouterr().out)["passes"]
    assert taught["teacher"] == "model" and taught["objectives"] == {"embedding": 1, "hidden": 0.5}
    assert taught["after"]["cosine_mean"] > taught["before"]["cosine_mean"]
    assert taught["before"]["cosine_mean"] == pytest.approx(shortened["cosine_mean"], abs=0.1)
    assert done(folder / "small") == ["layers", "distillation"]
    assert not list(folder.glob(".*"))


def test_a_damaged_note(folder: Path, capsys: Printed) -> None:
    (folder / "model" / NOTES).write_text("[3", encoding="utf-8")
    assert cli.run(["inspect", str(folder / "model")]) == 2
    assert f"{NOTES} cannot be read" in capsys.readouterr().err


def test_what_goes_wrong_leaves_nothing(folder: Path, capsys: Printed) -> None:
    base = ["compress", str(folder / "model"), "-o", str(folder / "out")]
    for flags, says in (
        (["--layers", "9", "--data", str(folder / "texts.txt")], "keep 1 to 2"),
        (["--flops", "0.001x", "--data", str(folder / "texts.txt")], "cannot be reached"),
        (["--width", "8"], "--width needs --data"),
        (["--semi-structured", "spargpt", "--data", str(folder / "texts.txt")], "sparsegpt"),
        (["--recipe", str(folder / "recipe.toml"), "--layers", "2"], "--layers and --recipe"),
    ):
        assert cli.run([*base, *flags]) == 2
        error = capsys.readouterr().err
        assert says in error.splitlines()[-1]
    assert not list(folder.glob(".*")) and not (folder / "out").exists()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("[prune]\nflops = 0.5\ndata = 'x'", "flops in [prune] is 0.5; it should be a string"),
        ("[prune]\nflops = '2x'\ndata = 'x'", "[prune]: flops 2x: not a share"),
        ("[prune]\nlatency = '0.5x'\ndata = 'x'", "latency needs target"),
        ("[prune]\nflops = '0.5x'\nshape = '1x8'\ndata = 'x'", "shape is for target"),
        ("[prune]\nflops = '0.5x'\nparams = '0.5x'\ndata = 'x'", "give one of latency, flops"),
        ("[layers]\ndata = 'x'", "give one of keep"),
        ("[layers]\nkeep = 3", "keep needs data"),
        ("[layers]\nkep = 3\ndata = 'x'", "Did you mean 'keep'"),
        ("[width]\nkeep = 3\ndata = [3]", "a string, or a list of them"),
        ("[prun]\nflops = '0.5x'", "unknown section [prun]. Did you mean 'prune'"),
    ],
)
def test_wrong_sections(tmp_path: Path, section: str, says: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(section, encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        recipe.read(path)
    assert says in str(raised.value) and "\n" not in str(raised.value)

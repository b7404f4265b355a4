"""Recipes: every key arrives where it belongs, and what is refused is named."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import edgessl
from edgessl import recipe
from edgessl.errors import RecipeError
from edgessl.passes import Pass
from edgessl.recipe import Recipe

FULL = """
[encoder]
model = "sentence-transformers/all-MiniLM-L6-v2"
revision = "c9745ed1"
pooling = "cls"
normalize = false
features = true
max_length = 128
image_size = [64, 48]
prompt = "query"
dimensions = 64
tower = "text"
probabilities = true
max_seconds = 12
patch_dropping = true
merge_tokens = 4

[quantize]
precision = "int8"
calibration = "texts.txt"
column = "text"
samples = 17
seed = 4
method = "mse"
exclude = ["*.layer.0.*"]
max_drop = "cosine=0.005"
isa = "any"

[vocabulary]
data = "texts.txt"
size = 20000

[prune]
latency = "0.67x"
target = "openvino"
shape = "1x64"
samples = 500
data = ["texts.txt", "more/"]

[layers]
keep = 3
data = "texts.txt"

[target]
name = "tensorrt-rtx"
workspace_mb = 64
compute_capabilities = ["8.6", "8.9"]
"""


def read(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return recipe.read(path)


def test_every_field_has_a_key(tmp_path: Path) -> None:
    found = read(tmp_path, FULL)
    assert found == Recipe(
        model="sentence-transformers/all-MiniLM-L6-v2",
        target="tensorrt-rtx",
        precision="int8",
        revision="c9745ed1",
        pooling="cls",
        normalize=False,
        features=True,
        max_length=128,
        image_size=(64, 48),
        prompt="query",
        dimensions=64,
        tower="text",
        probabilities=True,
        max_seconds=12,
        patch_dropping=True,
        merge_tokens=4,
        calibration="texts.txt",
        calibration_column="text",
        samples=17,
        seed=4,
        method="mse",
        exclude=("*.layer.0.*",),
        max_drop="cosine=0.005",
        isa="any",
        workspace_mb=64,
        compute_capabilities=("8.6", "8.9"),
        passes=(
            Pass("vocabulary", {"data": ("texts.txt",), "size": 20_000}),
            Pass(
                "prune",
                {
                    "latency": "0.67x",
                    "target": "openvino",
                    "shape": "1x64",
                    "samples": 500,
                    "data": ("texts.txt", "more/"),
                },
            ),
            Pass("layers", {"keep": 3, "data": ("texts.txt",)}),
        ),
    )
    assert all(getattr(found, f.name) != getattr(Recipe(), f.name) for f in fields(Recipe))
    assert set(found.to_json()) == {field.name for field in fields(Recipe)}
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


@pytest.mark.parametrize("text", ["", "# nothing\n", "[encoder]\n"])
def test_empty_recipe(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[quantise]\nseed = 1", r"unknown section \[quantise\]\. Did you mean 'quantize'\?"),
        ("[encoder]\nmodle = 'x'", r"unknown key 'modle' in \[encoder\]\. Did you mean 'model'\?"),
        ("[target]\nprecision = 'int8'", r"unknown key 'precision' in \[target\].*Keys: name,"),
        ("model = 'x'", r"unknown section \[model\].*Sections: \[encoder\], \[quantize\]"),
        ("encoder = 'x'", r"unknown section \[encoder\]"),
        (
            "[encoder]\nmax_length = '128'",
            "max_length in .encoder. is '128'; it should be a whole number",
        ),
        ("[encoder]\nmax_length = true", "should be a whole number"),
        ("[encoder]\nmax_length = 12.5", "should be a whole number"),
        ("[encoder]\nnormalize = 1", "should be true or false"),
        ("[encoder]\nmodel = 3", "should be a string"),
        ("[quantize]\nprecision = ['int8']", "should be a string"),
        ("[quantize]\nexclude = 'a'", "exclude .* 'a'; it should be a list"),
        ("[target]\ncompute_capabilities = '8.6'", r"compute_capabilities .* '8\.6'"),
        ("[encoder\n", "recipe.toml"),
        ("[encoder]\nmodel = 'a'\nmodel = 'b'", "recipe.toml"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("value", "size"),
    [("224", (224, 224)), ("[64, 48]", (64, 48)), ("'64x48'", (64, 48)), ("'96'", (96, 96))],
)
def test_image_size(tmp_path: Path, value: str, size: tuple[int, int]) -> None:
    assert read(tmp_path, f"[encoder]\nimage_size = {value}").image_size == size


@pytest.mark.parametrize("value", ["0", "true", "1.5", "[1, 2, 3]", "[]", "'a x b'", "[64, 1.5]"])
def test_image_size_that_is_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match=r"image_size in \[encoder\].*should be pixels"):
        read(tmp_path, f"[encoder]\nimage_size = {value}")


def test_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="recipe.toml"):
        recipe.read(tmp_path / "recipe.toml")
    with pytest.raises(RecipeError, match="recipe"):
        recipe.read(tmp_path)
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="recipe.toml"):
        recipe.read(tmp_path / "recipe.toml")


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    (folder / "model").mkdir(parents=True)
    (folder / "data.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    found = read(
        folder, "[encoder]\nmodel = 'model'\n[quantize]\ncalibration = '../recipes/data.txt'"
    )
    assert Path(found.model).samefile(folder / "model")
    assert Path(str(found.calibration)).samefile(folder / "data.txt")
    absolute = read(folder, f"[encoder]\nmodel = '{folder / 'model'}'")
    assert Path(absolute.model) == folder / "model"
    # What is no path there is left alone: a hub id.
    assert read(folder, "[encoder]\nmodel = 'org/name'").model == "org/name"


@pytest.mark.parametrize("empty", ["model", "calibration"])
def test_an_empty_path_is_not_the_recipes_folder(tmp_path: Path, empty: str) -> None:
    section = {"model": "encoder", "calibration": "quantize"}[empty]
    assert getattr(read(tmp_path, f"[{section}]\n{empty} = ''"), empty) == ""


def test_build_names_an_unknown_option(tmp_path: Path) -> None:
    options: dict[str, Any] = {"poling": "cls"}
    with pytest.raises(RecipeError, match=r"no option 'poling'\. Did you mean 'pooling'\?"):
        edgessl.build("model", "onnx", tmp_path / "bundle", **options)


def test_a_recipe_is_a_value() -> None:
    assert replace(Recipe(), seed=1) == Recipe(seed=1) != Recipe()
    assert hash(Recipe(compute_capabilities=("8.6",))) == hash(
        Recipe(compute_capabilities=("8.6",))
    )

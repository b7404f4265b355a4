"""Fewer layers: which ones go, what is written, and what other libraries make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgessl import cli, compression, shortening
from edgessl.compress import layers
from edgessl.encoders import structures
from edgessl.errors import EdgesslError, Unsupported

Printed = pytest.CaptureFixture[str]


class Sum(torch.nn.Module):
    """x + a + b + ...: what each layer adds is known."""

    def __init__(self, *added: list[float]) -> None:
        super().__init__()
        self.layer = torch.nn.ModuleList(Add(row) for row in added)

    def vectors(self) -> layers.Vectors:
        found = torch.ones(4, 2)
        for one in self.layer:
            found = one(found)
        vectors: layers.Vectors = found.numpy()
        return vectors


class Add(torch.nn.Module):
    def __init__(self, row: list[float]) -> None:
        super().__init__()
        self.row = torch.tensor(row)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.row


def test_the_layer_that_turns_vectors_least_goes_first() -> None:
    model = Sum([0.0, 3.0], [0.1, 0.1], [0.0, 1.0], [2.0, 2.0])
    told: list[tuple[int, int]] = []
    whole = model.vectors()
    kept, steps = layers.choose(
        model, "layer", 2, model.vectors, lambda done, total: told.append((done, total))
    )
    # of (1, 1) + (2.1, 6.1) = (3.1, 7.1): without the second (3, 7), without the third (3.1, 6.1)
    assert [step.left_out for step in steps] == [1, 2] and kept == [0, 3]
    assert len(model.layer) == 2 and told[-1] == (7, 7)
    left = model.vectors()[0]
    expected = left @ whole[0] / np.linalg.norm(left) / np.linalg.norm(whole[0])
    assert steps[-1].cosine == pytest.approx(float(expected), abs=1e-6)


def test_names_are_numbered_anew() -> None:
    names = ["embeddings.w", *(f"bert.encoder.layer.{n}.{p}" for n in range(12) for p in "ab")]
    tensors = {name: name for name in names}
    found = layers.renamed(tensors, 12, [0, 5, 11])
    assert found["bert.encoder.layer.2.b"] == "bert.encoder.layer.11.b"
    assert found["bert.encoder.layer.1.a"] == "bert.encoder.layer.5.a"
    assert found["embeddings.w"] == "embeddings.w" and len(found) == 7
    with pytest.raises(Unsupported, match="one list of 6 layers"):
        layers.renamed(tensors, 6, [0])


def test_decoders_are_no_layers_of_the_encoder() -> None:
    model = torch.nn.Module()
    model.encoder, model.decoder = Sum([1.0, 0.0], [0.0, 1.0]), Sum([1.0, 0.0], [0.0, 1.0])
    holder, name = structures.listed(model, 2)
    assert holder is model.encoder and name == "layer"
    with pytest.raises(Unsupported, match="0 lists of 7"):
        structures.listed(model, 7)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(" ".join(t.split()) for t in sentences[:40]) + "\n", "utf-8")
    return path


@pytest.mark.slow
def test_a_real_checkpoint(tmp_path: Path, minilm: Path, texts: Path, capsys: Printed) -> None:
    output = tmp_path / "small"
    command = ["compress", str(minilm), "-o", str(output), "--data", str(texts), "-q"]
    assert cli.run([*command, "--layers", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["kept"]) == 4 and 0.7 < found["cosine_mean"] < 0.999
    assert found["left_out"][0][1] > found["left_out"][1][1] == pytest.approx(found["cosine_mean"])
    assert found["flops_after"] == pytest.approx(found["flops_before"] * 4 / 6, rel=0.01)
    assert json.loads((output / "config.json").read_text())["num_hidden_layers"] == 4
    assert json.loads((output / compression.NOTES).read_text())[0]["layers"]["items"] == 40

    # the original library, with the same layers taken out by hand
    from transformers import AutoModel, AutoTokenizer

    whole = AutoModel.from_pretrained(minilm).eval()
    whole.encoder.layer = torch.nn.ModuleList([whole.encoder.layer[n] for n in found["kept"]])
    small = AutoModel.from_pretrained(output).eval()
    inputs = AutoTokenizer.from_pretrained(output)(["some words here"], return_tensors="pt")
    with torch.no_grad():
        one, other = (model(**inputs).last_hidden_state for model in (whole, small))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_images(tmp_path: Path, mae: Path) -> None:
    from examples import data

    path = tmp_path / "images.npy"
    np.save(path, data.cifar10("test", 32))
    found = shortening.shorten(str(mae), [str(path)], tmp_path / "small", keep=7)
    assert len(found.kept) == 7 and found.items == 32
    assert found.cosine_mean > 0.9


def test_wrong_use(tmp_path: Path, minilm: Path, texts: Path, capsys: Printed) -> None:
    with pytest.raises(EdgesslError, match="keep 1 to 5"):
        shortening.shorten(str(minilm), [str(texts)], tmp_path / "a", keep=6)
    base = ["compress", str(minilm), "-o", str(tmp_path / "a"), "-q"]
    for flags, said in (
        (["--layers", "3"], "--layers needs --data"),
        (["--layers", "3", "--data", "x", "--vocab", "y"], "several, one after the other"),
        (["--vocab", "y", "--data", "x"], "--data is for --latency, --flops, --params, --layers"),
        (["--layers", "3", "--data", "x", "--vocab-size", "9"], "--vocab-size is for --vocab"),
        (["--layers", "3", "--data", str(tmp_path / "nowhere.txt")], "nowhere.txt"),
    ):
        assert cli.run([*base, *flags]) in (2, 3)
        assert said in capsys.readouterr().err
    assert not (tmp_path / "a").exists()

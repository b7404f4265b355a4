"""``edgessl eval`` on a small real bundle, beside its checkpoint in torch and its stored vectors."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import edgessl
from edgessl import console
from edgessl.commands.eval import evaluate
from edgessl.embed import job
from edgessl.gate import report as reports
from tests.builders import random_texts, save_text_model

Eval = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model``, its bundle ``bundle``, and the data ``texts.csv`` and ``beir``."""
    folder = tmp_path_factory.mktemp("eval")
    edgessl.build(save_text_model(folder / "model"), "onnx", folder / "bundle", pooling="max")
    texts = sorted(set(random_texts(90, seed=1)))
    with (folder / "texts.csv").open("w", newline="") as stream:
        rows = [(number, text, "ab"[len(text) > 10]) for number, text in enumerate(texts)]
        csv.writer(stream).writerows([("id", "text", "label"), *rows])
    (folder / "beir" / "qrels").mkdir(parents=True)
    for name, start in (("corpus", 0), ("queries", 50)):
        lines = [
            json.dumps({"_id": f"{name}{n}", "text": text}) for n, text in enumerate(texts[start:])
        ]
        (folder / "beir" / f"{name}.jsonl").write_text("\n".join(lines))
    rels = [f"queries{number}\tcorpus{number + 50}\t1" for number in range(20)]
    (folder / "beir" / "qrels" / "test.tsv").write_text("\n".join(["query\tdoc\tscore", *rels]))
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Eval:
    monkeypatch.chdir(place)
    group = console.Commands()
    group.add_command(evaluate)
    assert isinstance(group, click.Group)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = console.run(group, ["eval", *arguments])
        return code, *capsys.readouterr()

    return run


def scores(printed: str) -> dict[tuple[str, str], Any]:
    return {(row["metric"], row["subject"]): row for row in json.loads(printed)["scores"]}


def test_a_bundle_alone_is_compared_with_its_own_encoder(run: Eval) -> None:
    code, printed, progress = run("bundle")

    assert code == 0
    assert "reference.npz: the golden inputs" in printed
    assert "cosine_mean" in printed and "bundle in torch" in printed
    assert "opening bundle ..." in progress


def test_some_of_the_golden_inputs(run: Eval) -> None:
    code, printed, _ = run("bundle", "--items", "5", "--json", "-q")

    found = scores(printed)["cosine_min", "bundle"]
    assert code == 0 and found["items"] == 5 and found["value"] > 0.99999


def test_a_bundle_beside_its_checkpoint_in_torch(run: Eval) -> None:
    code, printed, _ = run("bundle", "-r", "model", "--data", "texts.csv", "--json", "-q")

    found = scores(printed)
    assert code == 0
    # read as the bundle was: with another pooling they would have little in common
    assert found["cosine_min", "bundle"]["value"] > 0.99999
    assert found["neighbours@10", "bundle"]["value"] > 0.999
    probe = found["classify.probe", "bundle"]
    assert probe["reference"] == "model" and abs(probe["difference"]) < 0.03


def test_copies_under_names_and_a_stored_report(run: Eval, place: Path) -> None:
    shutil.copytree(place / "bundle", place / "copy")
    arguments = ["old=bundle", "new=copy", "--data", "beir", "-o", "report.json", "-q"]
    code, printed, _ = run(*arguments)

    assert code == 0
    report = reports.read(place / "report.json")
    ndcg = next(s for s in report.scores if (s.metric, s.subject) == ("retrieval.ndcg@10", "new"))
    assert (ndcg.value, ndcg.difference, ndcg.interval) == (1.0, 0.0, (0.0, 0.0))
    assert report.subjects[0].digest == report.subjects[1].digest != ""
    assert "new in an index of old: yes" in printed and "the same vectors" in printed


def test_stored_vectors_are_an_old_index(run: Eval, place: Path) -> None:
    job.run("bundle", ["texts.csv"], "old.npy", column="text", id_column="id")
    stored = np.load(place / "old.npy")
    np.save(place / "old.npy", np.roll(stored, 1, axis=0))

    arguments = ["--data", "texts.csv", "--column", "text", "--id-column", "id", "--json", "-q"]
    code, printed, _ = run("bundle", "-r", "old.npy", "-m", "fidelity", *arguments)
    assert code == 0
    assert "no, they cannot" in scores(printed)["index.recall@10", "bundle"]["facts"]["verdict"]

    np.save(place / "old.npy", stored)
    code, printed, _ = run("bundle", "-r", "old.npy", "-m", "fidelity", *arguments)
    assert scores(printed)["cosine_min", "bundle"]["value"] > 0.99999
    code, printed, _ = run("a=old.npy", "b=old.npy", "-q")
    assert code == 0 and "the same vectors" in printed
    assert run("bundle", "-r", "old.npy", "-q")[0] == 2  # on which items?


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bundle", "bundle"], 2, "two subjects are called 'bundle'"),
        (["model"], 4, "is not a bundle"),
        (["bundle", "--data", "nothing.csv"], 2, "no such file"),
        (["bundle", "--data", "texts.csv", "-m", "recal"], 2, "Did you mean"),
        (["bundle", "--data", "texts.csv", "--pair", "a"], 2, "--pair A,B"),
        (["bundle", "--data", "texts.csv", "--k", "0"], 2, "at least 1"),
        (["bundle", "--column", "text"], 2, "--column is for --data, which is not given"),
        (["bundle", "-o", "no/report.json"], 2, "there is no directory"),
        (["bundle", "-r", "no/such/model", "--data", "texts.csv"], 2, "no such directory"),
        (["bundle", "-r", "none.npy", "--data", "texts.csv"], 2, "no vectors at 'none.npy'"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], code: int, said: str, run: Eval) -> None:
    found, printed, errors = run(*arguments, "-q")

    assert (found, printed) == (code, "")
    assert said in errors and len(errors.strip().splitlines()) == 1

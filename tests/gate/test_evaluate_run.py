"""The whole evaluation, with vectors that are made up."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgessl.errors import RecipeError
from edgessl.gate import report as reports
from edgessl.gate.evaluate import bootstrap, evaluate, vectors, words
from edgessl.gate.evaluate.data import PLAIN, RETRIEVAL, Data
from edgessl.gate.evaluate.vectors import Vectorizer
from edgessl.gate.report import Report, Score, Subject
from edgessl.progress import Steps
from edgessl.spec import EncoderSpec, TextSpec

TEXTS = [f"{'good' if number % 3 else 'bad'} number {number}" for number in range(120)]


def meaning(text: str) -> Any:
    """A vector in which the class can be seen."""
    rng = np.random.default_rng([ord(c) for c in text])
    return rng.normal(size=16) + (2 if text.startswith("good") else 0) * np.eye(16)[0]


def vectorizer(
    name: str,
    change: Callable[[Any], Any] = lambda rows: rows,
    refused: dict[int, str] | None = None,
) -> Vectorizer:
    def embed(data: Data, steps: Steps) -> tuple[Any, dict[int, str]]:
        rows = np.array([meaning(text) for text in data.items], np.float32)
        rows = np.array(change(rows), np.float32)
        rows[list(refused or {})] = np.nan
        return rows, refused or {}

    return Vectorizer(Subject(name, f"made/up/{name}", task="text"), "text", embed)


def noised(rows: Any, scale: float = 1.0) -> Any:
    return rows + np.random.default_rng(0).normal(0, scale, rows.shape)


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    with (tmp_path / "texts.csv").open("w", newline="") as stream:
        rows = [(text, text.partition(" ")[0]) for text in TEXTS]
        csv.writer(stream).writerows([("text", "label"), *rows])
    return str(tmp_path / "texts.csv")


def run(data: str | None, *others: Vectorizer, **options: Any) -> Report:
    subjects = {one.subject.name: one for one in (vectorizer("old"), *others)}
    return evaluate(subjects, "old", data, **options)


def score(report: Report, metric: str, subject: str = "new") -> Score:
    return next(s for s in report.scores if (s.metric, s.subject) == (metric, subject))


def test_a_copy_differs_by_nothing_at_all(labelled: str) -> None:
    report = run(labelled, vectorizer("new"), metrics=["fidelity", "classify", "cluster"])

    names = [s.metric for s in report.scores if s.subject == "new"]
    assert names == [
        "cosine_mean",
        "cosine_p1",
        "cosine_min",
        "neighbours@10",
        "index.recall@10",
        "similarities.spearman",
        "classify.probe",
        "classify.knn@10",
        "cluster.vmeasure",
    ]
    for name in names[:6]:
        assert score(report, name).value == 1 and score(report, name).interval == (1, 1)
    for name in names[6:]:
        found = score(report, name)
        assert (found.difference, found.interval) == (0, (0, 0))
        assert found.reference == "old" and found.reference_value == found.value
        assert set(found.facts["quantiles"].values()) == {0}
        assert words.verdict(found) == "the same vectors"


def test_a_report_can_be_stored_and_says_where_it_is_from(labelled: str) -> None:
    report = run(labelled, vectorizer("new", noised))

    assert reports.loads(report.dumps()) == report
    assert [subject.name for subject in report.subjects] == ["old", "new"]
    assert {(s.data, len(s.data_sha256)) for s in report.scores} == {("texts.csv", 64)}
    assert report.environment and report.created
    assert any("texts.csv: read as labelled items: text, labels: label" in n for n in report.notes)
    found = score(report, "classify.probe")
    assert found.difference == pytest.approx(
        found.value - score(report, "classify.probe", "old").value
    )
    low, high = found.interval or (0, 0)
    assert found.facts["quantiles"]["0.025"] == low < high == found.facts["quantiles"]["0.975"]


def test_noise_is_seen(labelled: str) -> None:
    report = run(labelled, vectorizer("new", lambda rows: noised(rows, 3)))

    assert score(report, "cosine_mean").value < 0.6
    assert score(report, "neighbours@10").value < 0.5
    assert "no, they cannot live" in score(report, "index.recall@10").facts["verdict"]
    probe = score(report, "classify.probe")
    assert probe.interval is not None and probe.interval[1] < 0
    assert words.verdict(probe).startswith(f"worse by {-(probe.difference or 0):.4f} (")
    shown = "\n".join(words.lines(report))
    assert "against old" in shown and "new in an index of old: no, they cannot" in shown


def test_items_that_are_drawn_twice_do_not_raise_a_v_measure(labelled: str) -> None:
    report = run(labelled, vectorizer("new", noised), metrics=["cluster"])

    for name in ("old", "new"):
        found = score(report, "cluster.vmeasure", name)
        low, high = found.interval or (0, 0)
        assert low < (found.value if found.difference is None else found.difference) < high


def test_an_interval_of_what_cannot_be_told_holds_0(labelled: str) -> None:
    report = run(labelled, vectorizer("new", lambda rows: noised(rows, 0.01)))

    found = score(report, "classify.probe")
    low, high = found.interval or (0, 0)
    assert low < 0 < high and found.difference == pytest.approx(0, abs=0.02)
    assert words.verdict(found).startswith("no difference seen (-")


def test_refused_items_are_left_out_of_both_sides(labelled: str) -> None:
    refused = {3: "text 3 is torn.", 7: "text 7 is torn."}
    report = run(labelled, vectorizer("new", refused=refused))

    assert score(report, "cosine_min").value == 1
    assert score(report, "cosine_min").items == 118
    assert any("2 of 120 items cannot be used (text 3 is torn)" in n for n in report.notes)
    many = dict.fromkeys(range(20), "torn")
    with pytest.raises(RecipeError, match="20 of 120 items cannot be used"):
        run(labelled, vectorizer("new", refused=many))


def test_vectors_that_are_not_finite_count_as_wrong(labelled: str) -> None:
    def lose(rows: Any, count: int = 2) -> Any:
        return np.where(np.arange(len(rows))[:, None] < count, np.nan, rows)

    report = run(labelled, vectorizer("new", lose))

    assert score(report, "cosine_min").value == -1 and score(report, "cosine_min").items == 120
    assert any("no finite vector for 2 of 120" in note for note in report.notes)
    with pytest.raises(RecipeError, match="new gives no finite vector for 50 of 120"):
        run(labelled, vectorizer("new", lambda rows: lose(rows, 50)))


def test_other_dimensions_leave_what_needs_one_space(labelled: str) -> None:
    report = run(labelled, vectorizer("new", lambda rows: rows[:, :8]))

    measured = {s.metric for s in report.scores if s.subject == "new"}
    assert measured == {
        "neighbours@10",
        "similarities.spearman",
        "classify.probe",
        "classify.knn@10",
    }
    assert any("new has 8 dimensions and old 16" in note for note in report.notes)
    with pytest.raises(RecipeError, match="cosine_min: new has 8 dimensions"):
        run(labelled, vectorizer("new", lambda rows: rows[:, :8]), metrics=["cosine_min"])


def test_an_encoder_without_meaning(labelled: str) -> None:
    report = run(labelled, vectorizer("new", lambda rows: np.ones_like(rows)))

    assert score(report, "classify.probe").value == pytest.approx(2 / 3, abs=0.02)
    assert score(report, "similarities.spearman").value == pytest.approx(0, abs=1e-9)


def test_metrics_by_name_and_with_their_own_k(labelled: str) -> None:
    report = run(labelled, vectorizer("new"), metrics=["neighbours@3", "classify.knn"], k=5)

    assert {s.metric for s in report.scores} == {"neighbours@3", "classify.knn@5"}


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("sts.spearmann", "no metric 'sts.spearmann'. Did you mean 'sts.spearman'?"),
        ("cosine_mean@5", "Did you mean 'cosine_mean'?"),
        ("neighbours@0", "Did you mean 'neighbours@10'?"),
        ("retrieval", "retrieval.ndcg@10 needs a folder in BEIR's layout; texts.csv was read as"),
        ("neighbours@60", "needs more than 120 items"),
    ],
)
def test_metrics_that_cannot_be_had(metric: str, said: str, labelled: str) -> None:
    with pytest.raises(RecipeError) as caught:
        run(labelled, vectorizer("new"), metrics=[metric])

    assert said in str(caught.value)


def test_what_cannot_be_had_and_was_not_asked_for_is_left_out(labelled: str) -> None:
    report = run(labelled, vectorizer("new"), items=15)

    assert not any(s.metric.startswith("neighbours") for s in report.scores)
    assert any(
        note.startswith("left out: neighbours@10 needs more than 20") for note in report.notes
    )
    assert any("15 of 120 items drawn, seed 0" in note for note in report.notes)


def test_one_item(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a single text\n")
    report = run(str(tmp_path / "one.txt"), vectorizer("new", noised))

    assert {s.metric for s in report.scores} == {"cosine_mean", "cosine_p1", "cosine_min"}
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(RecipeError, match="has no items"):
        run(str(tmp_path / "none.txt"), vectorizer("new"))


def test_without_a_reference_figures_stand_alone(labelled: str, tmp_path: Path) -> None:
    report = evaluate({"old": vectorizer("old")}, None, labelled)

    assert {s.metric for s in report.scores} == {"classify.probe", "classify.knn@10"}
    assert all(s.difference is None and not s.reference for s in report.scores)
    (tmp_path / "plain.txt").write_text("x\ny\n")
    with pytest.raises(RecipeError, match="give a second bundle, or --reference"):
        evaluate({"old": vectorizer("old")}, None, str(tmp_path / "plain.txt"))
    with pytest.raises(RecipeError, match="cosine_min compares with a reference"):
        evaluate({"old": vectorizer("old")}, None, labelled, ["cosine_min"])


def test_encoders_of_other_items(labelled: str) -> None:
    other = vectorizer("new")
    image = Vectorizer(other.subject, "image", other.embed)

    with pytest.raises(RecipeError, match="'old' \\(text\\) and 'new' \\(image\\) take different"):
        run(labelled, image)
    with pytest.raises(RecipeError, match="the reference 'olt' is none of: old"):
        evaluate({"old": vectorizer("old")}, "olt", labelled)


def test_pairs_and_searches_end_to_end(tmp_path: Path) -> None:
    with (tmp_path / "sts.csv").open("w", newline="") as stream:
        rows = [(a, b, int(a[0] == b[0])) for a, b in zip(TEXTS, TEXTS[7:], strict=False)]
        csv.writer(stream).writerows([("left", "right", "score"), *rows])
    report = run(str(tmp_path / "sts.csv"), vectorizer("new", noised))
    assert score(report, "sts.spearman").value > 0.1
    assert score(report, "sts.spearman").items == 113
    assert score(report, "sts.spearman").facts["unit"] == "pairs"
    assert len(score(report, "cosine_mean").facts["quantiles"]) == len(bootstrap.QUANTILES)


class Prompted:
    """A session of a model with prompts, which writes down what it is asked."""

    def __init__(self, seen: list[Any], prompt: str = "") -> None:
        spec = EncoderSpec("text", "bert", "mean", True, (), (), TextSpec(8, prompts=PROMPTS))
        self.manifest = SimpleNamespace(encoder=spec)
        self.seen, self.prompt = seen, prompt

    def using(self, prompt_name: str) -> Prompted:
        return Prompted(self.seen, prompt_name)

    def embed_blocks(self, blocks: Any, refused: Any) -> Any:
        for block in blocks:
            self.seen.append((self.prompt, block))
            refused(0, RecipeError(f"{block[0]} is torn"))
            yield np.zeros((len(block), 3), np.float32)


PROMPTS = {"passage": "passage: ", "query": "query: ", "other": "other: "}


def test_queries_and_documents_have_the_prompts_of_their_role() -> None:
    items = ["q1", "q2", "d1"]
    data = Data("search", RETRIEVAL, items, items, queries=2)
    seen: list[Any] = []

    session: Any = Prompted(seen)
    rows, refused = vectors.embedded(session, data, "new", Steps(quiet=True))

    assert seen == [("query", ["q1", "q2"]), ("passage", ["d1"])]
    assert len(rows) == 3 and refused == {0: "q1 is torn", 2: "d1 is torn"}
    seen.clear()
    vectors.embedded(session, replace(data, kind=PLAIN, queries=0), "new", Steps(quiet=True))
    assert seen == [("", items)]

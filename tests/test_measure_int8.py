"""The figures of int8 and of fewer patches, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.figures import graphs
from tests.running import cells, measured, tables_of

pytestmark = pytest.mark.slow


def test_measure_int8(tmp_path: Path) -> None:
    """The parts on int8 in small, without the peers."""
    found, printed = measured(tmp_path, "int8", "int8-cost", "int8-images")
    texts = found["int8"]
    fp32, int8 = "edgessl onnx fp32", "edgessl onnx int8"
    assert set(texts["files"]) == {fp32, int8}
    assert texts["files"][int8]["bytes"] < 0.5 * texts["files"][fp32]["bytes"]
    for domain in ("in domain", "out of domain"):
        rows = texts["fidelity"][domain]
        assert len(rows[int8]["cosine"]) == len(rows[int8]["same_neighbour"]) == 32
        assert min(rows[fp32]["cosine"]) > 0.99999 and all(rows[fp32]["same_neighbour"])
        assert 0.9 < np.mean(rows[int8]["cosine"]) < 0.99999
        assert np.mean(rows[int8]["same_neighbour"]) > 0.5  # chance is 1 in 31
    for runs in texts["speed"].values():
        assert all(len(calls) == 2 and min(calls) > 0 for name in runs for calls in runs[name])

    (row,) = found["int8-cost"]["rows"]
    assert 0 < row["quantizing_s"][0] < row["seconds"][0] < 600 and row["peak_mb"][0] > 200

    mae, large = found["int8-images"]["encoders"].values()
    fp32, int8 = "edgessl openvino fp32", "edgessl openvino int8"
    assert set(mae["files"]) == set(large["files"]) == {fp32, int8}
    assert min(mae["fidelity"][fp32]["cosine"]) > 0.9999
    assert 0.95 < np.mean(mae["fidelity"][int8]["cosine"]) < 0.99999
    for row in mae["fidelity"].values():
        assert np.mean(row["right"]) > 0.25  # chance is 0.1
    assert list(large["speed"]) == ["1 x 32 px", "8 x 32 px"]

    tables = tables_of(printed)
    assert [len(table) for table in tables] == [4, 4, 4, 4, 3, 4, 4, 4]
    shown = {cells(line)[0]: cells(line) for line in tables[0]}["edgessl onnx int8"]
    raw = texts["fidelity"]["in domain"]["edgessl onnx int8"]
    assert float(shown[2]) == pytest.approx(np.mean(raw["cosine"]), abs=1e-5)
    assert float(shown[4]) == pytest.approx(min(raw["cosine"]), abs=1e-5)


def test_measure_patches(tmp_path: Path) -> None:
    """Fewer tokens in small: every setting is measured, and the tables say what was."""
    found, printed = measured(tmp_path, "patches")
    rows = {row["name"]: row for row in found["patches"]["accuracy"]}
    choices = ["50%, grid", "50%, random", "50%, saliency"]
    assert list(rows) == ["every patch", *choices, "merging 4 a layer"]
    assert all(len(row["knn"]) == len(row["cosine"]) == 100 for row in rows.values())
    assert rows["every patch"]["knn"] == rows["every patch"]["mixed"]
    assert min(rows["every patch"]["cosine"]) > 0.9999
    for name in choices:
        assert 0.95 < np.mean(rows[name]["cosine"]) < 0.9999
    assert np.mean(rows["every patch"]["probe"]) > 0.3  # chance is 0.1
    for encoder, batches in (("vit-mae-cifar10", ["1", "8"]), ("ViT-B/16", ["1"])):
        runs = found["patches"]["speed"][encoder]["openvino fp32"]
        assert list(runs) == batches
        settings = next(iter(runs.values()))
        assert list(settings)[:2] == ["every patch", "50%"] and len(settings) == 3
    assert [len(table) for table in tables_of(printed)] == [7, 5, 5]


def test_nearest_is_another_row() -> None:
    rows = graphs.unit(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    expected = [
        min((float(((row - other) ** 2).sum()), j) for j, other in enumerate(rows) if i != j)[1]
        for i, row in enumerate(rows)
    ]
    assert graphs.nearest(rows).tolist() == expected

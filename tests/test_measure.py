"""The figures of fidelity, export, device, speed, embed and an app, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.figures import pruning
from tests.running import ROOT, cells, measured, tables_of

pytestmark = pytest.mark.slow


def test_measure(tmp_path: Path) -> None:
    """Three parts in small: the tables, and the raw samples that they are made from."""
    found, printed = measured(tmp_path, "fidelity", "export", "device")
    assert found["quick"] and found["environment"]["versions"]["openvino"]
    assert found["environment"]["cpu"]["usable_cores"] > 0

    for encoder in ("all-MiniLM-L6-v2", "vit-mae-cifar10"):
        facts = found["fidelity"][encoder]
        rows = facts["rows"]
        assert set(rows) == {"torch fp32", "onnx fp32", "openvino int8"}
        for row in rows.values():
            assert len(row["cosine"]) == facts["items"] == 32
            assert len(row["one_item_s"]) == 5 and len(row["bulk_s"]) == 1
        assert min(rows["onnx fp32"]["cosine"]) > 0.99999
        assert 0.9 < np.mean(rows["openvino int8"]["cosine"]) < 0.9999999
        assert rows["openvino int8"]["bytes"] < 0.5 * rows["onnx fp32"]["bytes"]
    knn = {name: row["knn"] for name, row in rows.items()}
    assert knn["onnx fp32"] == knn["torch fp32"] > 0.15  # chance is 0.1

    exports = found["export"]
    assert set(exports) == {"edgessl fp32", "edgessl int8"}
    assert exports["edgessl int8"]["bytes"] < 0.5 * exports["edgessl fp32"]["bytes"]
    for row in exports.values():
        assert 1 < row["seconds"][0] < 600 and 200 < row["peak_mb"][0] < 10_000

    for name in ("edgessl[openvino]", "edgessl[onnx]"):
        row = found["device"][name]
        assert {"edgessl", "numpy", "tokenizers"} <= set(row["installed_bytes"])
        assert not {"torch", "transformers", "onnx"} & set(row["installed_bytes"])
        (run,) = row["seconds"]
        assert 0 < run["import"] + run["load"] + run["first"] < run["total"] < 60
        assert 30 < row["peak_mb"][0] < 2000

    tables = tables_of(printed)
    assert [len(table) for table in tables] == [5, 5, 4, 4]
    minilm = found["fidelity"]["all-MiniLM-L6-v2"]["rows"]["openvino int8"]
    shown = {cells(line)[0]: cells(line) for line in tables[0]}["openvino int8"]
    assert float(shown[2]) == pytest.approx(np.mean(minilm["cosine"]), abs=1e-5)
    assert float(shown[4]) == pytest.approx(min(minilm["cosine"]), abs=1e-5)


def test_measure_speed_embed_and_app(tmp_path: Path) -> None:
    """Texts to vectors in small, without the peers; killed, beside undisturbed; parts of a call."""
    found, printed = measured(tmp_path, "speed", "embed", "app")
    speed = found["speed"]
    names = ["edgessl onnx fp32", "edgessl openvino int8"]
    assert list(speed["bulk"]) == list(speed["single"]) == names and speed["texts"] == 64
    assert all(0 < run["seconds"][0] < 60 for run in speed["bulk"].values())
    assert all(len(calls) == 50 for runs in speed["single"].values() for calls in runs)
    assert speed["cosine"]["edgessl onnx fp32"] > 0.999999 > speed["cosine"][names[1]]
    assert list(speed["peak"]["bulk"]) == names[1:]
    assert all(0 < run["share"] < 1.5 for run in speed["peak"]["bulk"].values())

    embed = found["embed"]
    assert embed["identical"] and embed["texts"] == 9000
    assert [run.get("summary", {}).get("rows") for run in embed["killed"]] == [None, 9000]
    assert all(max(run["memory_mb"]) > 50 for run in (embed["undisturbed"], *embed["killed"]))

    for name, row in found["app"].items():
        assert name in names and 0.05 < row["seconds"][0] < 60
        assert row["resident_mb"][0] is None or row["resident_mb"][0] > 30
        assert all(min(seconds) > 0 for seconds in row["parts_s"].values())
    assert [len(table) for table in tables_of(printed)] == [4, 4, 3, 5, 4]


def test_measure_names_an_unknown_part() -> None:
    command = [sys.executable, "-m", "examples.measure", "fidelty"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "'fidelty'" in result.stderr and "fidelity, export, device" in result.stderr


def test_measure_prune(tmp_path: Path) -> None:
    """Three ways to the same number of operations, the search ahead of the others."""
    found, printed = measured(tmp_path, "prune")
    rows = {row["way"]: row for row in found["prune"]["curve"]}
    assert list(rows) == ["edgessl", "magnitude", "chance"]
    assert all(row["flops"] <= 0.61 and len(row["cosine"]) == 40 for row in rows.values())
    near = {way: float(np.mean(row["cosine"])) for way, row in rows.items()}
    assert near["edgessl"] > max(near["magnitude"], near["chance"]) + 0.02
    assert [len(table) for table in tables_of(printed)] == [5, 2, 3]


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    rows = [
        {"way": way, "latency": {"onnx": (share, (share, share))}, "cosine": [share]}
        for way in ("edgessl", "chance")
        for share in (0.9, 0.7)
    ]
    pruning.draw(rows, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    assert drawn.count("<svg") == 1 and "times the speed" in drawn and "chance" in drawn

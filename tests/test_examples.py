"""Every example runs end to end, with small numbers, and says what it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples import data
from examples.figures import graphs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def example(name: str, *arguments: str) -> str:
    """The stdout of ``python -m examples.NAME``."""
    command = [sys.executable, "-m", f"examples.{name}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr
    return result.stdout


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_demo(tmp_path: Path) -> None:
    printed = example("demo", "--texts", "24", "--rounds", "1", "--output", str(tmp_path))
    rows = {
        found[1]: (float(found[2]), float(found[3]))
        for found in re.finditer(
            r"^ *(\w+ (?:fp32|int8)) +\S+(?: MB)? +([\d.]+) +([\d.]+) +[\d.]+ ms +\d+/s$",
            printed,
            re.MULTILINE,
        )
    }
    assert set(rows) == {"torch fp32", "onnx fp32", "openvino fp32", "openvino int8"}
    for name in ("torch fp32", "onnx fp32", "openvino fp32"):
        assert rows[name][1] > 0.9999
    assert 0.98 < rows["openvino int8"][0] < 0.99999  # near, and not the fp32 bundle again
    _, _, battery = printed.partition("the battery dies too quickly")
    answers = battery.partition("delicious food")[0]
    assert re.search(r"0\.[5-9]\d  .*battery", answers)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_quickstart(target: str, tmp_path: Path) -> None:
    printed = example("quickstart", "--target", target, "--output", str(tmp_path / "bundle"))
    assert {"onnx": "onnxruntime", "openvino": "openvino"}[target] in printed
    assert "vectors (3, 384) float32" in printed
    same, alike, unlike = (
        float(found) for found in re.findall(r"^ *(-?\d\.\d{4}) ", printed, re.MULTILINE)
    )
    assert same == pytest.approx(1, abs=1e-4)
    assert alike > 0.5 > 0.2 > unlike


def test_images(tmp_path: Path) -> None:
    options = ("--images", "2000", "--output", str(tmp_path))
    printed = example("images", *options)
    share = re.search(r"(\d+)% of the neighbours", printed)
    assert share and int(share[1]) > 20  # of 90; chance is 10
    queries = [int(np.argmax(data.cifar10_labels("test", 2000) == label)) for label in range(10)]
    with Image.open(tmp_path / "neighbours.png") as picture:
        drawn = np.asarray(picture.convert("RGB"), np.float64)
    for row, query in enumerate(queries):
        original = data.cifar10("test", 2000)[query]
        top, side = 34 + row * 122, 96
        shown = drawn[top : top + side, 8 : 8 + side].reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
        # the query itself, enlarged: averaged back to 32 x 32 it is the original, softened
        assert np.abs(shown - original).mean() < 6
    assert drawn.shape[1] > 10 * 96 and drawn.shape[0] > 10 * 96


def measured(place: Path, *parts: str) -> tuple[dict[str, Any], str]:
    """What ``measure`` wrote as JSON for *parts* in small, and what it printed."""
    raw = place / "raw.json"
    options = ("--quick", "--no-peers", "--json", str(raw), "--output", str(place / "work"))
    printed = example("measure", *parts, *options)
    return json.loads(raw.read_text(encoding="utf-8")), printed


def tables_of(printed: str) -> list[list[str]]:
    """The lines of each Markdown table, every one as wide as its head."""
    tables = [block.splitlines() for block in printed.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({len(cells(line)) for line in table}) == 1
    return tables


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
    assert [len(table) for table in tables_of(printed)] == [4, 4, 3, 4, 4]


def test_nearest_is_another_row() -> None:
    rows = graphs.unit(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    expected = [
        min((float(((row - other) ** 2).sum()), j) for j, other in enumerate(rows) if i != j)[1]
        for i, row in enumerate(rows)
    ]
    assert graphs.nearest(rows).tolist() == expected


def test_measure_names_an_unknown_part() -> None:
    command = [sys.executable, "-m", "examples.measure", "fidelty"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "'fidelty'" in result.stderr and "fidelity, export, device" in result.stderr

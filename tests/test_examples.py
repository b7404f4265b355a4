"""The examples that README and docs name, run as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import data
from tests.running import example

pytestmark = pytest.mark.slow


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


def test_smaller(tmp_path: Path) -> None:
    printed = example("smaller", "--images", "100", "--output", str(tmp_path))
    found = re.search(r"([\d.]+) times the speed; cosine ([\d.]+)", printed)
    assert found and float(found[1]) > 1 and 0.99 < float(found[2]) < 1
    sizes = [(tmp_path / name / "openvino_model.bin").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.75 * sizes[1]


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

"""What static int8 refuses, and when statistics are gathered again: on graphs made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgessl.calibrate import observe, quantize
from edgessl.calibrate.observe import Data
from edgessl.calibrate.quantize import Options
from edgessl.errors import Unsupported
from edgessl.spec import TextSpec
from edgessl.target import TARGETS
from tests.float_graphs import VECTOR, Net, blocks, data, tokens, weight

FORMS = {name: TARGETS[name].int8 for name in ("onnx", "openvino", "tensorrt")}


def test_statistics_of_other_data_or_options_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "_SAVE_EVERY", -1e9)
    model, given = blocks(2, 16).model(VECTOR), data(tokens(20, 16))
    resume = tmp_path / "statistics"

    def calibrated(changed: Data, **options: Any) -> bool:
        said: list[str] = []
        form = FORMS["openvino"]
        quantize.make_plan(
            model, changed, form, Options(**options), resume=resume, report=said.append
        )
        return any(line.startswith("calibrating") for line in said)

    assert calibrated(given) and not calibrated(given)
    assert not calibrated(given, method="minmax")  # of the same statistics
    assert calibrated(replace(given, items=[*given.items[:-1], given.items[0]]))
    assert calibrated(given, exclude=("*.intermediate",))
    spec = replace(given.spec, preprocessing=TextSpec(max_length=8))
    assert calibrated(replace(given, spec=spec), exclude=("*.intermediate",))


def test_activations_that_are_not_finite(tmp_path: Path) -> None:
    net = Net(16)
    bias = np.full(16, np.inf, np.float32)
    x = net.linear("x", weight(16, 16, 0), bias, "encoder.layer.0.dense")
    net.pool(net.linear(x, weight(16, 16, 1), layer="encoder.layer.1.dense"))
    path = tmp_path / "model.onnx"
    onnx.save(net.model(VECTOR), path)
    message = r"activations of encoder\.layer\.1\.dense are not finite on calibration item"
    with pytest.raises(Unsupported, match=message):
        quantize.static(path, data(tokens(4, 16)), FORMS["openvino"])


def test_nothing_to_quantize(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    net = Net(16)
    net.pool(net.add("Relu", "x"))
    onnx.save(net.model(VECTOR), path)
    with pytest.raises(Unsupported, match="no matrix product or convolution that int8 could take"):
        quantize.static(path, data(tokens(4, 16)), FORMS["openvino"])
    image = Net(16, image=True)
    kernel = image.constant(np.ones((4, 16, 8, 8), np.float32))
    flat = image.constant(np.array([-1, 4]))
    image.add("Reshape", image.add("Conv", "x", kernel), flat, output="image_embedding")
    onnx.save(image.model("image_embedding"), path)
    given = data([np.full((16, 8, 8), value, np.float32) for value in range(4)])
    with pytest.raises(Unsupported, match="only convolutions, which this target computes faster"):
        quantize.static(path, given, FORMS["onnx"])
    assert quantize.static(path, given, FORMS["openvino"])["operators"]["int8"] == 1

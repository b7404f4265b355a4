"""Is int8 worth it here? The comparison, its interval, and what is said of it."""

from __future__ import annotations

import pytest

from edgessl import target, worth
from tests.bundles import Bundles


@pytest.mark.parametrize(
    "interval,warns", [([0.5, 0.9], False), ([0.9, 1.1], True), ([1.2, 1.4], True)]
)
def test_a_person_is_told_when_nothing_is_gained(interval: list[float], warns: bool) -> None:
    entry = {
        "shape": "1 text",
        "milliseconds": {"fp32": 3.0, "bf16": 2.0, "int8": 1.0},
        "against": "bf16",
        "ratio": 0.5,
        "interval": interval,
    }
    said = worth.lines([entry], "int8")
    assert said[0].startswith("1 text: 1.00 ms, 0.50 of bf16's 2.00 ms")
    assert any("not faster than bf16 on this machine" in line for line in said) == warns


def test_targets_that_need_a_gpu_are_not_timed() -> None:
    timed = {key: worth.times(row, "int8") for key, row in target.TARGETS.items()}
    assert timed == {"onnx": True, "openvino": True, "tensorrt": False, "tensorrt-rtx": False}
    assert not worth.times(target.get("onnx"), "fp32")


def test_a_real_bundle_is_timed_against_every_float_precision_here(bundles: Bundles) -> None:
    built = bundles.get("bert", "openvino", "int8")
    timing = built.manifest.compatibility["timing"]
    assert [entry["shape"] for entry in timing] == ["1 text", "8 texts"]
    for entry in timing:
        assert {"fp32", "int8"} <= entry["milliseconds"].keys() <= {"fp32", "bf16", "int8"}
        assert all(value > 0 for value in entry["milliseconds"].values())
        assert entry["against"] != "int8"
        assert entry["interval"][0] <= entry["interval"][1]

"""Latency by the size of layers: measured for real on a tiny encoder, and its arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from edgessl import latency_table
from edgessl.errors import RecipeError, Unsupported
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from tests import small_vits
from tests.builders import save_text_model


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_table(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_table, "_REST", 0.0)
    monkeypatch.setattr(latency_table, "_SIZE", (1.0, 0.1))
    monkeypatch.setattr(latency_table, "_RESULT", (1.0, 0.1))
    small_vits.save(tmp_path / "model", "vit")
    encoder = load_encoder(Recipe(model=str(tmp_path / "model")))
    found = latency_table.measure(encoder, target, "2", report=Steps(quiet=True))
    assert found.unit == "s"
    assert list(found.heads) == [1, 2, 3, 4] and list(found.channels) == [32, 48]
    for costs in (found.heads, found.channels):
        assert list(costs.values()) == sorted(costs.values())
        assert costs[min(costs)] == 0
    assert 0 < found.total([4] * 3, [48] * 3) < 1
    ratio, (low, high) = latency_table.compare(encoder, encoder, target, "2")
    assert low <= ratio <= high and 0.2 < ratio < 5


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="openvno"):
        latency_table.check("openvno")
    encoder = load_encoder(Recipe(model=str(save_text_model(tmp_path / "model", "bert"))))
    for shape in ("corpus", "8y", "1x999"):
        with pytest.raises(RecipeError, match=f"shape '{shape}'"):
            latency_table.measure(encoder, "onnx", shape, report=Steps(quiet=True))


def test_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgessl import gpu

    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(False, "there is no driver"))
    with pytest.raises(Unsupported, match="there is no driver.*--flops"):
        latency_table.check("tensorrt-rtx")


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12))
def test_rising_values_are_the_nearest(values: list[float]) -> None:
    assert latency_table._rising(values) == pytest.approx(list(isotonic_regression(values)))

"""``edgessl inspect --sensitivity``: from a bundle as a user has it to the flags that help."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgessl import cli, sensitivity
from tests.bundles import Bundles


@pytest.fixture(scope="module")
def found(bundles: Bundles) -> dict[str, Any]:
    from edgessl.recipe import Recipe

    fp32 = bundles.get("bert", "onnx", "fp32").path
    recipe = Recipe(str(fp32), calibration=str(bundles.calibration["bert"]), samples=20)
    return sensitivity.measure(recipe)


def test_every_operator_and_block_is_ranked_by_what_the_vector_loses(found: dict[str, Any]) -> None:
    assert len(found["operators"]) == 2 * 6 and len(found["blocks"]) == 2
    for rows in (found["operators"], found["blocks"]):
        cosines = [row["cosine_mean"] for row in rows]
        assert cosines == sorted(cosines) and max(cosines) <= 1 + 1e-9
        assert all(row["cosine_min"] <= row["cosine_mean"] for row in rows)
    assert all(row["snr_db"] > 20 for row in found["operators"])
    worst = min(row["cosine_mean"] for row in found["operators"])
    assert found["curve"][0]["cosine_mean"] <= worst + 1e-4  # all of them lose what one does


def test_the_curve_names_the_worst_and_leaving_them_helps(found: dict[str, Any]) -> None:
    layers = [row["layer"] for row in found["operators"]]
    for row in found["curve"]:
        assert row["exclude"] == layers[: row["float"]]
    assert found["curve"][-1]["cosine_mean"] > found["curve"][0]["cosine_mean"]
    fix = sensitivity.halving(found["curve"])
    assert fix is not None
    assert 1 - fix["cosine_mean"] <= (1 - found["curve"][0]["cosine_mean"]) / 2
    text = sensitivity.render(found, False)
    assert f"--exclude {fix['exclude'][0]}" in text and "and 2 more: --layers" in text


def test_the_command(bundles: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    fp32, texts = bundles.get("bert", "onnx", "fp32").path, bundles.calibration["bert"]
    arguments = ["inspect", str(fp32), "--sensitivity", "-c", str(texts), "--samples", "5", "-q"]
    assert cli.run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "onnx"


def test_flags_and_bundles_that_make_no_sense(
    bundles: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    int8 = bundles.get("bert", "onnx", "int8").path
    assert cli.run(["inspect", str(int8), "--samples", "5"]) == 2
    assert "--samples is for --sensitivity" in capsys.readouterr().err
    assert cli.run(["inspect", str(int8), "--sensitivity", "-q"]) in (2, 3)
    assert "int8" in capsys.readouterr().err

"""OpenVINO IR: what is stored, in which precision it runs, and that it says what torch says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest

from edgessl import openvino_core
from edgessl.backend import Arrays, BuildPlan
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.errors import Unsupported
from edgessl.export import openvino_ir

Load = Callable[..., Encoder]
Write = Callable[..., Path]
IR = ("openvino_model.bin", "openvino_model.xml")


def build(onnx: Path, directory: Path, precision: str) -> dict[str, object]:
    directory.mkdir()
    return openvino_ir.build(onnx, directory, BuildPlan("openvino", precision, {}))


def infer(directory: Path, inputs: Arrays) -> Arrays:
    compiled = openvino_core.core("a test").compile_model(
        str(directory / IR[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return {port.any_name: array for port, array in compiled(inputs).items()}


@pytest.mark.parametrize(
    ("precision", "hint"), [("fp32", "f32"), ("fp16", "f16"), ("bf16", "bf16"), ("int8", "f32")]
)
def test_facts(write_tiny: Write, tmp_path: Path, precision: str, hint: str) -> None:
    waist = "fp32" if precision == "int8" else precision
    facts = build(write_tiny("bert", waist), tmp_path / "ir", precision)
    assert facts["inference_precision"] == hint
    assert str(facts["openvino"]) == openvino.get_version().partition("-")[0]
    assert sorted(path.name for path in (tmp_path / "ir").iterdir()) == sorted(IR)


def test_half_precision_halves_the_file(write_tiny: Write, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16", "bf16"):
        build(write_tiny("bert", precision), tmp_path / precision, precision)
        sizes[precision] = (tmp_path / precision / IR[0]).stat().st_size
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.05)
    assert sizes["bf16"] == pytest.approx(sizes["fp32"] / 2, rel=0.05)


@pytest.mark.parametrize("family", ["bert", "vit_mae"])
def test_fp32_ir_equals_torch(
    load_tiny: Load, write_tiny: Write, tmp_path: Path, family: str
) -> None:
    encoder = load_tiny(family, normalize=True, features=True)
    build(write_tiny(family, "fp32"), tmp_path / "ir", "fp32")
    rng = np.random.default_rng(0)
    for batch, sequence in ((1, 1), (3, 7)):
        pixels = rng.normal(size=(batch, 3, 16, 16)).astype(np.float32)
        chosen = np.stack([rng.permutation(16)[:9] for _ in range(batch)])
        inputs: Arrays = {"pixel_values": pixels, "patch_indices": chosen}
        if family == "bert":
            ids = rng.integers(2, 60, (batch, sequence))
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        actual = infer(tmp_path / "ir", inputs)
        expected = run.forward(encoder, inputs)
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            assert actual[name].dtype == np.float32
            np.testing.assert_allclose(actual[name], array, atol=2e-5)


def test_file_tells_nothing_of_this_machine(write_tiny: Write, tmp_path: Path) -> None:
    onnx = write_tiny("bert", "fp32")
    build(onnx, tmp_path / "ir", "fp32")
    for name in IR:
        content = (tmp_path / "ir" / name).read_bytes()
        for secret in (str(onnx.parent), str(tmp_path), openvino.__path__[0]):
            assert secret.encode() not in content


def test_what_openvino_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not an ONNX file")
    with pytest.raises(Unsupported, match=r"OpenVINO cannot read model\.onnx: .") as caught:
        build(tmp_path / "model.onnx", tmp_path / "ir", "fp32")
    assert "\n" not in str(caught.value)

"""int8 bundles on CPUs whose sums saturate: measured, then refused or run exactly."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import edgessl
from edgessl import bundle, isa, machine
from edgessl.errors import DeviceMismatch
from edgessl.runtimes import int8_probe, openvino_session, ort_session
from tests.bundles import sign

Bundle = Callable[..., Path]
TEXTS = ["bid", "a longer text", "three"]
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="no such kernels elsewhere")


def test_the_graph_is_what_its_comment_says() -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "t"], ["v"], axis=1),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    tensors = {
        "w": np.full((4, 4), 127, np.int8),
        "t": np.ones(4, np.float32),
        "s": np.float32(1),
        "z": np.uint8(0),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    assert onnx.load_from_string(int8_probe.GRAPH) == model


@pytest.mark.parametrize(("value", "saturated"), [(129540, False), (129536, False), (65534, True)])
def test_what_counts_as_saturated(value: int, saturated: bool) -> None:
    def run(_graph: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        assert (x == 255).all()
        return np.full((len(x), 4), value, np.float32)

    assert int8_probe.saturates(run) is saturated


@pytest.fixture
def full_range(built: Bundle, tmp_path: Path) -> Bundle:
    """A bundle whose manifest says int8 with weights of full range (its graph is fp32)."""

    def make(target: str) -> Path:
        path = tmp_path / target
        shutil.copytree(built("bert", target, features=True, normalize=True), path)
        manifest = bundle.read(path)
        facts = {**manifest.compatibility, "int8": isa.facts(isa.FULL)}
        sign(path, replace(manifest, precision="int8", compatibility=facts))
        return path

    return make


def without_vnni(monkeypatch: pytest.MonkeyPatch, saturates: bool | None) -> None:
    """A processor whose flags list no VNNI; what the probe finds, None: what it finds here."""
    monkeypatch.setattr(machine, "isa", lambda *_: {"avx2": True, "avx512_vnni": False})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    if saturates is not None:
        for module in (ort_session, openvino_session):
            monkeypatch.setattr(module, "saturates", lambda _run: saturates)


def test_openvino_refuses(full_range: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    path = full_range("openvino")
    without_vnni(monkeypatch, saturates=True)
    with pytest.raises(DeviceMismatch, match="no VNNI.*--target openvino .*--isa any"):
        edgessl.load(path)


def test_onnx_runs_exactly_and_says_so(
    full_range: Bundle, built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = full_range("onnx")
    with edgessl.load(built("bert", "onnx", features=True, normalize=True)) as session:
        expected = session.embed(TEXTS)
    without_vnni(monkeypatch, saturates=True)
    with edgessl.load(path) as session:
        assert "no VNNI" in session.describe()["int8"]
        np.testing.assert_allclose(session.embed(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_probe_that_finds_exact_sums_changes_nothing(
    full_range: Bundle, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    path = full_range(target)
    without_vnni(monkeypatch, saturates=False)
    with edgessl.load(path) as session:
        assert "int8" not in session.describe()


@pytest.mark.skipif(
    isa.arithmetic(isa.this_processor().flags, platform.machine()).kind != "exact",
    reason="this processor may saturate",
)
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_probe_of_each_runtime(
    full_range: Bundle, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    path = full_range(target)
    without_vnni(monkeypatch, saturates=None)
    with edgessl.load(path) as session:  # the flags lie, the runtime does not
        assert "int8" not in session.describe()


OPEN = """
import sys
import edgessl
from edgessl import errors, machine
machine.isa = lambda *_: {"avx2": True}
try:
    edgessl.load(sys.argv[1])
except errors.DeviceMismatch as err:
    print("refused:", err)
"""


@X86
def test_openvino_with_its_kernels_for_avx2(full_range: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(full_range("openvino"))],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused: this CPU (")

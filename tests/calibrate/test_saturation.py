"""The emulated kernels against sums in Python integers, and against oneDNN's own."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.calibrate import saturation
from edgessl.calibrate.int8_operators import Operator
from edgessl.calibrate.int8_plan import plan
from edgessl.machine import isa, read_text
from tests.qdq import ZERO_POINTS, Array, Graph, full_range, run, stored


def clipped_pairs(left: list[int], right: list[int]) -> tuple[int, int]:
    """vpmaddubsw and vpmaddwd over two vectors, and how many pairs saturated."""
    total = saturated = 0
    for k in range(0, len(left), 2):
        pair = sum(x * w for x, w in zip(left[k : k + 2], right[k : k + 2]))
        kept = max(-32768, min(32767, pair))
        total, saturated = total + kept, saturated + (kept != pair)
    return total, saturated


activations = st.one_of(st.sampled_from([0, 1, 128, 254, 255]), st.integers(0, 255))
weights = st.one_of(st.sampled_from([-128, -127, -64, 0, 64, 127]), st.integers(-128, 127))


@given(data=st.data(), m=st.integers(1, 3), k=st.integers(1, 9), n=st.integers(1, 4))
@settings(max_examples=120, deadline=None)
def test_pair_sums(data: st.DataObject, m: int, k: int, n: int) -> None:
    left = [data.draw(st.lists(activations, min_size=k, max_size=k)) for _ in range(m)]
    right = [data.draw(st.lists(weights, min_size=k, max_size=k)) for _ in range(n)]
    sums, saturated = saturation.pair_sums(
        np.array(left, np.uint8), np.array(right, np.int8).T.copy()
    )
    expected = [[clipped_pairs(x, w) for w in right] for x in left]
    assert sums.tolist() == [[total for total, _ in row] for row in expected]
    assert saturated == sum(count for row in expected for _, count in row)


def test_blocks_of_pairs_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(0, 256, (5, 64)).astype(np.uint8)
    right = rng.integers(-127, 128, (64, 7)).astype(np.int8)
    whole, count = saturation.pair_sums(left, right)
    monkeypatch.setattr(saturation, "_BLOCK", 15)  # 3 pairs at a time, columns cut in two
    parts, again = saturation.pair_sums(left, right)
    assert count == again > 0
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("zero", ZERO_POINTS, ids=str)
def test_a_matmul(zero: Any) -> None:
    matrix, x = full_range(7, 5), stored((2, 3, 7), zero)
    graph = Graph(x=["a", "b", 7])
    scales = graph.constant(np.arange(1, 6, dtype=np.float32))
    dequantized = graph.add("DequantizeLinear", graph.constant(matrix), scales, axis=1)
    model = graph.model(graph.add("MatMul", graph.quantize("x", 0.5, zero), dequantized))
    feed = {"x": (x.astype(np.float32) - int(zero)) * np.float32(0.5)}
    (found,) = saturation.emulate(model, [feed])[0].values()
    shift = 128 if zero.dtype == np.int8 else 0
    saturated = 0
    for i, j, n in itertools.product(range(2), range(3), range(5)):
        column = matrix[:, n].tolist()
        total, count = clipped_pairs((x[i, j].astype(int) + shift).tolist(), column)
        saturated += count
        assert found[i, j, n] == (total - (int(zero) + shift) * sum(column)) * 0.5 * (n + 1)
    assert saturated > 0
    (share,) = saturation.saturations(model, [feed, feed]).values()
    assert share == pytest.approx(saturated / (2 * 3 * 5 * 4))


CONVOLUTIONS = {  # channels in, out, kernel, groups, options
    "patches": (3, 4, (2, 2), 1, {"strides": [2, 2]}),
    "padded": (4, 6, (3, 3), 1, {"pads": [1, 0, 1, 2]}),
    "odd": (5, 4, (3,), 1, {"pads": [1, 1]}),
    "grouped": (6, 4, (3,), 2, {"dilations": [2]}),
    "depthwise": (8, 8, (7,), 8, {}),
    "multiplied": (4, 8, (7,), 4, {}),
    "audio": (1, 4, (10,), 1, {"strides": [5]}),
}


def convolution(name: str, zero: Any) -> tuple[Any, Array, Array]:
    """A model, its weights (N, C, kernel...) and input integers (n, C, ...)."""
    channels, outputs, kernel, groups, options = CONVOLUTIONS[name]
    matrix = full_range(outputs, channels // groups, *kernel)
    graph = Graph(x=["n", channels, *(f"d{i}" for i in range(len(kernel)))])
    sides = graph.quantize("x", 1.0, zero), graph.weights(matrix, axis=0)
    y = graph.add("Conv", *sides, kernel_shape=kernel, group=groups, **options)
    return (
        graph.model(y),
        matrix,
        stored((2, channels, *(17 - 5 * len(kernel),) * len(kernel)), zero),
    )


def conv_in_integers(name: str, matrix: Array, x: Array, zero: Any, target: str) -> Array:
    """Position by position, in the order in which the kernels walk; odd channels as each does."""
    channels, outputs, kernel, groups, options = CONVOLUTIONS[name]
    size, shift = len(kernel), 128 if zero.dtype == np.int8 else 0
    pads = options.get("pads", [0] * 2 * size)
    steps, dilations = options.get("strides", [1] * size), options.get("dilations", [1] * size)
    around = [(0, 0), (0, 0), *zip(pads[:size], pads[size:])]
    padded = np.pad(x.astype(int) + shift, around, constant_values=int(zero) + shift)
    shape = [
        (extent - (k - 1) * d - 1) // s + 1
        for extent, k, d, s in zip(padded.shape[2:], kernel, dilations, steps)
    ]
    found = np.zeros((len(x), outputs, *shape))
    each = channels // groups
    for n, out in itertools.product(range(len(x)), range(outputs)):
        first = out // (outputs // groups) * each
        for place in itertools.product(*map(range, shape)):
            left, right = [], []
            for inner in itertools.product(*map(range, kernel)):
                at = tuple(p * s + i * d for p, s, i, d in zip(place, steps, inner, dilations))
                left += [int(padded[(n, first + c, *at)]) for c in range(each)]
                right += [int(matrix[(out, c, *inner)]) for c in range(each)]
                if target == "openvino" and each % 2 and each > 1:
                    left.append(0)
                    right.append(0)
            total = clipped_pairs(left, right)[0]
            if each == 1 and groups == outputs:
                total = sum(a * b for a, b in zip(left, right))
            found[(n, out, *place)] = total - (int(zero) + shift) * sum(right)
    return found


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution(name: str, target: str) -> None:
    for zero in ZERO_POINTS[1:]:
        model, matrix, x = convolution(name, zero)
        (operator,) = (
            step for step in plan(model, "onnx", every=True) if isinstance(step, Operator)
        )
        values = {operator.activations: x}
        found, saturated, _ = saturation.compute(operator, values, target)
        np.testing.assert_array_equal(found, conv_in_integers(name, matrix, x, zero, target))
        assert (saturated == 0) == (name == "depthwise")


def test_exposed_is_the_share_of_pairs() -> None:
    matrix = np.array([[127, 64, -64, -127], [1, 64, -64, -2], [127, 64, -64, -127]], np.int8)
    graph = Graph(x=["m", 3])
    sides = graph.quantize("x", 1.0, np.uint8(0)), graph.weights(matrix, axis=1)
    # of 8 pairs 255 * (127 + 1) fits; 255 * -(127 + 2) does not
    assert list(saturation.exposed(graph.model(graph.add("MatMul", *sides))).values()) == [1 / 8]


def two_activations() -> tuple[Any, dict[str, Array]]:
    graph = Graph(x=["b", "h", "m", 9], y=["h", "n", 9])
    turned = graph.add("Transpose", graph.quantize("y", 0.5, np.int8(0)), perm=[0, 2, 1])
    model = graph.model(graph.add("MatMul", graph.quantize("x", 0.25, np.int8(0)), turned))
    x, y = stored((2, 3, 4, 9), np.int8(0)), stored((3, 5, 9), np.int8(0), seed=5)
    return model, {"x": x.astype(np.float32) / 4, "y": y.astype(np.float32) / 2}


def test_a_product_of_two_int8_activations() -> None:
    model, feed = two_activations()
    (found,) = saturation.emulate(model, [feed], "openvino")[0].values()
    saturated = 0
    for b, h, m, n in np.ndindex(2, 3, 4, 5):
        left = (feed["x"][b, h, m] * 4 + 128).astype(int).tolist()
        right = (feed["y"][h, n] * 2).astype(int).tolist()
        total, count = clipped_pairs(left, right)
        saturated += count
        assert found[b, h, m, n] == (total - 128 * sum(right)) / 8
    (share,) = saturation.saturations(model, [feed], "openvino").values()
    assert share == pytest.approx(saturated / (2 * 3 * 4 * 5 * 5)) and share > 0
    assert list(saturation.exposed(model, "openvino").values()) == [1.0]
    assert saturation.exposed(model) == {} == saturation.saturations(model, [feed])


ONEDNN = """
import sys
import numpy as np
import openvino
core = openvino.Core()
for name in sys.argv[2:]:
    model = core.read_model(f"{sys.argv[1]}/{name}.onnx")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    feed = np.load(f"{sys.argv[1]}/{name}.npz")
    np.save(f"{sys.argv[1]}/{name}.out.npy", compiled(dict(feed))[0])
"""


@pytest.mark.skipif(
    not isa(read_text(Path("/proc/cpuinfo")), platform.machine()).get("avx2"),
    reason="needs AVX2",
)
def test_onednn_without_vnni(tmp_path: Path) -> None:
    """OpenVINO's kernels for AVX2, which saturate on this processor, too: bit for bit."""
    expected = {}
    for zero, k in itertools.product(ZERO_POINTS, (7, 384)):
        graph = Graph(x=["m", k])
        sides = graph.quantize("x", 1.0, zero), graph.weights(full_range(k, 24), axis=1)
        name = f"matmul_{zero.dtype}_{zero}_{k}"
        expected[name] = graph.model(graph.add("MatMul", *sides)), stored((5, k), zero), zero
    for case in ("patches", "padded", "odd", "depthwise", "multiplied"):
        model, _, x = convolution(case, ZERO_POINTS[1])
        expected[case] = model, x, ZERO_POINTS[1]
    for name, (model, x, zero) in expected.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
        np.savez(tmp_path / f"{name}.npz", x=x.astype(np.float32) - int(zero))
    product, activations = two_activations()
    onnx.save(product, tmp_path / "product.onnx")
    np.savez(tmp_path / "product.npz", x=activations["x"], y=activations["y"])
    subprocess.run(
        [sys.executable, "-c", ONEDNN, str(tmp_path), *expected, "product"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        check=True,
    )
    for name, (model, x, zero) in expected.items():
        feed = {"x": x.astype(np.float32) - int(zero)}
        (found,) = saturation.emulate(model, [feed], "openvino")[0].values()
        np.testing.assert_array_equal(found, np.load(tmp_path / f"{name}.out.npy"), err_msg=name)
        assert (run(model, feed)[model.graph.output[0].name] == found).all() == (
            name == "depthwise"
        )
    (found,) = saturation.emulate(product, [activations], "openvino")[0].values()
    np.testing.assert_array_equal(found, np.load(tmp_path / "product.out.npy"))

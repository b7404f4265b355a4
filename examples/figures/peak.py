"""How much of this machine's matrix multiplication a bulk job uses.

The peak is measured, not read from a data sheet: large products of the runtime's own, on every
core at once. What a text needs is counted from the graph: two operations a weight of a linear
layer and token, and attention's two products; padding counts for nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import edgessl
from edgessl import cores
from examples.figures import report

SIZES = (1024, 2048)  # of square matrices
_PRECISIONS = {"int8": "f32", "bf16": "bf16"}  # and OpenVINO's hint
_CALLS = 6


def measure(bundles: Mapping[str, Path], texts: Sequence[str]) -> dict[str, Any]:
    """Operations a second of the machine, and of each bundle on *texts*, in one go; for JSON."""
    found: dict[str, Any] = {"peak": {}, "bulk": {}}
    for precision in _PRECISIONS:
        report.say(f"measuring the {precision} peak")
        found["peak"][precision] = max(_products(precision, size) for size in SIZES)
    for name, path in bundles.items():
        precision = name.rpartition(" ")[2]
        if precision not in _PRECISIONS:
            continue
        with edgessl.load(path, mode="throughput") as session:
            lengths = [len(ids) for ids in session.preprocessor.encode(texts)]
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            work = _operations(session.manifest.compute, config, lengths)
            session.embed(texts)
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                session.embed(texts)
                seconds.append(time.perf_counter() - began)
        again = max(_products(precision, size) for size in SIZES)  # the weather of this minute
        best = max(again, found["peak"][precision])
        rate = work / statistics.median(seconds)
        found["bulk"][name] = {"operations": rate, "peak": best, "share": rate / best}
    return found


def _operations(compute: Mapping[str, Any], config: Mapping[str, Any], lengths: Any) -> float:
    """Of texts of so many tokens; *compute* counts those of one text of a stated length."""
    counted = compute["at"]["input_ids"][1]
    squared = 4 * config["num_hidden_layers"] * config["hidden_size"]  # attention, a token pair
    linear = compute["flops"] / counted - squared * counted
    tokens = np.asarray(lengths, np.float64)
    return float((linear * tokens + squared * tokens**2).sum())


def _products(precision: str, size: int) -> float:
    """Operations a second of *size* x *size* products in OpenVINO, one a core at a time."""
    import openvino
    from openvino import opset13 as op

    rng = np.random.default_rng(0)
    x = op.parameter([size, size], np.float32)
    weights = op.constant(rng.normal(size=(size, size)).astype(np.float32))
    left, right = x, weights
    if precision == "int8":
        low, high = (op.constant(np.float32(bound)) for bound in (-4.0, 4.0))
        left = op.fake_quantize(x, low, high, low, high, 256)
        low, high = (op.constant(np.float32(bound)) for bound in (-4.0, 4.0))
        right = op.fake_quantize(weights, low, high, low, high, 255)
    model = openvino.Model([op.matmul(left, right, False, False)], [x])
    count = cores.plan("throughput").streams
    settings = {
        "NUM_STREAMS": count,
        "INFERENCE_NUM_THREADS": count,
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    given = rng.normal(size=(size, size)).astype(np.float32)
    requests = [compiled.create_infer_request() for _ in range(count)]

    def calls(request: Any) -> None:
        for _ in range(_CALLS):
            request.infer({0: given}, share_inputs=True)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(calls, requests))
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(calls, requests))
            seconds.append(time.perf_counter() - began)
    return float(2 * size**3 * count * _CALLS / min(seconds))


def render(found: Mapping[str, Any]) -> str:
    """A table of what ``measure`` returned."""
    rows = [
        [name, f"{run['operations'] / 1e9:.0f}", f"{run['peak'] / 1e9:.0f}", f"{run['share']:.2f}"]
        for name, run in found["bulk"].items()
    ]
    head = ("", "used, G/s", "measured peak, G/s", "share")
    return "### Operations of the texts' own tokens\n\n" + report.table(head, rows)

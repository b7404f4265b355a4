"""Is int8 worth it here? Its time against the best float precision's, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgessl import parity, target
from edgessl.backend import Arrays, Backend, BuildPlan, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.gate.latency import interleave, ratio
from edgessl.spec import EncoderSpec

_ROUNDS = 15
_VISIT = 0.02  # seconds that one visit should take at least
_LONGEST = 4.0  # seconds for one shape and precision
_FLOATS = ("fp32", "bf16")  # fp16 is storage on a CPU
_TIMED = ("int8", "int8-dynamic")
_NAMES = {
    "text": ("text", "texts"),
    "image": ("image", "images"),
    "audio": ("recording", "recordings"),
    "video": ("video", "videos"),
}


def times(row: target.Target, precision: str) -> bool:
    """Whether there is something to compare: int8 arithmetic, on a processor that is here."""
    return precision in _TIMED and not row.needs_gpu


def feeds(spec: EncoderSpec, reference: Sequence[parity.Batch]) -> dict[str, Arrays]:
    """The golden inputs that stand for one item and for several, by what they are called."""
    batches = [b for b in reference if len(b.items) == 1 and len(b.items[0])][:1]
    batches += [max(reference, key=lambda batch: len(batch.items))]
    return {f"{len(b.items)} {_NAMES[spec.task][len(b.items) > 1]}": b.inputs for b in batches}


def compare(
    row: target.Target,
    stage: Path,
    manifest: Manifest,
    fp32: Path,
    plan: BuildPlan,
    work: Path,
    feeds: Mapping[str, Arrays],
) -> list[dict[str, Any]]:
    """Time the quantized bundle in *stage* against *fp32* built for the same target, interleaved.

    Args:
        fp32: the encoder's fp32 ONNX. ``work``: an empty directory to build in.
        feeds: name of a shape, as a person would say it, to the graph's inputs.

    Returns:
        for each shape ``shape``, ``milliseconds`` (medians by precision, the quantized one last),
        ``against`` (the fastest float precision), ``ratio`` (the quantized one's time to its;
        below 1 is faster) and ``interval`` (95 %, bootstrap over rounds).
    """
    opener: Callable[..., Backend] = target.resolve(row.opener)
    opened: dict[str, Backend] = {}
    try:
        for precision in (p for p in _FLOATS if p in row.precisions):
            directory = work / precision
            directory.mkdir()
            float_plan = replace(plan, precision=precision)
            facts = target.resolve(row.builder)(fp32, directory, float_plan)
            described = replace(manifest, precision=precision, compatibility=facts)
            backend = opener(directory, described, RuntimeOptions(cache=False))
            ran = backend.describe().get("inference_precision")
            if precision != "fp32" and ran in (None, "f32"):
                backend.close()  # this processor has no such arithmetic
                continue
            opened[precision] = backend
        opened[manifest.precision] = opener(stage, manifest, RuntimeOptions(cache=False))
        return [_shape(name, feed, opened, manifest.precision) for name, feed in feeds.items()]
    finally:
        for backend in opened.values():
            backend.close()


def _shape(
    name: str, feed: Arrays, opened: Mapping[str, Backend], quantized: str
) -> dict[str, Any]:
    jobs = {key: _job(backend, feed) for key, backend in opened.items()}
    first = interleave(jobs, 2)
    slowest = max(min(samples) for samples in first.values())
    calls = max(1, round(_VISIT / slowest))
    rounds = max(5, min(_ROUNDS, int(_LONGEST / (slowest * calls))))
    samples = interleave(jobs, rounds, calls)
    middle = {key: median(values) for key, values in samples.items()}
    against = min((key for key in middle if key != quantized), key=lambda key: middle[key])
    by_round = {key: np.reshape(values, (-1, calls)).tolist() for key, values in samples.items()}
    found, (low, high) = ratio(by_round[quantized], by_round[against])
    return {
        "shape": name,
        "milliseconds": {key: round(value * 1e3, 3) for key, value in middle.items()},
        "against": against,
        "ratio": round(found, 3),
        "interval": [round(low, 3), round(high, 3)],
    }


def _job(backend: Backend, feed: Arrays) -> Callable[[], object]:
    return lambda: backend.run(feed)


def lines(found: Sequence[Mapping[str, Any]], precision: str) -> list[str]:
    """What a person reads, a line a shape; the last warns where nothing is gained."""
    said = []
    for entry in found:
        times, against = entry["milliseconds"], entry["against"]
        low, high = entry["interval"]
        said.append(
            f"{entry['shape']}: {times[precision]:.2f} ms, {entry['ratio']:.2f} of "
            f"{against}'s {times[against]:.2f} ms ({low:.2f} to {high:.2f})"
        )
    if found and all(entry["interval"][1] >= 1 for entry in found):
        against = found[0]["against"]
        said.append(
            f"{precision} is not faster than {against} on this machine: {against} would say the "
            "same more exactly, in a larger file"
        )
    return said

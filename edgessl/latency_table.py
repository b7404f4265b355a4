"""Latency by the size of layers, measured on a target's own runtime, on this machine."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgessl import checkpoint_session, gpu, target
from edgessl.backend import Arrays, Backend, BuildPlan, RuntimeOptions
from edgessl.encoder import Encoder
from edgessl.errors import RecipeError, Unsupported, require
from edgessl.gate.latency import interleave, ratio
from edgessl.progress import Steps

if TYPE_CHECKING:
    from edgessl.compress.costs import Costs

# Sizes that are measured, all and the fewest among them: between them latency is nearly a line.
_HEADS, _CHANNELS = 3, 4
_VISIT, _FEWEST = 0.03, 5  # seconds and calls that one visit has at least
_VISITS = 3  # of which the best call counts
# A measurement ends when its 95 % interval is so narrow, relative, or after so many seconds: of one
# size, and of what is reported.
_SIZE, _RESULT = (0.03, 9.0), (0.02, 20.0)
# After a run the threads of ONNX Runtime look for work for 60 ms, on the cores of whoever is next.
_REST = 0.08


def check(name: str) -> None:
    """Whether latency can be measured here on the target *name*.

    Raises:
        RecipeError: there is no such target.
        Unsupported: it needs a GPU, and here is none that can be used.
        MissingDependency: its runtime is not installed.
    """
    row = target.get(name)
    if row.needs_gpu and not (found := gpu.probe()).usable:
        able = "|".join(key for key, other in target.TARGETS.items() if not other.needs_gpu)
        raise Unsupported(
            f"--latency --target {name} is measured on a GPU, and here {found.reason}. Measure on "
            f"--target {able}, or ask for --flops, which needs no measuring."
        )
    for module in (*row.modules, *row.build_modules):
        require(module, row.extra, f"measuring on {name}")


def measure(encoder: Encoder, name: str, shape: str, *, report: Steps) -> Costs:
    """Seconds of a layer by the heads and the channels that it keeps.

    The encoder is built with all layers of one size, one size after the other, and timed interleaved
    with the whole one. What a size saves is shared out among the layers; between the measured
    sizes it is interpolated, and a smaller layer never costs more. A part's cost is what it takes
    beyond that of the fewest heads or channels, which is in ``fixed``.

    Args:
        name: of a target. shape: as ``edgessl bench`` has them; "" is the usual one.

    Raises:
        RecipeError: a shape that this encoder does not take.
        Unsupported: an encoder that cannot be exported, or has no heads and channels that edgessl
            knows; and as ``check``.
    """
    from edgessl.compress import costs
    from edgessl.encoders import structures

    check(name)
    feed = _feed(encoder, shape)
    layers = structures.of(encoder)
    heads, channels = costs.sizes(layers[0])
    some_heads, some_channels = _some(heads, _HEADS), _some(channels, _CHANNELS)
    tried = [(count, channels[-1]) for count in some_heads[:-1]]
    tried += [(heads[-1], count) for count in some_channels[:-1]]
    shares, seconds = [], []
    report.count(0, len(tried), "sizes")
    with _opened(encoder, name, feed) as whole:
        for done, size in enumerate(tried, 1):
            with _opened(_shrunk(encoder, *size), name, feed) as small:
                best = _best(small, whole, feed, *_SIZE)
            shares.append(ratio(*best)[0])
            seconds += best[1]
            report.count(done, len(tried), "sizes")
    each = float(np.median(seconds)) / len(layers)
    parts = len(some_heads) - 1
    by_heads = _by_size(heads, some_heads, [*shares[:parts], 1.0], each)
    by_channels = _by_size(channels, some_channels, [*shares[parts:], 1.0], each)
    fixed = len(layers) * (each - by_heads[heads[-1]] - by_channels[channels[-1]])
    return costs.Costs("s", fixed, by_heads, by_channels)


def compare(
    before: Encoder, after: Encoder, name: str, shape: str
) -> tuple[float, tuple[float, float]]:
    """Time of *after* by that of *before*, and its 95 % interval; raises as ``measure``."""
    check(name)
    feed = _feed(before, shape)
    with _opened(before, name, feed) as whole, _opened(after, name, feed) as small:
        return ratio(*_best(small, whole, feed, *_RESULT))


def _some(sizes: Sequence[int], count: int) -> list[int]:
    """At most *count* of *sizes*, evenly: the first and the last are among them."""
    places = np.linspace(0, len(sizes) - 1, count).round().astype(int)
    return [sizes[place] for place in np.unique(places)]


def _by_size(
    sizes: Sequence[int], measured: Sequence[int], shares: Sequence[float], whole: float
) -> dict[int, float]:
    """Cost of each of *sizes* beyond the first one's, in the unit of *whole*.

    Args:
        shares: of the time of the whole, for each of the *measured* sizes; the last one's is 1.
    """
    rising = np.array(_rising([min(share, 1.0) for share in shares]))
    found = np.interp(sizes, measured, (rising - rising[0]) * whole)
    return {size: float(cost) for size, cost in zip(sizes, found, strict=True)}


def _rising(values: Sequence[float]) -> list[float]:
    """The values nearest to these that never fall: pool adjacent violators (Ayer et al., 1955)."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [float(np.mean(pool)) for pool in pools for _ in pool]


def _shrunk(encoder: Encoder, heads: int, channels: int) -> Encoder:
    from edgessl.encoders import structures
    from edgessl.encoders.shrink import shrink

    small = replace(encoder, module=copy.deepcopy(encoder.module))
    for layer in structures.of(small):
        shrink(layer, range(heads), range(channels))
    return small


def _feed(encoder: Encoder, shape: str) -> Arrays:
    """Inputs of one query: ones, on whose values no time depends."""
    from edgessl.gate.measuring import workload
    from edgessl.spec import TextSpec

    spec = encoder.spec
    longest = spec.preprocessing.max_length if isinstance(spec.preprocessing, TextSpec) else None
    usual = workload.usual("single-stream", spec.task, None)
    asked = workload.parse(shape or usual, spec.task, longest)
    if not asked.items:
        raise RecipeError(f"shape {shape!r}: sizes are measured at one shape, such as {usual}.")
    sizes = {name: axis.usual for name, axis in spec.axes.items()} | {"batch": asked.items}
    if asked.tokens:
        sizes["sequence"] = asked.tokens
    return {
        one.name: np.ones([sizes[n] if isinstance(n, str) else n for n in one.shape], one.dtype)
        for one in spec.inputs
    }


@contextmanager
def _opened(encoder: Encoder, name: str, feed: Arrays) -> Iterator[Backend]:
    """*encoder* as its fp32 bundle for the target *name* would be opened here."""
    from edgessl.export import onnx_writer

    row = target.get(name)
    profiles = {key: (array.shape, array.shape, array.shape) for key, array in feed.items()}
    # Where a file that is still mapped cannot be removed, the system does it later.
    with tempfile.TemporaryDirectory(prefix="edgessl-", ignore_cleanup_errors=True) as folder:
        directory, onnx = Path(folder), Path(folder) / "fp32.onnx"
        onnx_writer.write(encoder, onnx)
        facts = target.resolve(row.builder)(onnx, directory, BuildPlan(name, "fp32", profiles))
        described = checkpoint_session.manifest(encoder)
        manifest = replace(described, target=name, compatibility=facts)
        backend: Backend = target.resolve(row.opener)(
            directory, manifest, RuntimeOptions(cache=False)
        )
        try:
            yield backend
        finally:
            backend.close()


def _best(
    small: Backend, whole: Backend, feed: Arrays, close: float, longest: float
) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of the best call of some visits, again and again, of both. The best: whatever else
    this machine does only ever adds to it, and on busy cores it doubles most calls."""
    jobs = {"small": lambda: small.run(feed), "whole": lambda: whole.run(feed)}
    best: dict[str, list[list[float]]] = {key: [] for key in jobs}
    slowest = max(min(samples) for samples in interleave(jobs, 1, _FEWEST, rest=_REST).values())
    calls = max(_FEWEST, round(_VISIT / slowest))
    ends = time.monotonic() + longest
    while True:
        for key, samples in interleave(jobs, _VISITS, calls, rest=_REST).items():
            best[key].append([min(samples)])
        found, (low, high) = ratio(best["small"], best["whole"])
        enough = len(best["small"]) >= _FEWEST and high - low < close * found
        if enough or time.monotonic() > ends:
            return best["small"], best["whole"]

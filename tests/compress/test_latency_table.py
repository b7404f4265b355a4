"""Tables of latency: what is measured of an encoder's sizes, and what is made of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl import gpu, latency_table
from edgessl.encoder import Encoder
from edgessl.encoders import structures
from edgessl.errors import RecipeError, Unsupported
from edgessl.gate import latency
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from tests.builders import save_text_model

Samples = dict[str, list[float]]
# Of an encoder whose seconds are known: 10, and for each layer 1 a head and 1/16 a channel.
FIXED, HEAD, CHANNEL = 10.0, 1.0, 1 / 16


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("model")
    return load_encoder(
        Recipe(model=str(save_text_model(directory, "bert", intermediate_size=160)))
    )


def seconds_of(encoder: Encoder) -> float:
    layers = structures.of(encoder)
    return FIXED + sum(HEAD * layer.heads + CHANNEL * layer.channels for layer in layers)


class Known:
    """A backend whose time is that of its encoder's sizes; ``open`` counts how many there are."""

    now = 0.0
    open = most_open = 0

    def __init__(self, encoder: Encoder) -> None:
        self.seconds = seconds_of(encoder)
        Known.open += 1
        Known.most_open = max(Known.most_open, Known.open)

    def run(self, inputs: object) -> None:
        Known.now += self.seconds

    def close(self) -> None:
        Known.open -= 1


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing without a machine: of each visit one call is right, the others were disturbed."""
    import contextlib

    @contextlib.contextmanager
    def opened(encoder: Encoder, name: str, feed: object) -> Iterator[Known]:
        backend = Known(encoder)
        try:
            yield backend
        finally:
            backend.close()

    def interleave(
        jobs: dict[str, Callable[[], object]], rounds: int, calls: int, rest: float
    ) -> Samples:
        found: Samples = {}
        for name, job in jobs.items():
            before = Known.now
            job()
            taken = Known.now - before
            found[name] = [taken * (1 if n % calls == 1 else 7) for n in range(rounds * calls)]
        return found

    monkeypatch.setattr(latency_table, "_opened", opened)
    monkeypatch.setattr(latency_table, "interleave", interleave)
    Known.open = Known.most_open = 0


def test_costs_are_what_each_size_takes(encoder: Encoder, known: None) -> None:
    costs = latency_table.measure(encoder, "onnx", "1x8", report=Steps(quiet=True))
    assert costs.unit == "s"
    assert list(costs.heads) == [1, 2, 3, 4]
    assert list(costs.channels) == [32, 64, 96, 128, 160]
    assert costs.total([4, 4], [160, 160]) == pytest.approx(seconds_of(encoder))
    # sizes that were not measured, and layers that are not alike
    wanted = FIXED + HEAD * (2 + 3) + CHANNEL * (64 + 128)
    assert costs.total([2, 3], [64, 128]) == pytest.approx(wanted)
    assert Known.most_open == 2 and Known.open == 0  # memory for two, however many sizes


def test_two_encoders_are_compared(encoder: Encoder, known: None) -> None:
    small = latency_table._shrunk(encoder, 1, 32)
    assert seconds_of(encoder) == FIXED + 2 * (4 + 10)  # which is as it was
    found, (low, high) = latency_table.compare(encoder, small, "openvino", "1x8")
    assert found == low == high == pytest.approx(seconds_of(small) / seconds_of(encoder))


def test_the_real_runtimes_run_what_was_shrunk(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No times here, which are this machine's, but the vectors of what would be timed."""
    from edgessl.encoders import run

    small = latency_table._shrunk(encoder, 3, 96)
    feed = latency_table._feed(encoder, "3x8")
    assert {array.shape for array in feed.values()} == {(3, 8)}
    (expected,) = run.forward(small, feed).values()
    for name in ("onnx", "openvino"):
        with latency_table._opened(small, name, feed) as backend:
            (vectors,) = backend.run(feed).values()
        np.testing.assert_allclose(vectors, expected, atol=1e-4)


def test_a_measurement_ends_when_it_is_known_or_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for noise, rounds in (([1.0], 5), ([1.0, 1.5, 0.7], 12)):
        weather = itertools.cycle(noise)
        clock = itertools.count()

        def interleave(
            jobs: object, rounds: int, calls: int, rest: float, w: Iterator[float] = weather
        ) -> Samples:
            return {"small": [next(w)] * rounds * calls, "whole": [2.0] * rounds * calls}

        monkeypatch.setattr(latency_table, "interleave", interleave)
        monkeypatch.setattr(time, "monotonic", lambda c=clock: float(next(c)))
        backend = object.__new__(Known)
        small, whole = latency_table._best(backend, backend, {}, 0.03, 11.0)  # type: ignore[arg-type]
        assert len(small) == len(whole) == rounds


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 2.0), min_size=1, max_size=8))
def test_what_is_made_to_rise_does_and_is_the_nearest(values: list[float]) -> None:
    from sklearn.isotonic import isotonic_regression

    np.testing.assert_allclose(latency_table._rising(values), isotonic_regression(values))


@settings(deadline=None)
@given(st.data())
def test_a_smaller_layer_never_costs_more(data: st.DataObject) -> None:
    sizes = sorted(data.draw(st.sets(st.integers(1, 4096), min_size=2, max_size=40)))
    measured = latency_table._some(sizes, data.draw(st.integers(2, 6)))
    assert measured[0] == sizes[0] and measured[-1] == sizes[-1] and set(measured) <= set(sizes)
    shares = [*data.draw(st.lists(st.floats(0.05, 1.5), min_size=5, max_size=5)), 1.0]
    costs = latency_table._by_size(sizes, measured, shares[-len(measured) :], 2.0)
    assert list(costs) == sizes
    assert costs[sizes[0]] == 0.0
    assert all(one <= other for one, other in itertools.pairwise(costs.values()))
    assert max(costs.values()) <= 2.0


@pytest.mark.parametrize(("sizes", "some"), [([7], [7]), ([1, 2], [1, 2]), ([*range(1, 13)], None)])
def test_few_sizes_are_measured(sizes: Sequence[int], some: list[int] | None) -> None:
    assert latency_table._some(sizes, 3) == (some or [1, 7, 12])


def test_a_target_that_cannot_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(False, "the NVIDIA driver is gone"))
    for name in ("tensorrt", "tensorrt-rtx"):
        wanted = f"--target {name} .* the NVIDIA driver is gone.* --target onnx|openvino.*--flops"
        with pytest.raises(Unsupported, match=wanted) as raised:
            latency_table.check(name)
        assert "\n" not in str(raised.value)
    with pytest.raises(RecipeError, match="Did you mean 'openvino'"):
        latency_table.check("openvin")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("corpus", "one shape, such as 1x32"),
        ("1x25", "at most 24 tokens"),
        ("8by16", "neither BxL"),
    ],
)
def test_shapes_that_cannot_be_measured(encoder: Encoder, shape: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        latency_table.measure(encoder, "onnx", shape, report=Steps(quiet=True))


def test_a_rest_comes_before_each_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: done.append(f"rest {seconds}"))
    jobs = {name: lambda name=name: done.append(name) for name in "ab"}
    latency.interleave(jobs, 1, calls=2, warm_up=0, rest=0.5)
    assert done == ["rest 0.5", "a", "a", "rest 0.5", "b", "b"]

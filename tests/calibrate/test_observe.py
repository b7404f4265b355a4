"""Statistics of activations: exact where they should be, without padding, in one pass."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgessl.backend import Arrays
from edgessl.calibrate import observe
from edgessl.calibrate.observe import Data, Statistics
from edgessl.errors import Unsupported
from tests.float_graphs import Floats, Net, data, run, tokens

WIDTH = 6
LAYERS = {"double": "encoder.layer.0.dense"}


def doubling() -> Any:
    """``double`` is 2 x, row for row."""
    net = Net(WIDTH)
    net.add("Mul", "x", net.constant(np.float32(2)), output="double")
    net.pool("double")
    return net.model("sentence_embedding")


def statistics(given: Data, kind: str = "gram", **options: Any) -> Statistics:
    tensors = {"x": "rows", "double": kind}
    return observe.observe(doubling(), given, tensors, layers=LAYERS, **options)


def arrays(found: Statistics) -> dict[str, Any]:
    return {
        f"{name} {part}": np.asarray(value)
        for name, seen in found.tensors.items()
        for part, value in vars(seen).items()
    }


def assert_same(left: Statistics, right: Statistics) -> None:
    assert left.batches == right.batches and arrays(left).keys() == arrays(right).keys()
    for name, values in arrays(left).items():
        np.testing.assert_array_equal(values, arrays(right)[name], err_msg=name)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_padding_enters_nothing(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(observe._BATCH_ITEMS, "text", batch)
    items = tokens(30, WIDTH, seed=1)
    rows = 2 * np.concatenate(items)
    assert len(rows) < observe.ROWS
    seen = statistics(data(items, garbage=3e30)).tensors["double"]
    np.testing.assert_array_equal(seen.low, rows.min(axis=0))
    np.testing.assert_array_equal(seen.high, rows.max(axis=0))
    np.testing.assert_array_equal(np.sort(seen.rows, axis=0), np.sort(rows, axis=0))
    assert seen.gram is not None and seen.total is not None and seen.counted == len(rows)
    np.testing.assert_allclose(seen.gram, rows.T.astype(float) @ rows, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(seen.total, rows.sum(axis=0, dtype=float), rtol=1e-4, atol=1e-3)


def numbered(count: int, length: int) -> list[Floats]:
    """Rows that carry their own number in channel 0."""
    numbers = np.arange(count * length, dtype=np.float32).reshape(count, length, 1)
    return list(np.repeat(numbers, WIDTH, axis=2))


def test_the_sample_is_uniform_and_the_same_rows_everywhere() -> None:
    items = numbered(400, 50)
    seen = statistics(data(items)).tensors
    kept = seen["x"].rows[:, 0]
    assert len(set(kept.tolist())) == observe.ROWS
    np.testing.assert_array_equal(seen["double"].rows, 2 * seen["x"].rows)
    expected = (np.arange(observe.ROWS) + 0.5) / observe.ROWS
    distance = np.abs(np.sort(kept) / (400 * 50) - expected).max()
    assert distance < 1.63 / observe.ROWS**0.5  # Kolmogorov and Smirnov's, 1 %


def test_rows_that_enter_the_products_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "GRAM_ROWS", 1000)
    seen = statistics(data(numbered(400, 50))).tensors["double"]
    assert seen.gram is not None and 1000 <= seen.counted < 1100
    # Of numbers up to 2 n the mean square is (2 n)**2 / 3.
    assert seen.gram[0, 0] / seen.counted == pytest.approx(4 * 20_000**2 / 3, rel=0.1)


def test_memory_does_not_grow_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(observe._BATCH_ITEMS, "text", 4)
    sizes, peaks = [], []
    for count in (40, 400):
        given = data(numbered(count, 50))
        tracemalloc.start()
        found = statistics(given)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(sum(values.nbytes for values in arrays(found).values()))
    assert sizes[0] == sizes[1]
    assert peaks[1] < 1.2 * peaks[0]


def test_planes_of_a_convolution() -> None:
    net = Net(4, image=True)
    net.add("Mul", "x", net.constant(np.float32(1)), output="image_embedding")
    images = [np.full((4, 8, 8), number, np.float32) for number in range(5)]
    for image in images:
        image[2] = -7
    model = net.model("image_embedding")
    seen = observe.observe(model, data(images), {"x": "planes"}, layers={}).tensors["x"]
    np.testing.assert_array_equal(seen.low, [0, 0, -7, 0])
    np.testing.assert_array_equal(seen.high, [4, 4, -7, 4])
    assert seen.rows.shape == (5 * 64, 4) and seen.gram is None


def test_batches_stay_within_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given, sizes = data(numbered(40, 50)), []

    def prepare(batch: list[Any]) -> Arrays:
        sizes.append(len(batch))
        return given.prepare(batch)

    one = 2 * 50 * WIDTH * 4  # bytes of an item's activations
    monkeypatch.setattr(observe, "BATCH_BYTES", 3 * one + 1)
    statistics(Data(given.items, prepare, given.spec))
    assert sizes == [1, *[3] * 13, 1]


def test_activations_that_are_not_finite() -> None:
    items = tokens(5, WIDTH)
    fine = statistics(data(items, garbage=np.nan)).tensors["double"]
    assert np.isfinite(fine.rows).all() and np.isfinite(fine.gram).all()  # type: ignore[arg-type]
    items[3][1, 2] = np.nan
    with pytest.raises(Unsupported, match=r"activations of encoder\.layer\.0\.dense are not fin"):
        observe.observe(doubling(), data(items), {"double": "gram"}, layers=LAYERS)


def test_a_graph_that_onnxruntime_does_not_take() -> None:
    model = doubling()
    with pytest.raises(Unsupported, match="ONNX Runtime cannot open this encoder: .*none"):
        observe.observe(model, data(tokens(2, WIDTH)), {"none": "rows"}, layers={})
    with pytest.raises(Unsupported, match="ONNX Runtime cannot run this encoder: ") as caught:
        observe.observe(model, data(tokens(2, WIDTH + 1)), {"double": "rows"}, layers={})
    assert "\n" not in str(caught.value)


class Stopped(BaseException):
    pass


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_SAVE_EVERY", -1e9)
    monkeypatch.setitem(observe._BATCH_ITEMS, "text", 4)


def interrupt(given: Data, path: Path, after: int) -> None:
    def progress(done: int, total: int) -> None:
        assert total == 30
        if done > after:
            raise Stopped

    with pytest.raises(Stopped):
        statistics(given, resume=(path, "key"), progress=progress)
    assert path.is_file()


def test_goes_on_after_a_stop(saving: None, tmp_path: Path) -> None:
    given, path = data(tokens(30, WIDTH)), tmp_path / "statistics.npz"
    whole = statistics(given)
    interrupt(given, path, after=12)
    assert [p.name for p in tmp_path.iterdir()] == ["statistics.npz"]
    done: list[int] = []
    resumed = statistics(given, resume=(path, "key"), progress=lambda now, _total: done.append(now))
    assert done == [16, 20, 24, 28, 30]
    assert_same(resumed, whole)
    # All of it is kept, until the caller has made use of it.
    assert_same(Statistics.resume(path, "key"), whole)
    assert_same(statistics(given, resume=(path, "key")), whole)


def test_a_stop_before_anything_was_saved(tmp_path: Path) -> None:
    given, path = data(tokens(30, WIDTH)), tmp_path / "statistics.npz"
    assert_same(statistics(given, resume=(path, "key")), statistics(given))
    assert not list(tmp_path.iterdir())


def test_statistics_of_something_else_are_not_taken(saving: None, tmp_path: Path) -> None:
    given, path = data(tokens(30, WIDTH)), tmp_path / "statistics.npz"
    interrupt(given, path, after=12)
    assert Statistics.resume(path, "key").batches == 3
    assert Statistics.resume(path, "another").batches == 0
    assert_same(statistics(given, resume=(path, "another")), statistics(given))


def test_damaged_statistics_are_not_taken(saving: None, tmp_path: Path) -> None:
    given, path = data(tokens(30, WIDTH)), tmp_path / "statistics.npz"
    interrupt(given, path, after=12)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(sound), 60):
        path.write_bytes(sound[:place])
        assert Statistics.resume(path, "key") == Statistics()
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x5A]) + sound[place + 1 :])
        assert Statistics.resume(path, "key") == Statistics()
    path.write_bytes(sound)
    assert Statistics.resume(path, "key").tensors.keys() == {"x", "double"}


def test_feeds_are_spread_over_the_items() -> None:
    given = data(numbered(100, 3))
    seen: npt.NDArray[Any] = np.concatenate([feed["x"][:, 0, 0] for feed in given.feeds(10)]) / 3
    np.testing.assert_array_equal(np.sort(seen), np.arange(0, 100, 10))
    assert sum(len(feed["x"]) for feed in data(numbered(7, 3)).feeds(10)) == 7


def test_the_graph_itself_is_left_alone() -> None:
    model = doubling()
    before = model.SerializeToString()
    observe.observe(model, data(tokens(3, WIDTH)), {"double": "rows"}, layers={})
    assert model.SerializeToString() == before
    assert len(run(model, data(tokens(3, WIDTH)).prepare(tokens(3, WIDTH)))) == 1

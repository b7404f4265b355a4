"""Sessions: vectors in the order of the items, nothing lost in batching, clear refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import edgessl
from edgessl import bundle
from edgessl.backend import Arrays
from edgessl.errors import BundleError, DeviceMismatch, RecipeError, Unsupported
from edgessl.runtimes.batches import BATCH_ITEMS
from edgessl.runtimes.openvino_session import arithmetic
from edgessl.runtimes.session import Session
from tests.builders import POSITIONS, random_texts

Bundle = Callable[..., Path]
TARGETS = ("onnx", "openvino")
TEXTS = random_texts(75, seed=11)


@pytest.fixture(scope="module", params=TARGETS)
def text_path(request: pytest.FixtureRequest, built: Bundle) -> Path:
    return built("bert", request.param, features=True, normalize=True)


@pytest.fixture(scope="module")
def onnx_path(built: Bundle) -> Path:
    return built("bert", "onnx", features=True, normalize=True)


def pictures(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


class Fake:
    """A backend that embeds a text as the sum of its real ids, and notes what it was given."""

    streams = 1

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.closed = False

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        ids, mask = np.asarray(inputs["input_ids"]), np.asarray(inputs["attention_mask"])
        self.shapes.append(ids.shape)
        features = np.repeat(ids[..., None], 32, axis=2).astype(np.float32)
        vector = (features * mask[..., None]).sum(axis=1)
        return {"sentence_embedding": vector, "last_hidden_state": features}

    def describe(self) -> dict[str, Any]:
        return {"runtime": "fake"}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake(onnx_path: Path) -> tuple[Session, Fake]:
    with edgessl.load(onnx_path) as real:
        backend = Fake()
        return Session(real.manifest, backend, real.preprocessor), backend


def test_embedding_many_equals_embedding_one_by_one(text_path: Path) -> None:
    with edgessl.load(text_path) as session:
        together = session.embed(TEXTS)
        assert together.shape == (75, 32)
        assert together.dtype == np.float32
        alone = np.concatenate([session.embed([text]) for text in TEXTS])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        shuffled = np.random.default_rng(0).permutation(len(TEXTS))
        again = session.embed(tuple(TEXTS[i] for i in shuffled))
        np.testing.assert_allclose(again, together[shuffled], atol=1e-5)
    assert len(np.unique(together.round(3), axis=0)) > 70


def test_images_in_order(built: Bundle) -> None:
    images = pictures(40)
    for target in TARGETS:
        with edgessl.load(built("vit_mae", target)) as session:
            together = session.embed(images)
            assert together.shape == (40, 32)
            alone = np.concatenate([session.embed([image]) for image in images])
            np.testing.assert_allclose(together, alone, atol=1e-5)
            np.testing.assert_array_equal(together, session.embed(list(images)))
            assert session.embed([]).shape == session.embed(images[:0]).shape == (0, 32)


def test_features_are_without_padding(text_path: Path) -> None:
    texts = ["a", "abc def", "", "a b c d e f"]
    with edgessl.load(text_path) as session:
        features = session.features(texts)
        assert [array.shape for array in features] == [(3, 32), (8, 32), (2, 32), (8, 32)]
        for text, array in zip(texts, features, strict=True):
            np.testing.assert_allclose(array, session.features([text])[0], atol=1e-5)
        means = np.array([array.mean(axis=0) for array in features])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        np.testing.assert_allclose(session.embed(texts), means, atol=1e-5)
        assert session.features([]) == []


def test_batches_seen_by_the_backend(fake: tuple[Session, Fake]) -> None:
    session, backend = fake
    texts = ["a" * length for length in range(1, 21)] * 5
    vectors = session.embed(texts)
    assert sum(rows for rows, _ in backend.shapes) == len(texts)
    assert all(rows <= BATCH_ITEMS for rows, _ in backend.shapes)
    widths = [width for _, width in backend.shapes]
    assert widths == sorted(widths, reverse=True)
    expected = [float(session.prepare([text])["input_ids"].sum()) for text in texts]
    np.testing.assert_array_equal(vectors, np.repeat(np.array(expected)[:, None], 32, axis=1))


def test_a_session_closes_its_backend(fake: tuple[Session, Fake]) -> None:
    session, backend = fake
    with session as entered:
        assert entered is session
        assert session.describe() == {"runtime": "fake"}
        assert session.variant == session.manifest.variant
    assert backend.closed


def test_no_items(text_path: Path) -> None:
    with edgessl.load(text_path) as session:
        vectors = session.embed([])
        assert vectors.shape == (0, 32)
        assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    "items", ["one text", b"bytes", Path("a.png"), 3, None, (t for t in ["a"]), {"a": 1}, {"a"}]
)
def test_what_is_no_list(fake: tuple[Session, Fake], items: Any) -> None:
    for method in (fake[0].embed, fake[0].features):
        with pytest.raises(RecipeError, match=r"takes a list: embed\(\[item\]\)"):
            method(items)


@pytest.mark.parametrize("item", [3, None, b"bytes", ["nested"]])
def test_an_item_that_is_no_text(fake: tuple[Session, Fake], item: Any) -> None:
    with pytest.raises(RecipeError, match="text 1 is"):
        fake[0].embed(["fine", item])


def test_one_image_is_no_list(built: Bundle) -> None:
    with edgessl.load(built("vit_mae", "onnx")) as session:
        with pytest.raises(RecipeError):
            session.embed(pictures(1)[0])
        with pytest.raises(RecipeError, match="image 33"):
            session.embed([*pictures(33), "no such file.png"])


def test_no_pooling_no_features(built: Bundle) -> None:
    with edgessl.load(built("bert", "onnx", pooling="none")) as session:
        with pytest.raises(Unsupported, match=r"no pooling.*session\.features"):
            session.embed(["a"])
        assert session.features(["a"])[0].shape == (3, 32)
    with edgessl.load(built("vit_mae", "onnx")) as session:
        with pytest.raises(Unsupported, match="export with --features"):
            session.features(pictures(1))


IDS = np.full((2, 4), 5)
LONG = np.ones((1, POSITIONS + 1), np.int64)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": IDS}, r"inputs are \['input_ids'\], this bundle takes \['attention_mask'"),
        ({"input_ids": IDS, "attention_mask": IDS, "token_type_ids": IDS}, "token_type_ids"),
        ({"input_ids": IDS.astype(np.int32), "attention_mask": IDS}, "input_ids is int32"),
        ({"input_ids": IDS, "attention_mask": IDS[0]}, r"attention_mask is int64 \(4,\)"),
        ({"input_ids": IDS, "attention_mask": IDS[:, :3]}, "sequence: attention_mask has 3.* 4"),
        ({"input_ids": IDS[:1], "attention_mask": IDS}, "batch: attention_mask has 2.* 1"),
        ({"input_ids": LONG, "attention_mask": LONG}, "have 25 tokens a text.* at most 24"),
    ],
)
def test_run_checks_its_inputs(text_path: Path, inputs: Arrays, message: str) -> None:
    with edgessl.load(text_path) as session, pytest.raises(RecipeError, match=message):
        session.run(inputs)


def test_run_checks_fixed_axes(built: Bundle) -> None:
    with edgessl.load(built("vit_mae", "onnx")) as session:
        wrong = np.zeros((1, 3, 16, 17), np.float32)
        with pytest.raises(RecipeError, match=r"pixel_values is float32 \(1, 3, 16, 17\)"):
            session.run({"pixel_values": wrong})


def test_run_equals_embed(text_path: Path) -> None:
    with edgessl.load(text_path) as session:
        outputs = session.run(session.prepare(TEXTS[:5]))
        assert list(outputs) == ["sentence_embedding", "last_hidden_state"]
        np.testing.assert_allclose(
            outputs["sentence_embedding"], session.embed(TEXTS[:5]), atol=1e-5
        )


def test_results_are_not_overwritten(text_path: Path) -> None:
    with edgessl.load(text_path) as session:
        first = session.run(session.prepare(["abc"]))["sentence_embedding"]
        kept = first.copy()
        session.run(session.prepare(["xyz"]))
        np.testing.assert_array_equal(first, kept)


def test_many_threads_give_the_same_vectors(text_path: Path) -> None:
    with edgessl.load(text_path, threads=1) as session, ThreadPoolExecutor(8) as pool:
        parts = [TEXTS[i : i + 5] for i in range(0, 75, 5)] * 4
        expected = [session.embed(part) for part in parts[:15]] * 4
        for actual, want in zip(pool.map(session.embed, parts), expected, strict=True):
            np.testing.assert_array_equal(actual, want)


@pytest.mark.parametrize(
    ("target", "device"), [("onnx", "gpu"), ("openvino", "gpu"), ("openvino", "npu")]
)
def test_an_absent_device_is_no_cpu(built: Bundle, target: str, device: str) -> None:
    path = built("bert", target, features=True, normalize=True)
    try:
        with edgessl.load(path, device=device) as session:
            assert session.describe()["device"] not in ("CPU", "cpu")
            pytest.skip(f"this machine has a {device}")
    except DeviceMismatch as err:
        assert f"asked for device '{device}'" in str(err)


@pytest.mark.parametrize(
    ("target", "device"), [("onnx", "npu"), ("onnx", "cuda"), ("openvino", "CPU"), ("openvino", "")]
)
def test_an_unknown_device(built: Bundle, target: str, device: str) -> None:
    with pytest.raises(RecipeError, match=f"device '{device}': {target} bundles run on cpu or gpu"):
        edgessl.load(built("bert", target, features=True, normalize=True), device=device)


def test_describe_and_threads(text_path: Path) -> None:
    target = bundle.read(text_path).target
    with edgessl.load(text_path, device="cpu", threads=1) as session:
        facts = session.describe()
    assert facts["threads"] == 1
    assert facts["device"] == "CPU"
    assert facts["runtime"] == {"onnx": "onnxruntime", "openvino": "openvino"}[target]
    if target == "openvino":
        assert facts["inference_precision"] == "f32"


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_at_least_one(text_path: Path, threads: int) -> None:
    with pytest.raises(RecipeError, match=f"threads must be at least 1, not {threads}"):
        edgessl.load(text_path, threads=threads)


@pytest.mark.parametrize(
    ("wanted", "capabilities", "hint"),
    [
        ("f32", ["FP32", "INT8"], "f32"),
        ("f32", ["FP32", "FP16", "BF16"], "f32"),
        ("f16", ["FP32", "BF16", "INT8"], "f32"),  # bf16 is not what was asked for
        ("f16", ["FP32", "FP16"], "f16"),
        ("bf16", ["FP32", "FP16"], "f32"),
        ("bf16", ["FP32", "BF16"], "bf16"),
    ],
)
def test_arithmetic(wanted: str, capabilities: list[str], hint: str) -> None:
    assert arithmetic(wanted, capabilities) == hint


@pytest.mark.parametrize("name", ["tokenizer.json", "reference.npz", "config.json"])
def test_truncated_and_missing_files(text_path: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(text_path, tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name}: missing or of the wrong size.*edgessl verify"):
        edgessl.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        edgessl.load(copy)


def test_damage_that_keeps_the_size(text_path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(text_path, tmp_path / "copy")
    model = next(path for path in copy.iterdir() if path.suffix in (".onnx", ".xml"))
    model.write_bytes(b"\xff" * model.stat().st_size)
    with pytest.raises(BundleError, match="cannot open it") as caught:
        edgessl.load(copy)
    assert "\n" not in str(caught.value)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        edgessl.load(tmp_path)

"""Static int8 of whole encoders: vectors stay, on both runtimes, and for TensorRT's builder."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edgessl import encoders
from edgessl.backend import BuildPlan
from edgessl.calibrate import observe, quantize
from edgessl.calibrate.observe import Data
from edgessl.calibrate.quantize import Options
from edgessl.calibrate.sensitivity import Limit
from edgessl.encoder import Encoder
from edgessl.errors import RecipeError
from edgessl.export import onnx_writer
from edgessl.parity import cosine
from edgessl.runtimes.text import TextPreprocessor
from edgessl.spec import Provenance, TextSpec
from edgessl.target import Int8
from tests.builders import random_texts, save_text_model
from tests.float_graphs import (
    VECTOR,
    compile_openvino,
    onnxruntime_operators,
    openvino_operators,
)

Vectors = npt.NDArray[np.float32]
FORMS = {
    "onnx": Int8(convolutions=False, fused=True),
    "openvino": Int8(),
    "tensorrt": Int8(signed=True),
}
LINEARS = 2 * 6  # query, key, value, output and two of the MLP, twice


def texts_for(encoder: Encoder, folder: Path, texts: list[str]) -> Data:
    for name, content in encoder.assets.items():
        (folder / name).write_bytes(content)
    spec = encoder.spec.preprocessing
    assert isinstance(spec, TextSpec)
    return Data(texts, TextPreprocessor.open(folder, spec), encoder.spec)


def vectors(path: Path, given: Data, texts: list[str], openvino: bool = False) -> Vectors:
    """In padded batches."""
    model = onnx.load(path)
    run: Any
    if openvino:
        run = compile_openvino(model)
    else:
        session = observe.open_session(model, [])
        run = lambda feed: dict(zip([VECTOR], session.run([VECTOR], feed), strict=True))  # noqa: E731
    batches = [texts[i : i + 5] for i in range(0, len(texts), 5)]
    return np.concatenate([run(given.prepare(batch))[VECTOR] for batch in batches])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Data]:
    """The fp32 ONNX of a tiny BERT, and calibration data."""
    folder = tmp_path_factory.mktemp("tiny")
    model = save_text_model(folder / "bert")
    encoder = encoders.load(model, encoders.LoadOptions(), Provenance("tiny"))
    onnx_writer.write(encoder, folder / "fp32.onnx")
    return folder / "fp32.onnx", texts_for(encoder, folder, random_texts(60, seed=1))


UNSEEN = random_texts(40, seed=2)


def static(
    tiny: tuple[Path, Data], path: Path, form: Int8 = FORMS["openvino"], **options: Any
) -> dict[str, Any]:
    shutil.copy(tiny[0], path)
    return quantize.static(path, tiny[1], form, Options(**options))


@pytest.fixture(scope="module")
def built(
    tiny: tuple[Path, Data], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("int8")
    paths = {name: folder / f"{name}.onnx" for name in FORMS}
    return {name: (paths[name], static(tiny, paths[name], form)) for name, form in FORMS.items()}


Built = dict[str, tuple[Path, dict[str, Any]]]


@pytest.mark.parametrize("form", FORMS)
def test_vectors_stay(tiny: tuple[Path, Data], built: Built, form: str) -> None:
    path, facts = built[form]
    assert facts["operators"] == {"int8": LINEARS, "float": 0} and not facts["float_layers"]
    kind = "symmetric" if form == "tensorrt" else "asymmetric"
    assert facts["scheme"] == f"int8 {kind}, static" and facts["method"] == "auto"
    exact = vectors(tiny[0], tiny[1], UNSEEN)
    near = cosine(exact, vectors(path, tiny[1], UNSEEN))
    assert near.mean() > 0.998 and near.min() > 0.99
    assert near.max() < 1 - 1e-8  # it really is another precision
    if form != "onnx":
        near = cosine(exact, vectors(path, tiny[1], UNSEEN, openvino=True))
        assert near.mean() > 0.998 and near.min() > 0.99


def test_every_linear_layer_is_int8(built: Built, tmp_path: Path) -> None:
    for form in ("onnx", "openvino"):
        found = onnxruntime_operators(onnx.load(built[form][0]), tmp_path)
        assert found["MatMulIntegerToFloat"] == LINEARS
    for form in ("openvino", "tensorrt"):
        found = openvino_operators(onnx.load(built[form][0]))
        assert found["FullyConnected I8"] == LINEARS and not found["FullyConnected F32"]


def test_what_a_processor_without_vnni_makes_of_it(
    tiny: tuple[Path, Data], built: Built, tmp_path: Path
) -> None:
    for form in ("onnx", "openvino"):
        near = built[form][1]["without_vnni"]
        assert 0.5 < near["cosine_min"] <= near["cosine_mean"] < 1
    assert "without_vnni" not in built["tensorrt"][1]
    assert "without_vnni" not in static(tiny, tmp_path / "int8.onnx", saturating=True)
    exact = vectors(tiny[0], tiny[1], UNSEEN)
    assert cosine(exact, vectors(tmp_path / "int8.onnx", tiny[1], UNSEEN)).mean() > 0.998


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
def test_tensorrt_builds_an_engine(built: Built) -> None:
    from edgessl.export.tensorrt_engine import build_engine
    from edgessl.export.tensorrt_graph import inspect

    path = built["tensorrt"][0]
    assert inspect(path, "int8")["int8_placement"]["on_int8_inputs"] == LINEARS
    sizes: tuple[tuple[int, ...], ...] = ((1, 1), (2, 8), (4, 16))
    profiles = {name: (sizes[0], sizes[1], sizes[2]) for name in ("input_ids", "attention_mask")}
    engine = build_engine(path, BuildPlan("tensorrt-rtx", "int8", profiles))
    assert len(engine) > 10_000


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_method(tiny: tuple[Path, Data], method: str, tmp_path: Path) -> None:
    facts = static(tiny, tmp_path / "int8.onnx", method=method)
    assert facts["method"] == method
    exact = vectors(tiny[0], tiny[1], UNSEEN)
    near = cosine(exact, vectors(tmp_path / "int8.onnx", tiny[1], UNSEEN))
    # Entropy clips a lot of what so small a model needs.
    assert near.mean() > (0.9 if method == "entropy" else 0.998)


def test_repeatable_and_silent(
    tiny: tuple[Path, Data], built: Built, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    static(tiny, tmp_path / "again.onnx", FORMS["onnx"])
    assert capfd.readouterr() == ("", "")
    hashes = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "again.onnx", built["onnx"][0])
    }
    assert len(hashes) == 1


def test_goes_on_after_a_stop(
    tiny: tuple[Path, Data], built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "_SAVE_EVERY", -1e9)
    path, resume = tmp_path / "int8.onnx", tmp_path / "statistics"
    shutil.copy(tiny[0], path)

    def stop(line: str) -> None:
        if line.startswith("choosing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize.static(path, tiny[1], FORMS["onnx"], resume=resume, report=stop)
    assert path.read_bytes() == tiny[0].read_bytes()
    prepared: list[Any] = []

    def prepare(batch: list[Any]) -> Any:
        prepared.append(batch)
        return tiny[1].prepare(batch)

    said: list[str] = []
    counted = replace(tiny[1], prepare=prepare)
    quantize.static(path, counted, FORMS["onnx"], resume=resume, report=said.append)
    assert not any(line.startswith("calibrating") for line in said)
    assert len(prepared[0]) == 1  # the longest text, which sets the batches; then the emulation
    assert path.read_bytes() == built["onnx"][0].read_bytes()
    assert not resume.exists()


@pytest.mark.parametrize(
    ("exclude", "floats"),
    [
        (("encoder.layer.1.*",), 6),
        (("*.query", "*.key", "*.value"), 6),
        (("encoder.layer.?.attention.output.dense", "encoder.layer.0.intermediate.dense"), 3),
    ],
)
def test_excluded_layers_stay_in_float(
    tiny: tuple[Path, Data], exclude: tuple[str, ...], floats: int, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    facts = static(tiny, path, exclude=exclude)
    assert facts["operators"] == {"int8": LINEARS - floats, "float": floats}
    assert len(facts["float_layers"]) == floats
    found = openvino_operators(onnx.load(path))
    assert (found["FullyConnected I8"], found["FullyConnected F32"]) == (LINEARS - floats, floats)
    exact = vectors(tiny[0], tiny[1], UNSEEN)
    assert cosine(exact, vectors(path, tiny[1], UNSEEN)).mean() > 0.998


def test_excluding_a_node(tiny: tuple[Path, Data], tmp_path: Path) -> None:
    model = onnx.load(tiny[0])
    node = next(node.name for node in model.graph.node if node.op_type == "MatMul")
    assert static(tiny, tmp_path / "int8.onnx", exclude=(node,))["operators"]["float"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"exclude": ("encoder.layer.0.output.dens",)},
            "'encoder.layer.0.output.dens': no layer "
            r"is called that\. Did you mean 'encoder\.layer\.[01]\.output\.dense'\?",
        ),
        ({"exclude": ("*",)}, "leaves nothing to quantize; use --precision fp32"),
        ({"method": "entropie"}, r"unknown method 'entropie'\. Did you mean 'entropy'\? Methods:"),
    ],
)
def test_options_that_make_no_sense(
    tiny: tuple[Path, Data], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    with pytest.raises(RecipeError, match=message):
        static(tiny, path, **options)
    assert path.read_bytes() == tiny[0].read_bytes()


def test_only_so_much_is_lost(tiny: tuple[Path, Data], tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    facts = static(tiny, path, max_drop=Limit("cosine-min", 1e-4))
    trade = facts["trade"]
    assert trade["all_int8"] < 1 - 1e-4 <= trade["reached"]
    assert 0 < facts["operators"]["float"] < LINEARS
    assert facts["float_layers"] == trade["kept_in_float"]
    items = list(tiny[1].items)
    assert cosine(vectors(tiny[0], tiny[1], items), vectors(path, tiny[1], items)).min() > 0.9998


@pytest.mark.parametrize("items", [["a"], ["same text"] * 20, [""]])
def test_hardly_any_data(tiny: tuple[Path, Data], items: list[str], tmp_path: Path) -> None:
    for form in ("onnx", "tensorrt"):
        path = tmp_path / "int8.onnx"
        shutil.copy(tiny[0], path)
        given = replace(tiny[1], items=items)
        quantize.static(path, given, FORMS[form])
        near = cosine(vectors(tiny[0], given, items), vectors(path, given, items))
        assert near.min() > 0.98
        assert np.isfinite(vectors(path, given, UNSEEN)).all()


@pytest.mark.slow
def test_minilm(minilm: Path, sentences: list[str], tmp_path: Path) -> None:
    encoder = encoders.load(minilm, encoders.LoadOptions(), Provenance("minilm"))
    fp32, path = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    onnx_writer.write(encoder, fp32)
    given = texts_for(encoder, tmp_path, sentences[:64])
    unseen = sentences[1000:1100]
    shutil.copy(fp32, path)
    facts = quantize.static(path, given, FORMS["openvino"])
    assert facts["operators"] == {"int8": 36, "float": 0}
    assert path.stat().st_size < 0.3 * fp32.stat().st_size  # the table of tokens, too
    exact = vectors(fp32, given, unseen)
    for openvino in (False, True):
        near = cosine(exact, vectors(path, given, unseen, openvino))
        assert near.mean() > 0.998 and near.min() > 0.98

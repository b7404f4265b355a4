"""What the peers' environment runs, as a program of its own: it knows nothing of edgessl.

    optimum_job.py quantize MODEL TEXTS OUT      export, then full int8 post-training quantization
    optimum_job.py embed MODEL TEXTS OUT HINT    vectors of an exported model, as .npy
    optimum_job.py onnx MODEL OUT                export to ONNX, fp32
    optimum_job.py ir MODEL OUT                  export to OpenVINO, fp32
    optimum_job.py dynamic MODEL OUT             sentence-transformers' dynamic int8 of the ONNX
    optimum_job.py static ONNX SAMPLES OUT       optimum-onnx's static int8, min-max ranges
    optimum_job.py nncf GRAPH SAMPLES OUT        plain NNCF on an .onnx or .xml; prints seconds

OUT of the last five is a file. SAMPLES is an .npz with the graph's inputs, ``NUMBER/INPUT``.

``optimum-cli export openvino --quant-mode int8`` takes only data sets of the hub (wikitext2, c4)
and skips texts of fewer than 128 tokens, so the same job goes through optimum-intel's Python API
with the same texts that edgessl calibrates with.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAX_LENGTH = 256  # the encoder's own


def quantize(model: str, texts: str, out: str) -> None:
    import nncf
    from optimum.intel import (
        OVConfig,
        OVModelForFeatureExtraction,
        OVQuantizationConfig,
        OVQuantizer,
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    exported = OVModelForFeatureExtraction.from_pretrained(model, export=True, compile=False)
    samples = [
        dict(tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="np"))
        for text in _lines(texts)
    ]
    config = OVConfig(quantization_config=OVQuantizationConfig(bits=8, num_samples=len(samples)))
    OVQuantizer.from_pretrained(exported).quantize(
        calibration_dataset=nncf.Dataset(samples), ov_config=config, save_directory=out
    )
    tokenizer.save_pretrained(out)


def embed(model: str, texts: str, out: str, hint: str) -> None:
    import numpy as np
    from optimum.intel import OVModelForFeatureExtraction
    from transformers import AutoTokenizer

    options: dict[str, Any] = {} if hint == "default" else {"INFERENCE_PRECISION_HINT": hint}
    opened = OVModelForFeatureExtraction.from_pretrained(model, ov_config=options)
    tokenizer = AutoTokenizer.from_pretrained(model)
    vectors = []
    for text in _lines(texts):
        inputs = tokenizer([text], truncation=True, max_length=MAX_LENGTH, return_tensors="np")
        hidden = np.asarray(opened(**inputs).last_hidden_state)
        pooled = hidden.mean(axis=1)  # one text: no padding to leave out
        vectors.append(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
    np.save(out, np.concatenate(vectors))


def onnx(model: str, out: str) -> None:
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    with tempfile.TemporaryDirectory() as place:
        ORTModelForFeatureExtraction.from_pretrained(model, export=True).save_pretrained(place)
        shutil.move(f"{place}/model.onnx", out)
        # optimum-onnx's quantizer wants it beside the graph
        shutil.move(f"{place}/config.json", Path(out).with_name("config.json"))


def ir(model: str, out: str) -> None:
    from optimum.intel import OVModelForFeatureExtraction

    with tempfile.TemporaryDirectory() as place:
        exported = OVModelForFeatureExtraction.from_pretrained(model, export=True, compile=False)
        exported.save_pretrained(place)
        for suffix in (".bin", ".xml"):
            shutil.move(f"{place}/openvino_model{suffix}", Path(out).with_suffix(suffix))


def dynamic(model: str, out: str) -> None:
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    with tempfile.TemporaryDirectory() as place:
        opened = SentenceTransformer(model, backend="onnx", device="cpu")
        export_dynamic_quantized_onnx_model(opened, "avx512_vnni", place)
        (written,) = Path(place).rglob("*.onnx")
        shutil.move(written, out)


def static(graph: str, samples: str, out: str) -> None:
    from onnxruntime.quantization import CalibrationMethod
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig, CalibrationConfig

    given = [{name: array[0] for name, array in sample.items()} for sample in _samples(samples)]
    operators = ["MatMul", "Gemm"]
    ranges = CalibrationConfig("own", "", "", len(given), CalibrationMethod.MinMax)
    settings = AutoQuantizationConfig.avx512_vnni(
        is_static=True, per_channel=True, operators_to_quantize=operators
    )
    quantizer = ORTQuantizer.from_pretrained(Path(graph).parent, file_name=Path(graph).name)
    with tempfile.TemporaryDirectory() as place:
        found = quantizer.fit(given, ranges, f"{place}/observed.onnx", operators)
        quantizer.quantize(settings, place, "int8", calibration_tensors_range=found)
        shutil.move(f"{place}/{Path(graph).stem}_int8.onnx", out)


def nncf(graph: str, samples: str, out: str) -> None:
    import nncf as library

    def run(model: Any, names: set[str]) -> Any:
        given = [{n: a for n, a in sample.items() if n in names} for sample in _samples(samples)]
        return library.quantize(
            model,
            library.Dataset(given),
            model_type=library.ModelType.TRANSFORMER,
            subset_size=len(given),
        )

    began = time.perf_counter()
    if graph.endswith(".onnx"):
        import onnx as format_library

        model = format_library.load(graph)
        format_library.save(run(model, {spec.name for spec in model.graph.input}), out)
    else:
        import openvino

        read = openvino.Core().read_model(graph)
        quantized = run(read, {port.any_name for port in read.inputs})
        openvino.save_model(quantized, out, compress_to_fp16=False)
    print("\n" + json.dumps({"seconds": time.perf_counter() - began}))


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _samples(path: str) -> list[dict[str, Any]]:
    import numpy as np

    found: dict[int, dict[str, Any]] = {}
    with np.load(path) as arrays:
        for key in arrays:
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = arrays[key]
    return [found[number] for number in sorted(found)]


_JOBS = {job.__name__: job for job in (quantize, embed, onnx, ir, dynamic, static, nncf)}


def main() -> None:
    command, *arguments = sys.argv[1:]
    _JOBS[command](*arguments)


if __name__ == "__main__":
    main()

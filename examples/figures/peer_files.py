"""The peers' int8 graphs of all-MiniLM-L6-v2: made once, from the samples that edgessl gets."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from examples.figures import peers, process, report
from examples.figures.environments import OFFLINE, clean_environment
from examples.figures.graphs import OWN, File


@dataclass(frozen=True)
class PeerFiles:
    """``onnx`` and ``ir``: fp32, what the others were quantized from. ``int8``: by name."""

    onnx: Path
    ir: Path
    int8: dict[str, File]


def make(folder: Path, directory: Path, model: Path, calibration: Path, samples: Path) -> PeerFiles:
    """Make what is not there yet.

    Args:
        folder: the peers' environment.
        directory: where the files are kept, by what they were calibrated with.
        model: the checkpoint.
        calibration: the texts, a line each; *samples*: the same as inputs, see ``optimum_job``.
    """
    kept = directory / hashlib.sha256(samples.read_bytes()).hexdigest()[:12]
    kept.mkdir(parents=True, exist_ok=True)

    def made(name: str, file: str, *arguments: str | Path) -> Path:
        target = kept / name
        if not target.exists():
            report.say(f"making the peers' {name}")
            fresh = kept / f".{name}"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            # optimum-intel names the file in its folder itself
            out = fresh if arguments[0] == "quantize" else fresh / file
            process.run(peers.command(folder, *arguments, out), clean_environment(**OFFLINE))
            fresh.rename(target)
        return target / file

    graph, ir = "model.onnx", "openvino_model.xml"
    onnx = made("onnx", graph, "onnx", model)
    dynamic = made("dynamic", graph, "dynamic", model)
    static = made("static", graph, "static", onnx, samples)
    nncf = made("nncf-onnx", graph, "nncf", onnx, samples)
    optimum = made("optimum-intel", ir, "quantize", model, calibration)
    plain = File(nncf, "onnxruntime", peer=True)
    intel = File(optimum, "openvino", "f32", peer=True)
    return PeerFiles(
        onnx,
        made("ir", ir, "ir", model),
        {
            "sentence-transformers int8 (dynamic)": replace(plain, path=dynamic),
            "optimum-onnx int8 (static, min-max)": replace(plain, path=static),
            "NNCF on ONNX": plain,
            "NNCF on ONNX, in OpenVINO": replace(plain, runtime="openvino", hint="f32"),
            "optimum-intel int8 (NNCF on IR)": intel,
            "optimum-intel int8, OpenVINO's default": replace(intel, hint=OWN),
        },
    )

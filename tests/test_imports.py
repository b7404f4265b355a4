"""What is loaded, and how long it takes: each in a fresh process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edgessl

HEAVY = {
    "torch",
    "transformers",
    "huggingface_hub",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "scipy",
}


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Names of all modules that a fresh process has after *code*."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_edgessl_loads_its_errors_and_nothing_else() -> None:
    modules = loaded_by("import edgessl")

    assert {name for name in modules if name.startswith("edgessl")} == {"edgessl", "edgessl.errors"}
    assert not modules & (HEAVY | {"numpy", "click", "PIL", "tokenizers", "psutil"})


def test_importing_the_session_loads_no_backend() -> None:
    assert not loaded_by("import edgessl.runtimes.session") & HEAVY


def test_the_command_line_loads_neither_numpy_nor_any_backend() -> None:
    code = "from edgessl.cli import run; assert run(['export', '--help']) == 0"

    assert not loaded_by(code) & (HEAVY | {"numpy", "PIL", "tokenizers"})


@pytest.fixture(scope="module")
def bundles(mae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of the MAE for each target that runs on a CPU."""
    folder = tmp_path_factory.mktemp("bundles")
    edgessl.build(mae, "onnx", folder / "onnx")
    edgessl.build(folder / "onnx", "openvino", folder / "openvino")
    return folder


@pytest.mark.parametrize(("target", "own"), [("onnx", {"onnxruntime"}), ("openvino", {"openvino"})])
def test_embedding_with_a_bundle_loads_its_own_backend_alone(
    target: str, own: set[str], bundles: Path
) -> None:
    code = (
        "import sys, edgessl, numpy; session = edgessl.load(sys.argv[1])\n"
        "images = numpy.zeros((2, 32, 32, 3), numpy.uint8)\n"
        "assert session.embed(images).shape == (2, 128)"
    )

    assert loaded_by(code, str(bundles / target)) & HEAVY == own


def test_verifying_a_bundle_loads_its_own_backend_alone(bundles: Path) -> None:
    code = "import sys; from edgessl.cli import run; assert run(['verify', sys.argv[1]]) == 0"

    assert loaded_by(code, str(bundles / "onnx")) & HEAVY == {"onnxruntime"}


def test_building_from_a_bundle_loads_no_torch(bundles: Path, tmp_path: Path) -> None:
    code = "import sys, edgessl; edgessl.build(sys.argv[1], 'openvino', sys.argv[2])"

    modules = loaded_by(code, str(bundles / "onnx"), str(tmp_path / "out"))

    assert not modules & {"torch", "transformers"}


def test_import_and_help_are_quick() -> None:
    """Medians of interleaved runs; on an idle machine about 10 ms and 40 ms."""
    importing = (
        "import time; t = time.perf_counter(); import edgessl; print(time.perf_counter() - t)"
    )
    imports, helps, bare = [], [], []
    for _ in range(7):
        imports.append(float(subprocess.check_output([sys.executable, "-c", importing])))
        bare.append(seconds("-c", "pass"))
        helps.append(seconds("-m", "edgessl", "--help"))

    assert statistics.median(imports) < 0.05
    assert statistics.median(np.subtract(helps, bare).tolist()) < 0.3


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began

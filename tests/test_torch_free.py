"""The device runtime in fresh virtual environments that hold neither torch nor transformers.

The wheel is built from the sources, installed as a device would install it, and asked for the
vectors of real sentences and images; the development environment says what they should be.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgessl
from edgessl import parity
from examples import data
from examples.figures import environments

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
TORCH_SIDE = ("edgessl.encoders", "edgessl.compress", "edgessl.export.onnx_writer")
DATA = (
    "py.typed",
    "calibrate/builtin.txt",
    "gate/budgets.schema.json",
    "gate/views/page.css",
    "gate/views/page.html.jinja",
)
PLUGIN = "edgessl.gate.pytest_plugin"  # pytest alone imports it
# The part of edgessl that a device cannot do without, where only its own needs are installed.
DEVICE_ROOMS = ("edgessl.runtimes", "edgessl.export.openvino_ir", "edgessl.export.tensorrt_engine")
FORBIDDEN = ("torch", "transformers", "onnx", "onnxscript", "click", "psutil")

EMBED = """
import json, sys
from pathlib import Path
import numpy as np
import edgessl
from edgessl import parity

bundle, items, vectors = map(Path, sys.argv[1:])
with edgessl.load(bundle) as session:
    name = session.manifest.encoder.vector
    golden = 0.0
    for batch in parity.read(bundle / "reference.npz"):
        golden = max(golden, float(abs(session.embed(batch.items) - batch.outputs[name]).max()))
    real = json.loads(items.read_text()) if items.suffix == ".json" else np.load(items)
    np.save(vectors, session.embed(real))
    print(json.dumps({"golden": golden, "runtime": session.describe()["runtime"],
                      "where": edgessl.__file__, "modules": sorted(sys.modules)}))
"""

IMPORT_ALL = """
import importlib, json, sys
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except BaseException as err:
        failed[name] = [type(err).__name__, isinstance(err, ImportError), getattr(err, "name", "")]
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for what is large: gone as soon as this file is through."""
    with tempfile.TemporaryDirectory(prefix="edgessl-torch-free-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    return environments.build_wheel(place / "wheel")


@pytest.fixture(scope="module")
def bundles(place: Path, minilm: Path, mae: Path) -> dict[str, dict[str, Path]]:
    """encoder -> target -> an fp32 bundle."""
    made: dict[str, dict[str, Path]] = {"minilm": {}, "mae": {}}
    for name, model in (("minilm", minilm), ("mae", mae)):
        for target in ("onnx", "openvino"):
            # one export from torch each; the other target is built from the ONNX it left
            source = made[name].get("onnx", model)
            made[name][target] = edgessl.build(source, target, place / f"{name}-{target}").path
    return made


@pytest.fixture(scope="module")
def items(place: Path, sentences: list[str]) -> dict[str, Path]:
    """encoder -> a file of real inputs."""
    texts, images = place / "texts.json", place / "images.npy"
    texts.write_text(json.dumps(sentences[::60]), encoding="utf-8")
    np.save(images, data.cifar10("test", 40))
    return {"minilm": texts, "mae": images}


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def bare(request: pytest.FixtureRequest, place: Path, wheel: Path) -> tuple[str, Path]:
    """(target, Python) with only what DESIGN lets a runtime use: not even click and psutil are
    asked for."""
    runtime = {"onnx": "onnxruntime", "openvino": "openvino"}[request.param]
    python = environments.make(
        place / f"venv-bare-{request.param}",
        ("--no-deps", str(wheel)),
        ("numpy", "tokenizers", "Pillow", runtime),
    )
    return request.param, python


@pytest.fixture(scope="module")
def device(place: Path, wheel: Path) -> Path:
    """The ``bin`` folder after the documented ``pip install 'edgessl[openvino]'``."""
    return environments.make(place / "venv-openvino", (f"{wheel}[openvino]",)).parent


def modules_of(wheel: Path) -> list[str]:
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    return sorted(
        ".".join(path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts)
        for path in names
        if path.name != "__main__.py"  # it runs the command line
    )


def test_the_wheel_holds_every_room_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"edgessl/{name}" for name in DATA}
    for folder, inside in (
        ("edgessl", "edgessl"),
        ("export", "edgessl/export"),
        ("calibrate", "edgessl/calibrate"),
        ("runtimes", "edgessl/runtimes"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            relative = path.relative_to(ROOT / folder).as_posix()
            if folder == "edgessl" and relative.startswith(("export/", "calibrate/", "runtimes/")):
                continue  # a Python that follows links while it walks
            wanted.add(f"{inside}/{relative}")
    assert held == wanted
    assert {"edgessl/runtimes/session.py", "edgessl/gate/latency.py"} <= held


@pytest.mark.parametrize("encoder", ["minilm", "mae"])
def test_a_bundle_runs_without_torch(
    encoder: str,
    bare: tuple[str, Path],
    bundles: dict[str, dict[str, Path]],
    items: dict[str, Path],
    sentences: list[str],
    tmp_path: Path,
) -> None:
    target, python = bare
    bundle = bundles[encoder][target]
    answer = environments.run(
        python, EMBED, str(bundle), str(items[encoder]), str(tmp_path / "vectors.npy")
    )
    assert python.parents[1] in Path(answer["where"]).parents
    assert answer["runtime"] == {"onnx": "onnxruntime", "openvino": "openvino"}[target]
    loaded = {name.partition(".")[0] for name in answer["modules"]}
    assert not loaded & set(FORBIDDEN)
    assert answer["golden"] < 1e-5  # beside fp32 torch, through this device's own preprocessing

    real = sentences[::60] if encoder == "minilm" else data.cifar10("test", 40)
    with edgessl.load(bundle) as session:
        expected = session.embed(real)
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.dtype == np.float32 and vectors.shape == expected.shape
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    # and they are the vectors of these inputs, not of any
    assert parity.cosine(vectors, np.roll(expected, 1, axis=0)).mean() < 0.999


def test_the_runtime_imports_with_nothing_but_its_own_needs(
    bare: tuple[str, Path], wheel: Path
) -> None:
    wanted = [name for name in modules_of(wheel) if name.startswith(DEVICE_ROOMS)]
    assert len(wanted) > 10
    assert environments.run(bare[1], IMPORT_ALL, json.dumps(wanted)) == {}


def test_only_the_torch_side_needs_torch(device: Path, wheel: Path) -> None:
    modules = modules_of(wheel)
    failed = environments.run(device / "python", IMPORT_ALL, json.dumps(modules))
    assert "edgessl.export.onnx_writer" in failed and "edgessl.encoders.run" in failed
    for name, (kind, is_import_error, missing) in failed.items():
        assert name.startswith((*TORCH_SIDE, PLUGIN)), f"{name} fails with {kind}: {missing}"
        assert is_import_error, f"{name} fails with {kind}"
        assert kind == "MissingDependency" or missing in ("torch", "onnx", "pytest"), (
            f"{name}: {missing}"
        )


def edgessl_command(device: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(device / "edgessl"), *arguments],
        capture_output=True,
        text=True,
        cwd=device,
        env=environments.clean_environment(),
    )


def test_the_entry_point(device: Path) -> None:
    result = edgessl_command(device, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split()[-1] == edgessl.__version__


@pytest.mark.parametrize("encoder", ["minilm", "mae"])
def test_the_documented_device_install_verifies_a_bundle(
    encoder: str, device: Path, bundles: dict[str, dict[str, Path]]
) -> None:
    result = edgessl_command(device, "verify", str(bundles[encoder]["openvino"]), "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ok"] and found["preprocessing"] and found["parity"]["max_abs_diff"] < 1e-5
    assert found["runtime"]["runtime"] == "openvino"


def test_a_bundle_for_another_runtime_says_what_to_install(
    device: Path, bundles: dict[str, dict[str, Path]]
) -> None:
    result = edgessl_command(device, "verify", str(bundles["mae"]["onnx"]), "--quiet")
    assert result.returncode == 3
    assert "pip install 'edgessl[onnx]'" in result.stderr and "Traceback" not in result.stderr


def test_building_from_a_checkpoint_says_what_to_install(
    device: Path, mae: Path, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    result = edgessl_command(device, "export", str(mae), "-t", "openvino", "-o", str(output), "-q")
    assert result.returncode == 3
    assert "edgessl[compress]" in result.stderr and "Traceback" not in result.stderr
    assert not output.exists()


def test_info_on_the_device(device: Path) -> None:
    result = edgessl_command(device, "info", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["targets"]["openvino"]["run"]["ok"]
    assert not found["targets"]["openvino"]["build"]["ok"]
    assert found["libraries"]["torch"]["state"] == "missing"
    assert edgessl_command(device, "info").stdout.startswith("edgessl")

"""What commands print and write; damaged bundles."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from edgessl import bundle
from tests.cli.place import Run, weights_of
from tests.commands import edgessl
from tests.hub_server import HubStandIn


def test_parity_out_of_bound_is_a_verdict_and_force_overrides_it(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgessl import parity

    monkeypatch.setitem(parity.BOUNDS, "fp32", (1.1, 1.1))
    arguments = ("export", "onnx-bundle", "-t", "openvino", "-o", "out", "-q")

    code, out, err = run(*arguments)

    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "outside its bound" in err and "--force" in err
    assert not (place / "out").exists()
    code, out, err = run(*arguments, "--force")
    assert code == 0 and bundle.is_bundle(place / "out")
    assert "outside its bound" in err


def test_export_tells_a_person_what_was_made(place: Path, run: Run) -> None:
    code, out, err = run("export", "onnx-bundle", "-t", "openvino", "-o", "a/new folder/ü モデル")

    assert code == 0
    assert "a/new folder/ü モデル" in out and "openvino fp32" in out and "cosine 1.000000" in out
    assert err.splitlines() == [
        "loading onnx-bundle ...",
        "exporting to ONNX ...",
        "building for openvino ...",
        "checking parity with the fp32 encoder ...",
    ]
    assert run("verify", "a/new folder/ü モデル", "-q")[0] == 0


def test_json_is_the_manifest_and_all_there_is_on_stdout(place: Path, run: Run) -> None:
    code, out, err = run("export", "onnx-bundle", "-t", "openvino", "-o", "out", "--json", "-q")

    facts = json.loads(out)
    assert (code, err) == (0, "")
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    assert facts == {"path": "out", "size": facts["size"], **manifest}
    assert facts["size"] == sum(
        path.stat().st_size for path in (place / "out").iterdir() if path.name != "manifest.json"
    )


def test_int8_without_data_warns(place: Path, run: Run) -> None:
    code, out, err = run(*"export onnx-bundle -t onnx -p int8 --samples 8 --isa any -o out".split())

    assert code == 0 and "onnx int8" in out
    (line,) = [line for line in err.splitlines() if line.startswith("warning")]
    assert "no --calibration was given" in line
    manifest = bundle.read(place / "out")
    assert manifest.calibration is not None and manifest.calibration["source"] == "built-in"
    assert manifest.compatibility["int8"] == {"weights": "reduced range", "isa": "any"}
    code, _, err = run("export", "out", "-t", "onnx", "-c", "images.npy", "-o", "again")
    assert code == 2 and "--calibration: fixed in the bundle 'out', which is int8" in err


def test_precisions_without_data_and_what_inspect_says(place: Path, run: Run) -> None:
    for precision, kind, layers in (
        ("int8-dynamic", "int8", 48),
        ("int4-weight-only", "int4 weights", 48),
    ):
        code, out, err = run(
            *("export", "onnx-bundle", "-t", "onnx", "-p", precision, "-o", precision)
        )
        assert code == 0 and f"quantizing to {precision} ..." in err
        assert ("embed one at a time" in out) == (precision == "int8-dynamic")
        _, text, _ = run("inspect", precision, "--json", "-q")
        found = [layer for layer in json.loads(text)["layers"] if layer["precision"] == kind]
        assert len(found) == layers
        assert {tuple(layer["shape"]) for layer in found} == {(128, 128), (128, 512), (512, 128)}
        assert kind in run("inspect", precision, "-q")[1]


def test_a_link_is_kept_and_what_it_points_to_replaced(place: Path, run: Run) -> None:
    shutil.copytree(place / "onnx-bundle", place / "real")
    (place / "link").symlink_to("real")

    code, _, _ = run("export", "onnx-bundle", "-t", "openvino", "-o", "link", "--overwrite", "-q")

    assert code == 0 and (place / "link").is_symlink()
    assert bundle.read(place / "real").target == "openvino"
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_a_recipe_is_read_and_flags_go_before_it(place: Path, run: Run) -> None:
    (place / "recipes").mkdir()
    recipe = "[encoder]\nmodel = '../onnx-bundle'\n[target]\nname = 'onnx'\n"
    (place / "recipes" / "r.toml").write_text(recipe, encoding="utf-8-sig")

    code, out, _ = run(
        *("export", "--recipe", "recipes/r.toml", "-t", "openvino", "-o", "out", "--json", "-q")
    )

    assert code == 0 and json.loads(out)["target"] == "openvino"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("name", ["openvino_model.bin", "reference.npz", "config.json"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_names_the_damaged_file(kind: str, name: str, place: Path, run: Run) -> None:
    shutil.copytree(place / "openvino-bundle", place / "copy")
    DAMAGE[kind](place / "copy" / name)

    code, out, err = run("verify", "copy", "-q")
    json_code, document, _ = run("verify", "copy", "-q", "--json")

    assert (code, json_code, err) == (4, 4, "")
    assert out.startswith(f"files          {name}: {'missing' if kind == 'gone' else 'changed'}")
    assert "copy or export it again" in out
    found = json.loads(document)
    assert found["ok"] is False and [line.partition(":")[0] for line in found["files"]] == [name]


@pytest.mark.parametrize("damage", [*DAMAGE.values(), lambda path: path.write_text("[]")])
def test_a_damaged_manifest_is_one_line(
    damage: Callable[[Path], object], place: Path, run: Run
) -> None:
    shutil.copytree(place / "openvino-bundle", place / "copy")
    damage(place / "copy" / "manifest.json")

    for command in ("verify", "inspect"):
        code, out, err = run(command, "copy", "-q")
        # without a manifest a directory is taken for a model
        gone = command == "inspect" and not (place / "copy" / "manifest.json").exists()
        assert code == (2 if gone else 4) and out == ""
        assert err.startswith("error: ") and err.count("\n") == 1


def test_a_stranger_in_the_bundle_is_reported(place: Path, run: Run) -> None:
    shutil.copytree(place / "onnx-bundle", place / "copy")
    (place / "copy" / "notes.txt").write_text("x")

    code, out, _ = run("verify", "copy")

    assert code == 4 and "notes.txt: not in the manifest" in out


def test_verify_of_a_sound_bundle(place: Path, run: Run) -> None:
    code, out, _ = run("verify", "onnx-bundle", "--json")

    found = json.loads(out)
    assert code == 0 and found["ok"] and found["files"] == [] and found["preprocessing"]
    assert found["parity"]["cosine_min"] > 0.9999
    assert found["runtime"]["runtime"] == "onnxruntime"


def test_inspect_a_model(place: Path, run: Run) -> None:
    code, out, _ = run("inspect", "mae", "--json", "-q")
    _, text, _ = run("inspect", "mae", "-q")

    found = json.loads(out)
    assert code == 0 and found["kind"] == "model"
    tensors = load_file(weights_of(place / "mae"))
    count = sum(array.size for name, array in tensors.items() if name.startswith("vit."))
    assert found["compute"]["parameters"] == count
    assert sum(layer["parameters"] for layer in found["layers"]) == count
    # 65 tokens through 8 layers: 2 FLOPs a weight a token, and the two attention products
    weights = 8 * (4 * 128 * 128 + 2 * 128 * 512)
    patches = 64 * 48 * 128
    assert found["compute"]["flops"] == 2 * (65 * weights + patches + 8 * 2 * 65 * 65 * 128)
    assert f"{count:,}" in text and "8 x 198,272 parameters" in text and "vit_mae" in text


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_inspect_a_bundle(target: str, place: Path, run: Run) -> None:
    code, out, _ = run("inspect", f"{target}-bundle", "--json", "-q")
    _, text, _ = run("inspect", f"{target}-bundle", "--layers", "-q")

    found, manifest = json.loads(out), bundle.read(place / f"{target}-bundle")
    assert code == 0 and found["kind"] == "bundle" and found["variant"] == manifest.variant
    assert {layer["precision"] for layer in found["layers"]} == {"fp32"}
    # a convolution, and six matrix products a layer (with attention's own two where they show)
    assert len(found["layers"]) == {"onnx": 65, "openvino": 49}[target]
    for fact in (manifest.variant, manifest.provenance.weights_sha256, "1,601,152", "edgessl 0"):
        assert fact in text
    names = [layer["name"] for layer in found["layers"]]
    assert [line.split()[0] for line in text.splitlines()[-len(names) :]] == names


def test_export_of_a_hub_model(mae: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in mae.iterdir()}
    with HubStandIn("acme/mae", files) as hub:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = edgessl(
            *("export", "acme/mae", "-t", "onnx", "-o", tmp_path / "out", "--json"), env=settings
        )
        missing = edgessl(
            *("export", "acme/mea", "-t", "onnx", "-o", tmp_path / "no"), env=settings
        )
        revision = edgessl(
            *("export", "acme/mae", "--revision", "v9", "-t", "onnx", "-o", tmp_path / "no"),
            env=settings,
        )
        endpoint = hub.endpoint
    gone = edgessl(
        *("export", "acme/other", "-t", "onnx", "-o", tmp_path / "no"),
        env={**settings, "HF_ENDPOINT": endpoint},
    )

    assert done.returncode == 0
    manifest = json.loads(done.stdout)
    assert manifest["provenance"]["source"] == "acme/mae"
    assert manifest["provenance"]["revision"] == hub.commit
    assert manifest["recipe"]["revision"] == hub.commit
    for failed, says in (
        (missing, ("acme/mea", "nor a repository on", endpoint)),
        (revision, ("acme/mae", "no revision 'v9'")),
        (gone, ("acme/other", endpoint, "fails")),
    ):
        assert (failed.returncode, failed.stdout) == (2, "")
        assert "Traceback" not in failed.stderr
        message = failed.stderr.splitlines()[-1]
        assert message.startswith("error: ") and all(text in message for text in says)
    assert not (tmp_path / "no").exists()

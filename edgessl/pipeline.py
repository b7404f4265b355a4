"""The walk between rooms: checkpoint -> ONNX -> int8 -> target -> parity -> bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgessl import bundle, gpu, hub, parity, staging, target
from edgessl.backend import Arrays, Backend, BuildPlan, Report, RuntimeOptions, silent
from edgessl.bundle import Manifest
from edgessl.encoder import Encoder
from edgessl.errors import BundleError, EdgesslError, RecipeError, Unsupported, require
from edgessl.recipe import Recipe
from edgessl.spec import EncoderSpec, Provenance, TextSpec

_LIBRARIES = (
    "edgessl torch transformers onnx onnxscript nncf onnxruntime openvino tensorrt "
    "tensorrt-rtx-cu13 tokenizers numpy"
).split()


@dataclass(frozen=True)
class Built:
    """A bundle that was written."""

    path: Path
    manifest: Manifest
    parity: parity.Parity


@dataclass(frozen=True)
class _Source:
    """What a checkpoint and a bundle both give: an ONNX on demand, and what travels with it."""

    spec: EncoderSpec
    provenance: Provenance
    assets: Mapping[str, bytes]
    reference: list[parity.Batch]
    compute: dict[str, Any]
    write_onnx: Callable[[Path], None]
    # Of a bundle whose ONNX is carried over as it is: what it was called, and whether it is int8.
    variant: str | None = None
    quantized: bool = False
    calibration: dict[str, Any] | None = None


def build(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    force: bool = False,
    report: Report = silent,
) -> Built:
    """Build a bundle and check it against the encoder, on this machine, before it is written.

    Args:
        recipe: what to build.
        output: the bundle's directory; written whole or not at all.
        overwrite: replace a bundle that is there.
        force: write the bundle even if its parity is outside its precision's bound.
        report: takes a line at each step.

    Raises:
        EdgesslError: see ``edgessl.errors``; nothing is left at *output*.
    """
    row = target.get(recipe.target)
    recipe = replace(recipe, precision=recipe.precision or _own_precision(recipe.model))
    precision = str(recipe.precision)
    target.check_precision(row, precision)
    path = Path(output)
    staging.check_output(path, overwrite)
    for module in row.build_modules:
        require(module, row.extra, f"building for {row.key}")
    if precision == "int8" and not recipe.calibration and _own_precision(recipe.model) != "int8":
        raise RecipeError(
            "--precision int8 needs --calibration: a few hundred real inputs (a text file with a "
            "text a line, a folder of images, or an .npy of images)."
        )
    report(f"loading {recipe.model}")
    with staging.staged(path, overwrite) as stage:
        work = stage / ".work"
        work.mkdir()
        source = _open(recipe, stage)
        calibration, quantize = _calibration(recipe, row, source, stage)

        report("exporting to ONNX")
        onnx = work / "model.onnx"
        source.write_onnx(onnx)
        facts: dict[str, Any] = {}
        if quantize and row.quantizes == onnx.name:
            report("quantizing to int8")
            facts |= quantize(onnx)
        report(f"building for {row.key}")
        plan = BuildPlan(
            target=row.key,
            precision=precision,
            profiles=_profiles(source.spec),
            workspace_mb=recipe.workspace_mb,
            compute_capabilities=recipe.compute_capabilities,
            report=report,
        )
        facts = target.resolve(row.builder)(onnx, stage, plan) | facts
        if quantize and row.quantizes != onnx.name:
            report("quantizing to int8")
            facts |= quantize(stage / row.quantizes)
        shutil.rmtree(work)

        manifest = Manifest(
            target=row.key,
            precision=precision,
            encoder=source.spec,
            provenance=replace(source.provenance, versions=_versions()),
            variant=source.variant or bundle.variant_id(_identity(source, recipe, calibration)),
            recipe=_public(recipe, source),
            compatibility=facts,
            parity={},
            compute=source.compute,
            calibration=calibration,
        )
        report("checking parity with the fp32 encoder")
        result, ran = _parity(stage, manifest, source.reference)
        if not result.within and not force:
            raise EdgesslError(
                f"parity of {row.key} {recipe.precision} is outside its bound: {result}. The "
                "bundle was not written; --force writes it all the same."
            )
        parity.save(source.reference, stage / bundle.REFERENCE)
        manifest = replace(
            manifest,
            parity=_parity_json(result, ran),
            files={n: bundle.file_entry(stage / n) for n in bundle.list_files(stage)},
        )
        (stage / bundle.MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    return Built(path, manifest, result)


def verify(path: Path, report: Report = silent) -> dict[str, Any]:
    """Check every file of a bundle, open it here, and compare it with its reference.

    Returns:
        ``ok``, ``files`` (problems, a line each), ``parity``, ``preprocessing`` (whether this
        device makes the same inputs from the golden texts or images) and ``runtime``.

    Raises:
        BundleError: no bundle there, or it cannot be opened.
        MissingDependency: the target's runtime is not installed; the files were sound.
    """
    manifest = bundle.read(path)
    report("checking files")
    problems = bundle.check_files(path, manifest)
    if problems:
        return {"ok": False, "files": problems}
    report("checking parity on this device")
    from edgessl.runtimes import session

    reference = parity.read(path / bundle.REFERENCE)
    with session.load(path) as opened:
        result = parity.compare(reference, opened.run, manifest.precision)
        same = all(_same_inputs(batch.inputs, opened.prepare(batch.items)) for batch in reference)
        ran = opened.describe()
    return {
        "ok": result.within and same,
        "files": [],
        "parity": _parity_json(result, ran),
        "preprocessing": same,
        "runtime": ran,
    }


def _open(recipe: Recipe, stage: Path) -> _Source:
    directory = Path(recipe.model).expanduser()
    if bundle.is_bundle(directory):
        return _open_bundle(directory, recipe, stage)
    return _open_checkpoint(recipe, stage)


def load_encoder(recipe: Recipe) -> Encoder:
    """Load the checkpoint that *recipe* names, with torch: a directory or a hub id.

    Raises:
        EdgesslError: see ``edgessl.hub.resolve`` and ``edgessl.encoders.load``.
    """
    for module in ("torch", "transformers", "safetensors"):
        require(module, "compress", "reading a checkpoint")
    from edgessl import encoders

    found = hub.resolve(recipe.model, recipe.revision)
    options = encoders.LoadOptions(
        recipe.pooling, recipe.normalize, recipe.features, recipe.max_length
    )
    return encoders.load(found.directory, options, Provenance(found.source, found.revision))


def _open_checkpoint(recipe: Recipe, stage: Path) -> _Source:
    encoder = load_encoder(recipe)
    for module in ("onnx", "onnxscript"):
        require(module, "compress", "exporting a checkpoint")
    from edgessl.encoders import run as run_encoder
    from edgessl.export import onnx_writer

    return _Source(
        spec=encoder.spec,
        provenance=encoder.provenance,
        assets=encoder.assets,
        reference=parity.make_reference(
            encoder.spec,
            _prepare(encoder.assets, encoder.spec, stage),
            lambda inputs: run_encoder.forward(encoder, inputs),
        ),
        compute=run_encoder.compute(encoder),
        write_onnx=lambda path: onnx_writer.write(encoder, path, str(recipe.precision)),
    )


def _prepare(
    assets: Mapping[str, bytes], spec: EncoderSpec, stage: Path
) -> Callable[[list[Any]], Arrays]:
    """The device's own preprocessing, reading *assets* from where the bundle will have them."""
    from edgessl.runtimes import session

    for name, content in assets.items():
        (stage / name).write_bytes(content)
    return session.open_preprocessor(stage, spec)


def _open_bundle(directory: Path, recipe: Recipe, stage: Path) -> _Source:
    """A bundle that holds an ONNX can be built for another target, on a device, without torch."""
    manifest = bundle.read(directory)
    problems = bundle.check_files(directory, manifest)
    onnx = directory / "model.onnx"
    if problems:
        raise BundleError(f"{directory}: {problems[0]}. Copy or export it again.")
    if not onnx.is_file():
        raise Unsupported(
            f"{str(directory)!r} is a bundle without an ONNX (target {manifest.target}), so "
            "nothing else can be built from it. Export from the checkpoint."
        )
    for name in ("revision", "pooling", "normalize", "max_length"):
        if getattr(recipe, name) is not None:
            raise RecipeError(f"--{name.replace('_', '-')}: fixed in the bundle {directory}.")
    if recipe.features and not manifest.encoder.has_features:
        raise RecipeError(f"--features: the bundle {str(directory)!r} was exported without.")
    converts = manifest.precision == "fp32" and (
        recipe.precision == "int8" or recipe.target == "openvino"
    )
    if recipe.precision != manifest.precision and not converts:
        raise Unsupported(
            f"{str(directory)!r} holds {manifest.precision}; --target {recipe.target} --precision "
            f"{recipe.precision} has to be exported from the checkpoint."
        )
    assets = {
        name: (directory / name).read_bytes()
        for name in manifest.files
        if name.endswith(".json") and name != "build_plan.json"
    }
    for name, content in assets.items():
        (stage / name).write_bytes(content)
    return _Source(
        spec=manifest.encoder,
        provenance=manifest.provenance,
        assets=assets,
        reference=parity.read(directory / bundle.REFERENCE),
        compute=manifest.compute,
        write_onnx=lambda path: _copy(onnx, path),
        variant=manifest.variant if recipe.precision == manifest.precision else None,
        quantized=manifest.precision == "int8",
        calibration=manifest.calibration,
    )


def _copy(source: Path, destination: Path) -> None:
    shutil.copyfile(source, destination)


def _own_precision(model: str) -> str:
    """What a bundle has; checkpoints are built in fp32 unless something else is asked for."""
    directory = Path(model).expanduser()
    return bundle.read(directory).precision if bundle.is_bundle(directory) else "fp32"


def _calibration(
    recipe: Recipe, row: target.Target, source: _Source, stage: Path
) -> tuple[dict[str, Any] | None, Callable[[Path], dict[str, Any]] | None]:
    """Calibration facts for the manifest, and what quantizes a file in place (None: nothing)."""
    if recipe.precision != "int8":
        return None, None
    if source.quantized:
        return source.calibration, None
    from edgessl.calibrate import data

    chosen = data.load(Path(str(recipe.calibration)), source.spec.task, recipe.samples, recipe.seed)
    prepare = _prepare(source.assets, source.spec, stage)
    samples = [prepare([item]) for item in chosen.items]
    quantizer = target.resolve(row.quantizer)
    return chosen.to_json(), lambda path: quantizer(path, samples)


def _profiles(
    spec: EncoderSpec,
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Smallest, optimal and largest shape of every input."""
    longest = spec.preprocessing.max_length if isinstance(spec.preprocessing, TextSpec) else 1
    sizes = (
        {"batch": 1, "sequence": 1},
        {"batch": 8, "sequence": min(64, longest)},
        {"batch": 32, "sequence": longest},
    )
    profiles = {}
    for tensor in spec.inputs:
        low, best, high = (
            tuple(size[axis] if isinstance(axis, str) else axis for axis in tensor.shape)
            for size in sizes
        )
        profiles[tensor.name] = (low, best, high)
    return profiles


def _identity(
    source: _Source, recipe: Recipe, calibration: dict[str, Any] | None
) -> dict[str, Any]:
    """All that moves the vectors; see docs/bundle.md."""
    identity: dict[str, Any] = {
        "weights": source.provenance.weights_sha256,
        "precision": recipe.precision,
        "pooling": source.spec.pooling,
        "normalize": source.spec.normalize,
        "preprocessing": source.spec.to_json()["preprocessing"],
    }
    if calibration is not None:
        row = target.get(recipe.target)
        identity |= {"quantizer": row.quantizer, "calibration": calibration["sha256"]}
    return identity


def _public(recipe: Recipe, source: _Source) -> dict[str, Any]:
    """The resolved recipe, without the paths of the machine that built it."""
    data = recipe.to_json()
    data["model"] = source.provenance.source
    data["revision"] = source.provenance.revision
    data["pooling"], data["normalize"] = source.spec.pooling, source.spec.normalize
    data["features"] = source.spec.has_features
    if isinstance(source.spec.preprocessing, TextSpec):
        data["max_length"] = source.spec.preprocessing.max_length
    if recipe.calibration:
        data["calibration"] = Path(recipe.calibration).name
    return data


def _parity(
    stage: Path, manifest: Manifest, reference: list[parity.Batch]
) -> tuple[parity.Parity, dict[str, Any]]:
    """Run the golden inputs through what will really run, or through the target's stand-in."""
    row = target.get(manifest.target)
    opener, note = row.opener, {}
    if row.needs_gpu and not (gpu.probe().usable and (stage / row.model_file).is_file()):
        stand_in = dict(row.stand_ins)[manifest.precision]
        opener = target.get(stand_in).opener
        note = {"stand_in": f"its ONNX, run by {stand_in}: no engine can run on this machine"}
    backend: Backend = target.resolve(opener)(stage, manifest, RuntimeOptions())
    try:
        return parity.compare(reference, backend.run, manifest.precision), {
            **backend.describe(),
            **note,
        }
    finally:
        backend.close()


def _parity_json(result: parity.Parity, ran: dict[str, Any]) -> dict[str, Any]:
    return {
        "cosine_mean": result.cosine_mean,
        "cosine_min": result.cosine_min,
        "max_abs_diff": result.max_abs_diff,
        "rows": result.rows,
        "bound": {"cosine_mean": result.bound[0], "cosine_min": result.bound[1]},
        "within": result.within,
        "ran": ran,
    }


def _same_inputs(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].shape == right[name].shape and bool((left[name] == right[name]).all())
        for name in left
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

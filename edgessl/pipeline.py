"""The walk between rooms: checkpoint -> ONNX -> precision -> target -> parity -> bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from edgessl import bundle, ecosystem, gpu, lower, parity, passes, staging, target, worth
from edgessl.backend import Backend, BuildPlan, Report, RuntimeOptions, silent
from edgessl.bundle import Manifest
from edgessl.errors import ParityError, require
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import Source, open_source, own_precision
from edgessl.spec import AudioSpec, EncoderSpec, TextSpec
from edgessl.write_errors import native_writers

_LIBRARIES = (
    "edgessl torch transformers onnx onnxscript onnxruntime openvino tensorrt "
    "tensorrt-rtx-cu13 tokenizers numpy"
).split()


@dataclass(frozen=True)
class Built:
    """A bundle that was written."""

    path: Path
    manifest: Manifest
    parity: parity.Parity


def build(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    force: bool = False,
    timing: bool = True,
    report: Report = silent,
) -> Built:
    """Build a bundle and check it against the encoder, on this machine, before it is written.

    Args:
        recipe: what to build.
        output: the bundle's directory; written whole or not at all.
        overwrite: replace a bundle that is there.
        force: write the bundle even if its parity is outside its precision's bound.
        timing: measure whether int8 is faster here than the best float precision.
        report: takes a line at each step.

    Raises:
        EdgesslError: see ``edgessl.errors``; nothing is left at *output*.
    """
    row = target.get(recipe.target)
    recipe = replace(recipe, precision=recipe.precision or own_precision(recipe.model))
    precision = str(recipe.precision)
    target.check_precision(row, precision)
    path = Path(output)
    staging.check_output(path, overwrite)
    for module in row.build_modules:
        require(module, row.extra, f"building for {row.key}")
    lower.check(recipe, row)
    steps = report if isinstance(report, Steps) else None
    with passes.chained(recipe, path, report=steps) as (smaller, _):
        return _build(smaller, path, overwrite, force, timing, report)


def _build(
    recipe: Recipe, path: Path, overwrite: bool, force: bool, timing: bool, report: Report
) -> Built:
    row, precision = target.get(recipe.target), str(recipe.precision)
    report(f"loading {recipe.model}")
    with staging.staged(path, overwrite) as stage, native_writers(stage):
        work = stage / ".work"
        work.mkdir()
        source = open_source(recipe, stage, report)
        calibrated = lower.calibration(recipe, row, source, stage)

        report("exporting to ONNX")
        onnx = work / "model.onnx"
        source.write_onnx(onnx)
        timed = timing and precision != source.precision and worth.times(row, precision)
        fp32 = shutil.copyfile(onnx, work / "fp32.onnx") if timed else onnx
        lowered = lower.lower(onnx, recipe, row, source, calibrated, _resume(path), report)
        report(f"building for {row.key}")
        plan = BuildPlan(
            target=row.key,
            precision=precision,
            profiles=_profiles(source.spec),
            workspace_mb=recipe.workspace_mb,
            compute_capabilities=recipe.compute_capabilities,
            report=report,
            repeat=ecosystem.repeated_vector(source.spec),
        )
        facts: dict[str, Any] = target.resolve(row.builder)(onnx, stage, plan) | lowered.facts

        manifest = Manifest(
            target=row.key,
            precision=precision,
            encoder=source.spec,
            provenance=replace(source.provenance, versions=_versions()),
            variant=source.variant or bundle.variant_id(_identity(source, recipe, lowered)),
            recipe=_public(recipe, source),
            compatibility=facts,
            parity={},
            compute=source.compute,
            calibration=calibrated.facts if calibrated else source.calibration,
        )
        report("checking parity with the fp32 encoder")
        result, ran = _parity(stage, manifest, source.reference)
        if not result.within and not force:
            raise ParityError(
                f"parity of {row.key} {recipe.precision} is outside its bound: {result}. The "
                "bundle was not written; --force writes it all the same."
            )
        if timed:
            report(f"timing {precision} against float, here")
            times = worth.compare(
                row, stage, manifest, fp32, plan, work, worth.feeds(source.spec, source.reference)
            )
            manifest = replace(manifest, compatibility=facts | {"timing": times})
        shutil.rmtree(work)
        for name, content in ecosystem.files(source.spec, row.key, facts, source.plain).items():
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_bytes(content)
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
        result = parity.compare(reference, opened.run, manifest.precision, manifest.encoder)
        same = all(_same_inputs(batch.inputs, opened.prepare(batch.items)) for batch in reference)
        ran = opened.describe()
    return {
        "ok": result.within and same,
        "files": [],
        "parity": _parity_json(result, ran),
        "preprocessing": same,
        "runtime": ran,
    }


def _resume(output: Path) -> Path:
    """Where calibration keeps its statistics, for the next export to *output* after a stop."""
    real = Path(os.path.realpath(output))
    return real.with_name(f".{real.name}.calibration.npz")


def _profiles(
    spec: EncoderSpec,
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Smallest, optimal and largest shape of every input."""
    low = spec.shapes(lambda axis: axis.smallest)
    best = spec.shapes(lambda axis: axis.usual)
    high = spec.shapes(lambda axis: axis.largest)
    return {name: (low[name], best[name], high[name]) for name in low}


def _identity(source: Source, recipe: Recipe, lowered: lower.Lowered) -> dict[str, Any]:
    """All that moves the vectors; see docs/bundle.md."""
    preprocessing = source.spec.to_json()["preprocessing"]
    # What a call may choose moves no vector yet.
    for offered in ("prompts", "include_prompt", "grid"):
        preprocessing.pop(offered, None)
    return {
        "weights": source.provenance.weights_sha256,
        "precision": recipe.precision,
        "pooling": source.spec.pooling,
        "normalize": source.spec.normalize,
        "preprocessing": preprocessing,
        "dimensions": source.spec.dimensions,
        **({"merged": source.spec.merged} if source.spec.merged else {}),
        **lowered.identity,
    }


def _public(recipe: Recipe, source: Source) -> dict[str, Any]:
    """The resolved recipe, without the paths of the machine that built it."""
    data = recipe.to_json()
    data["model"] = source.provenance.source
    data["passes"] = passes.public(recipe.passes)
    data["revision"] = source.provenance.revision
    data["pooling"], data["normalize"] = source.spec.pooling, source.spec.normalize
    data["features"] = source.spec.has_features
    if isinstance(source.spec.preprocessing, TextSpec):
        data["max_length"] = source.spec.preprocessing.max_length
    if isinstance(source.spec.preprocessing, AudioSpec):
        spec = source.spec.preprocessing
        data["max_seconds"] = spec.max_samples // spec.sampling_rate
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
    backend: Backend = target.resolve(opener)(stage, manifest, RuntimeOptions(cache=False))
    try:
        result = parity.compare(reference, backend.run, manifest.precision, manifest.encoder)
        return result, {**backend.describe(), **note}
    finally:
        backend.close()


def _parity_json(result: parity.Parity, ran: dict[str, Any]) -> dict[str, Any]:
    return {
        "cosine_mean": result.cosine_mean,
        "cosine_min": result.cosine_min,
        # JSON has no infinity; outputs that are not finite have cosine -1 besides
        "max_abs_diff": result.max_abs_diff if isfinite(result.max_abs_diff) else None,
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

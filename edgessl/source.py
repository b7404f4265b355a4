"""What a bundle is built from: a checkpoint (torch), or a bundle that holds an ONNX (no torch)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgessl import bundle, compression, ecosystem, hub, parity
from edgessl.backend import Arrays, Report, silent
from edgessl.encoder import Encoder
from edgessl.errors import BundleError, CheckpointError, RecipeError, Unsupported, require
from edgessl.recipe import Recipe
from edgessl.spec import PATCH_INDICES, PROBABILITIES, EncoderSpec, Provenance
from edgessl.target import get, reads

# What a manifest's compatibility says of the ONNX, and not of what was built from it.
_CARRIED = ("graph", "int8", "notes", "sparse_weights")


@dataclass(frozen=True)
class Source:
    """What a checkpoint and a bundle both give: an ONNX on demand, and what travels with it."""

    spec: EncoderSpec
    provenance: Provenance
    assets: Mapping[str, bytes]
    reference: list[parity.Batch]
    compute: dict[str, Any]
    write_onnx: Callable[[Path], object]
    precision: str = "fp32"  # of that ONNX
    # Of a bundle whose ONNX is carried over as it is: what it was called, and how it was made.
    variant: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    plain: bool = True  # see Encoder


def open_source(recipe: Recipe, stage: Path, report: Report = silent) -> Source:
    """Open what ``recipe.model`` names; its assets are written into *stage*.

    Raises:
        EdgesslError: see ``edgessl.errors``.
    """
    directory = Path(recipe.model).expanduser()
    if bundle.is_bundle(directory):
        return _open_bundle(directory, recipe, stage)
    return _open_checkpoint(recipe, stage, report)


def load_encoder(recipe: Recipe, report: Report = silent) -> Encoder:
    """Load the checkpoint that *recipe* names, with torch: a directory or a hub id.

    Raises:
        EdgesslError: see ``edgessl.hub.resolve`` and ``edgessl.encoders.load``.
    """
    for module in ("torch", "transformers", "safetensors"):
        require(module, "compress", "reading a checkpoint")
    from edgessl import encoders

    file = Path(recipe.model).expanduser()
    if file.is_file():  # weights in their authors' own layout
        found = hub.ModelSource(file, file.name, None)
    else:
        found = hub.resolve(recipe.model, recipe.revision, report)
    options = encoders.LoadOptions(
        recipe.pooling,
        recipe.normalize,
        recipe.features,
        recipe.max_length,
        recipe.image_size,
        recipe.prompt,
        recipe.dimensions,
        recipe.tower,
        recipe.probabilities,
        recipe.max_seconds,
        recipe.patch_dropping,
        recipe.merge_tokens,
    )
    passes = compression.notes(found.directory) if found.directory.is_dir() else ()
    provenance = Provenance(found.source, found.revision, passes=passes)
    return encoders.load(found.directory, options, provenance)


def _open_checkpoint(recipe: Recipe, stage: Path, report: Report) -> Source:
    encoder = load_encoder(recipe, report)
    for module in ("onnx", "onnxscript"):
        require(module, "compress", "exporting a checkpoint")
    from edgessl.encoders import run as run_encoder
    from edgessl.export import onnx_writer

    try:
        prepare = prepare_with(encoder.assets, encoder.spec, stage)
    except BundleError as err:  # it is not a bundle yet: the checkpoint's file is what is wrong
        text = str(err).replace(f"{stage}/", "").partition(". ")[0]
        raise CheckpointError(
            f"{encoder.provenance.source}: {text.replace('the manifest', 'config.json')}."
        ) from err
    reference = parity.make_reference(
        encoder.spec, prepare, lambda inputs: run_encoder.forward(encoder, inputs)
    )
    merged = run_encoder.merged(encoder, [(batch.inputs, batch.outputs) for batch in reference])
    return Source(
        spec=encoder.spec,
        provenance=encoder.provenance,
        assets=encoder.assets,
        reference=reference,
        compute=run_encoder.compute(encoder) | ({"merging": merged} if merged else {}),
        write_onnx=lambda path: onnx_writer.write(encoder, path),
        plain=encoder.plain,
    )


def prepare_with(
    assets: Mapping[str, bytes], spec: EncoderSpec, stage: Path
) -> Callable[[list[Any]], Arrays]:
    """The device's own preprocessing, reading *assets* from where the bundle will have them."""
    from edgessl.runtimes import batches, session

    for name, content in assets.items():
        (stage / name).write_bytes(content)
    return functools.partial(batches.one_batch, session.open_preprocessor(stage, spec))


def _open_bundle(directory: Path, recipe: Recipe, stage: Path) -> Source:
    """A bundle that holds an ONNX can be built for another target, on a device, without torch."""
    from edgessl.export import onnx_graph

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
    for name in (
        "revision",
        "pooling",
        "normalize",
        "max_length",
        "image_size",
        "prompt",
        "dimensions",
        "tower",
        "max_seconds",
        "patch_dropping",
        "merge_tokens",
    ):
        if getattr(recipe, name) is not None:
            raise RecipeError(f"--{name.replace('_', '-')}: fixed in the bundle {directory}.")
    if recipe.probabilities and manifest.encoder.pooling != PROBABILITIES:
        raise RecipeError(f"--probabilities: the bundle {str(directory)!r} was exported without.")
    if recipe.features and not manifest.encoder.has_features:
        raise RecipeError(f"--features: the bundle {str(directory)!r} was exported without.")
    have, same = manifest.precision, recipe.precision == manifest.precision
    if (have != "fp32" and not same) or not reads(get(recipe.target), get(manifest.target), have):
        made_for = f" made for {manifest.target}" if same else ""
        raise Unsupported(
            f"{str(directory)!r} holds {have}{made_for}; --target {recipe.target} --precision "
            f"{recipe.precision} has to be exported from the checkpoint, or from a bundle in fp32."
        )
    chooses = any(spec.name == PATCH_INDICES for spec in manifest.encoder.inputs)
    if chooses and recipe.target != manifest.target == "onnx":  # its default has to go
        require("onnx", "compress", f"building for {recipe.target} from a bundle of an MAE")
    assets = {
        name: (directory / name).read_bytes()
        for name in manifest.files
        if name.endswith(".json") and name not in ("build_plan.json", *ecosystem.NAMES)
    }
    for name, content in assets.items():
        (stage / name).write_bytes(content)
    return Source(
        spec=manifest.encoder,
        provenance=manifest.provenance,
        assets=assets,
        reference=parity.read(directory / bundle.REFERENCE),
        compute=manifest.compute,
        write_onnx=lambda path: onnx_graph.copy_without_repeat(onnx, path),
        precision=have,
        variant=manifest.variant if same else None,
        facts={k: manifest.compatibility[k] for k in _CARRIED if k in manifest.compatibility},
        calibration=manifest.calibration,
        plain=ecosystem.MODULES in manifest.files,
    )


def own_precision(model: str) -> str:
    """What a bundle has; checkpoints are built in fp32 unless something else is asked for."""
    directory = Path(model).expanduser()
    return bundle.read(directory).precision if bundle.is_bundle(directory) else "fp32"

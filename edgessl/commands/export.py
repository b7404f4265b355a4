"""``edgessl export``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgessl.commands.options import json_option, quiet_option
from edgessl.errors import RecipeError
from edgessl.progress import Steps
from edgessl.target import PRECISIONS, TARGETS

if TYPE_CHECKING:
    from edgessl.recipe import Recipe

_EXAMPLES = """\b
Examples:
  edgessl export ./all-MiniLM-L6-v2 -t openvino -o minilm/
  edgessl export sentence-transformers/all-MiniLM-L6-v2 -t onnx -o minilm/
  edgessl export ./all-MiniLM-L6-v2 -t openvino -p int8 -c texts.txt -o minilm-int8/
  edgessl export minilm/ -t onnx -p int8-weight-only -o minilm-8bit/     no data
  edgessl export ./vit-mae -t tensorrt-rtx -p fp16 --compute-capability 8.6 -o mae/
  edgessl export onnx-bundle/ -t tensorrt -o engine/     on the device, no torch
  edgessl export --recipe recipe.toml -o bundle/ --json  the manifest on stdout

Exit codes: 0 written, 1 parity out of bound, 2 wrong use, 3 something missing
or unsupported, 4 a damaged bundle."""


@click.command(short_help="Make a bundle of a model, checked against it.", epilog=_EXAMPLES)
@click.argument("model", required=False)
@click.option("--target", "-t", help=f"Where it will run: {', '.join(TARGETS)}.")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="The bundle's directory; written whole or not at all.",
)
@click.option(
    "--precision", "-p", help=f"{', '.join(PRECISIONS)}.  [default: fp32; a bundle's own]"
)
@click.option(
    "--calibration",
    "-c",
    metavar="DATA",
    help="For int8: a text file or table; a folder of images, .wav files or folders of frames; "
    "an .npy; see docs/calibration.md.  [default: what edgessl carries]",
)
@click.option("--calibration-column", metavar="NAME", help="Of a table; several with commas.")
@click.option("--samples", type=click.IntRange(min=1), help="Calibration items.  [default: 300]")
@click.option("--seed", type=int, help="Draws the calibration items.  [default: 0]")
@click.option(
    "--method",
    help="How int8 finds ranges: auto, minmax, percentile, entropy, mse.  [default: auto]",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="NAME",
    help="A layer that int8 leaves alone, as inspect --sensitivity names it; globs; repeatable.",
)
@click.option("--max-drop", metavar="METRIC=X", help="Leave as many layers float as it takes.")
@click.option(
    "--isa",
    help="CPUs that int8 is for: vnni; any, also those without VNNI; auto: vnni where this machine "
    "is exact.  [default: auto]",
)
@click.option("--pooling", help="cls, mean, max or none.  [default: the model's own, else mean]")
@click.option(
    "--normalize/--no-normalize",
    default=None,
    help="Unit-length vectors.  [default: the model's own, else no]",
)
@click.option("--features", is_flag=True, default=None, help="Also put out last_hidden_state.")
@click.option("--max-length", type=int, help="Tokens a text is cut at.  [default: the model's own]")
@click.option("--max-seconds", type=int, help="Where audio is cut.  [default: 30]")
@click.option("--prompt", metavar="NAME", help="One of the model's prompts, before every text.")
@click.option("--image-size", metavar="N|HxW", help="Pixels.  [default: the model's own]")
@click.option(
    "--patch-dropping/--no-patch-dropping",
    default=None,
    help="Let sessions leave out patches of an image.  [default: yes where pretrained so (MAE)]",
)
@click.option(
    "--merge-tokens",
    type=click.IntRange(min=1),
    metavar="R",
    help="Merge R tokens in each layer of a vision transformer (ToMe): faster, less exact.",
)
@click.option("--dimensions", type=int, help="Keep the first so many of the vector (Matryoshka).")
@click.option("--tower", help="image or text, of a model that has both (CLIP, SigLIP).")
@click.option(
    "--probabilities",
    is_flag=True,
    default=None,
    help="Of a fine-tuned classifier, instead of a vector.",
)
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="X.Y",
    help="GPU a tensorrt-rtx engine is for; repeatable.",
)
@click.option("--workspace-mb", type=click.IntRange(min=1), help="For TensorRT.  [default: 1024]")
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path),
    metavar="R.TOML",
    help="Take the options from a recipe; flags override it.",
)
@click.option(
    "--no-timing",
    "timing",
    is_flag=True,
    default=True,
    flag_value=False,
    help="Do not measure whether int8 is faster here.",
)
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@click.option("--force", is_flag=True, help="Write it even if parity is outside its bound.")
@quiet_option
@json_option
def export(
    recipe_path: Path | None,
    output: Path,
    timing: bool,
    overwrite: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Export MODEL as a bundle: a directory that a device runs without torch.

    MODEL is a directory in the Hugging Face layout, a hub id, or a bundle that holds an ONNX.
    The bundle is compared with the fp32 model, through the runtime it is for, before it is
    written.
    """
    from edgessl import inspection, pipeline, worth
    from edgessl import recipe as recipes

    recipe = recipes.read(recipe_path) if recipe_path else recipes.Recipe()
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if "image_size" in given:
        given["image_size"] = recipes.image_size(given["image_size"], "--image-size")
    recipe = replace(recipe, **given)
    for name, example in (("model", "a directory or hub id"), ("target", "--target openvino")):
        if not getattr(recipe, name):
            raise RecipeError(f"no {name} given: pass {example}, or name it in a recipe.")
    _check_flags(given, recipe)
    with Steps(quiet) as steps:
        built = pipeline.build(
            recipe, output, overwrite=overwrite, force=force, timing=timing, report=steps
        )
    manifest = built.manifest
    size = sum(entry.size for entry in manifest.files.values())
    if as_json:
        facts = {"path": str(built.path), "size": size, **json.loads(manifest.dumps())}
        click.echo(json.dumps(facts, indent=2))
        return 0
    spec = manifest.encoder
    click.echo(
        f"bundle   {built.path}  ({manifest.target} {manifest.precision}, {size / 1e6:.1f} MB)"
    )
    click.echo(
        f"encoder  {spec.family}, pooling {spec.pooling}"
        f"{', normalized' if spec.normalize else ''}, variant {manifest.variant}"
    )
    for line in manifest.provenance.assumptions:
        click.echo(f"assumed  {line}")
    if "merging" in manifest.compute:
        click.echo(f"merging  {inspection.merging(manifest.compute['merging'])}")
    click.echo(f"parity   {built.parity}")
    ran = manifest.parity["ran"]
    click.echo(f"         measured on {ran['runtime']} {ran['version']}, {ran['device']}")
    for key in ("stand_in", "inference"):
        if key in ran:
            click.echo(f"         {ran[key]}")
    for line in _int8_lines(manifest.compatibility.get("graph", {})):
        click.echo(f"int8     {line}")
    for line in worth.lines(manifest.compatibility.get("timing", ()), manifest.precision):
        click.echo(f"speed    {line}")
    for note in manifest.compatibility.get("notes", ()):
        click.echo(f"note     {note}")
    for note in (manifest.calibration or {}).get("notes", ()):
        click.echo(f"warning  {note}", err=True)
    if not built.parity.within:
        click.echo("warning  parity is outside its bound; written because of --force", err=True)
    return 0


def _int8_lines(graph: dict[str, Any]) -> list[str]:
    """What static int8 did, of the manifest's facts."""
    counts, trade = graph.get("operators"), graph.get("trade")
    lines = []
    if isinstance(counts, dict):
        lines.append(f"{counts['int8']} operators in int8, {counts['float']} in float")
    if trade is not None:
        lines.append(
            f"{trade['metric']} {trade['reached']:.5f} on calibration data; all in int8 "
            f"{trade['all_int8']:.5f}; kept in float: {', '.join(trade['kept_in_float']) or 'none'}"
        )
    if "without_vnni" in graph:
        found = graph["without_vnni"]
        lines.append(
            f"a CPU without VNNI would give cosine {found['cosine_mean']:.5f} mean, "
            f"{found['cosine_min']:.5f} lowest; --isa any is for those"
        )
    return lines


def _check_flags(given: dict[str, Any], recipe: Recipe) -> None:
    """Refuse flags that would do nothing: who gives one expects something of it."""
    from edgessl.source import own_precision

    own = own_precision(recipe.model)
    precision = recipe.precision or own
    engines = [row.key for row in TARGETS.values() if row.needs_gpu]
    calibrated = ("calibration", "calibration_column", "samples", "seed")
    for name in (*calibrated, "method", "exclude", "max_drop", "isa"):
        if name not in given:
            continue
        flag = f"--{name.replace('_', '-')}"
        able = ["int8"]
        if name in calibrated and recipe.target in engines:
            able.append("fp16")
        elif name == "isa":
            able.append("int8-dynamic")
        if precision not in able:
            wanted = " and ".join(able)
            raise RecipeError(f"{flag} is for {wanted}, but this is {precision}: add -p int8.")
        if precision == own:
            raise RecipeError(f"{flag}: fixed in the bundle {recipe.model!r}, which is {own}.")
        if name == "isa" and recipe.target in engines:
            raise RecipeError(f"--isa is for CPUs, not --target {recipe.target}.")
        if name in calibrated[1:] and precision == "fp16" and not recipe.calibration:
            raise RecipeError(f"{flag} is for --calibration, which is not given.")
    for name, flag in (
        ("compute_capabilities", "--compute-capability"),
        ("workspace_mb", "--workspace-mb"),
    ):
        if name in given and recipe.target in TARGETS and recipe.target not in engines:
            raise RecipeError(f"{flag} is for --target {'|'.join(engines)}, not {recipe.target}.")

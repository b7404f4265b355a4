"""The fp32 ONNX -> the same encoder in the bundle's precision, before the target's builder."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl import isa
from edgessl.backend import Arrays, Report
from edgessl.errors import RecipeError, nearest, require
from edgessl.recipe import Recipe
from edgessl.source import Source, own_precision, prepare_with
from edgessl.target import Target

if TYPE_CHECKING:
    from edgessl.calibrate.observe import Data
    from edgessl.calibrate.quantize import Options
    from edgessl.calibrate.sensitivity import Limit

VERSION = "edgessl-1"  # enters the variant: raise it when the code moves the vectors
ISAS = ("auto", "vnni", "any")
_WEIGHT_BITS = {"int8-weight-only": 8, "int4-weight-only": 4}
_ON_CPU = ("int8", "int8-dynamic")  # integer sums, which saturate on some CPUs
_SECONDS = 5.0  # between two lines of one count
_BATCH = 8  # items at once, while looking for overflow
_BATCH_NOTE = (
    "vectors depend on what else is in the batch: embed one at a time, or use --precision int8"
)


@dataclass(frozen=True)
class Calibrated:
    """Calibration data: ``facts`` of it for the manifest."""

    facts: dict[str, Any]
    data: Data


@dataclass(frozen=True)
class Lowered:
    """What was done: ``facts`` for the manifest's ``compatibility``; ``identity``: what of it
    moves the vectors."""

    facts: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)


def calibrates(row: Target, precision: str) -> bool:
    """Whether calibration data has a use: ranges of int8, and where fp16 overflows on a GPU."""
    return precision == "int8" or (precision == "fp16" and row.needs_gpu)


def check(recipe: Recipe, row: Target) -> None:
    """Find out before any long work what can be known of it; ``recipe.precision`` is set.

    Raises:
        RecipeError: an unknown value, or calibration data that is not there.
        MissingDependency: a library that the conversion needs.
    """
    precision = str(recipe.precision)
    if precision == own_precision(recipe.model):
        return
    if precision in _ON_CPU:
        _known("isa", recipe.isa, ISAS)
    if precision == "int8":
        from edgessl.calibrate import quantizers

        _known("method", recipe.method, quantizers.METHODS)
        _limit(recipe)
    if calibrates(row, precision):
        if recipe.calibration and not Path(recipe.calibration).exists():
            raise RecipeError(f"calibration data {recipe.calibration!r}: no such file or folder.")
        if recipe.calibration_column and not recipe.calibration:
            raise RecipeError("--calibration-column names a column of --calibration, not given.")
    if _in_graph(row, precision):
        require("onnx", "compress", f"converting to {precision}")
        if precision in _ON_CPU or calibrates(row, precision):
            require("onnxruntime", "onnx", f"converting to {precision}")


def calibration(recipe: Recipe, row: Target, source: Source, stage: Path) -> Calibrated | None:
    """The data that *recipe* names; for int8 else what edgessl carries. None: none is needed.

    Args:
        stage: the bundle being made, which has the source's assets.

    Raises:
        RecipeError: see ``calibrate.data.load``.
    """
    precision = str(recipe.precision)
    wanted = source.precision != precision and calibrates(row, precision)
    if not wanted or not (precision == "int8" or recipe.calibration):
        return None
    from edgessl.calibrate import builtin, data, observe

    task = source.spec.task
    if recipe.calibration:
        path, column = Path(recipe.calibration), recipe.calibration_column
        chosen = data.load(path, task, recipe.samples, recipe.seed, column)
        if precision == "int8":
            chosen = builtin.beside(chosen, task, recipe.samples, recipe.seed)
    else:
        chosen = builtin.builtin(task, recipe.samples, recipe.seed)
    facts = chosen.to_json() | ({"notes": list(chosen.notes)} if chosen.notes else {})
    prepare = prepare_with(source.assets, source.spec, stage)
    return Calibrated(facts, observe.Data(chosen.items, prepare, source.spec))


def options(recipe: Recipe, row: Target) -> Options:
    """How *recipe* wants static int8 for *row*."""
    from edgessl.calibrate import quantize

    return quantize.Options(
        method=recipe.method,
        saturating=_reduced(recipe) and not row.needs_gpu,
        exclude=recipe.exclude,
        max_drop=_limit(recipe),
    )


def lower(
    path: Path,
    recipe: Recipe,
    row: Target,
    source: Source,
    calibrated: Calibrated | None,
    resume: Path,
    report: Report,
) -> Lowered:
    """Bring the ONNX at *path* to ``recipe.precision``, in place.

    Args:
        resume: where statistics of a long calibration are kept until it is through.

    Raises:
        EdgesslError: see the modules of ``calibrate`` and ``export`` that do the work.
    """
    precision = str(recipe.precision)
    if source.precision == precision:
        return Lowered(source.facts)
    if not _in_graph(row, precision):
        return Lowered(identity={"half": row.key} if precision != "fp32" else {})
    onnx = require("onnx", "compress", f"converting to {precision}")
    golden = [batch.inputs for batch in source.reference]
    if precision == "int8":
        assert calibrated is not None  # ``calibration`` has seen to it
        report("quantizing to int8")
        done = _static(path, recipe, row, calibrated, resume, report)
        if not row.needs_gpu:
            return done
        model = onnx.load(str(path))
        half = _half(model, row, "fp16", [*golden, *calibrated.data.feeds(64)], report)
        done = Lowered(_merged(done.facts, half.facts), done.identity | half.identity)
    elif precision in ("fp16", "bf16"):
        report(f"converting to {precision}")
        model = onnx.load(str(path))
        done = _half(model, row, precision, _feeds(golden, calibrated), report)
    else:
        report(f"quantizing to {precision}")
        model = onnx.load(str(path))
        done = _without_data(model, recipe, row)
    onnx.save(model, str(path))
    return done


def _known(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise RecipeError(
            f"unknown {name} {value!r}.{nearest(value, known)} Known: {', '.join(known)}."
        )


def _limit(recipe: Recipe) -> Limit | None:
    from edgessl.calibrate.sensitivity import Limit

    return None if recipe.max_drop is None else Limit.parse(recipe.max_drop)


def _sparing(report: Report) -> Report:
    """*report*, but what is counted ("calibrating 3/300") only every few seconds."""
    shown: dict[str, float] = {}

    def say(line: str) -> None:
        what, _, count = line.rpartition(" ")
        now = time.monotonic()
        if "/" not in count or now - shown.get(what, -_SECONDS) >= _SECONDS:
            shown[what] = now
            report(line)

    return say


def _in_graph(row: Target, precision: str) -> bool:
    """Whether the ONNX itself gets the precision. OpenVINO rounds weights to 16 bits as it writes
    them, and computes by its hint."""
    return precision != "fp32" and not (row.key == "openvino" and precision in ("fp16", "bf16"))


def _static(
    path: Path, recipe: Recipe, row: Target, calibrated: Calibrated, resume: Path, report: Report
) -> Lowered:
    from edgessl.calibrate import quantize

    chosen = options(recipe, row)
    reduced = chosen.saturating
    try:
        facts = quantize.static(
            path, calibrated.data, row.int8, chosen, resume=resume, report=_sparing(report)
        )
    except Exception:  # Ctrl-C and SIGTERM are none: after them the next export goes on there
        resume.unlink(missing_ok=True)
        raise
    identity = {
        "quantizer": VERSION,
        "scheme": asdict(row.int8),
        "options": [recipe.method, reduced, sorted(recipe.exclude), recipe.max_drop],
        "calibration": calibrated.facts["sha256"],
    }
    return Lowered(_facts(facts, None if row.needs_gpu else reduced), identity)


def _without_data(model: Any, recipe: Recipe, row: Target) -> Lowered:
    from edgessl.calibrate import dynamic, weight_only

    precision = str(recipe.precision)
    identity: dict[str, Any] = {"quantizer": VERSION}
    if precision == "int8-dynamic":
        reduced = _reduced(recipe)
        facts = dynamic.quantize(model, reduced) | {"notes": [_BATCH_NOTE]}
        return Lowered(_facts(facts, reduced), identity | {"reduced": reduced})
    runtime = "tensorrt" if row.needs_gpu else row.key
    facts = weight_only.quantize(model, _WEIGHT_BITS[precision], runtime=runtime)
    return Lowered(_facts(facts, None), identity | {"scheme": runtime})


def _half(
    model: Any, row: Target, precision: str, feeds: Iterable[Arrays], report: Report
) -> Lowered:
    """16 bits for what is float in *model*, in place. bf16 has fp32's range: nothing overflows;
    nor does it in ONNX Runtime, which computes in fp32 where the CPU has no fp16."""
    from edgessl.export import half

    found: list[Any] = []
    if precision == "fp16" and row.needs_gpu:
        from edgessl.calibrate import overflow

        ignore = half.never_rounded(model, precision)
        found = overflow.find(model, feeds, precision, ignore=ignore)
    keep = [one.node for one in found]
    half.convert(model, precision, keep)
    identity = {"half": VERSION, "kept": keep}
    if not found:
        return Lowered({}, identity)
    lines = [str(one) for one in found]
    more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    report(f"keeping in fp32 what overflows in fp16: {lines[0]}{more}")
    note = f"kept in fp32, as fp16 overflows there: {lines[0]}{more}"
    return Lowered({"graph": {"kept_in_fp32": lines}, "notes": [note]}, identity)


def _feeds(golden: list[Arrays], calibrated: Calibrated | None) -> Iterator[Arrays]:
    yield from golden
    if calibrated is not None:
        for batch in calibrated.data.batches(_BATCH):
            yield calibrated.data.prepare(batch)


def _reduced(recipe: Recipe) -> bool:
    """Whether weights must be right on CPUs whose int8 sums saturate."""
    if recipe.isa != "auto":
        return recipe.isa == "any"
    here = isa.this_processor()
    return isa.arithmetic(here.flags, here.machine).kind != "exact"


def _facts(facts: dict[str, Any], reduced: bool | None) -> dict[str, Any]:
    """A quantizer's facts as the manifest has them; *reduced* None: no integer sums on a CPU."""
    facts = dict(facts)
    notes = facts.pop("notes", [])
    arithmetic = isa.facts(isa.REDUCED if reduced else isa.FULL)
    return (
        {"graph": facts}
        | ({} if reduced is None else {"int8": arithmetic})
        | ({"notes": list(notes)} if notes else {})
    )


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = one | other
    for key in one.keys() & other.keys():
        both = one[key], other[key]
        merged[key] = both[0] + both[1] if isinstance(both[0], list) else both[0] | both[1]
    return merged

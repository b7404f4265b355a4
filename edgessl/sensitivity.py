"""``edgessl inspect MODEL --sensitivity``: what int8 costs, operator by operator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgessl import lower, target
from edgessl.backend import Report, silent
from edgessl.errors import Unsupported, require
from edgessl.recipe import Recipe
from edgessl.source import open_source

_KEPT = (0, 1, 2, 4, 8, 16)  # operators in float, of which the effect is shown


def measure(recipe: Recipe, report: Report = silent) -> dict[str, Any]:
    """Put each operator of the encoder alone into int8, then each block, and see what the vector
    loses; and what it loses when the worst stay in float.

    Args:
        recipe: as for an int8 export; ``target`` (default onnx) decides the form of int8.

    Returns:
        ``operators`` and ``blocks``: rows of ``layer``, ``nodes``, ``snr_db``, ``cosine_mean`` and
        ``cosine_min``, the worst first; ``curve``: rows of ``float`` (how many stay in float),
        ``cosine_mean``, ``cosine_min`` and ``exclude``, the names to give to ``--exclude``.

    Raises:
        EdgesslError: as an int8 export would.
    """
    row = target.get(recipe.target or "onnx")
    recipe = replace(recipe, target=row.key, precision="int8")
    onnx = require("onnx", "compress", "measuring sensitivity")
    lower.check(recipe, row)
    report(f"loading {recipe.model}")
    with tempfile.TemporaryDirectory(prefix="edgessl-") as folder:
        stage = Path(folder)
        source = open_source(recipe, stage, report)
        if source.precision != "fp32":
            raise Unsupported(
                f"{recipe.model!r} holds {source.precision}: sensitivity is measured from the "
                "checkpoint, or from a bundle in fp32."
            )
        calibrated = lower.calibration(recipe, row, source, stage)
        report("exporting to ONNX")
        path = stage / "model.onnx"
        source.write_onnx(path)
        model = onnx.load(str(path))
        from edgessl.calibrate import quantize, sensitivity

        assert calibrated is not None  # int8 always has data, if only the built-in
        data = calibrated.data
        options = lower.options(recipe, row)
        _, plan = quantize.make_plan(model, data, row.int8, options, report=report)
        operators, blocks = sensitivity.rank(model, plan, data, report)
        trial = sensitivity.Trial(model, plan, data)
        ranked = [effect.nodes[0] for effect in operators]
        layers = {operator.node: operator.layer for operator in plan.operators}
        curve = []
        for count in (count for count in _KEPT if count < len(ranked)):
            report(f"measuring with {count} operators in float")
            near = trial.compare(ranked[count:])
            names = [layers[node] for node in ranked[:count]]
            curve.append({"float": count, **near, "exclude": names})
    return {
        "target": row.key,
        "calibration": calibrated.facts,
        "operators": [effect.to_json() for effect in operators],
        "blocks": [effect.to_json() for effect in blocks],
        "curve": curve,
    }


def render(found: Mapping[str, Any], all_of_them: bool) -> str:
    """*found* as tables for a person; the ten worst operators unless *all_of_them*."""
    shown = found["operators"] if all_of_them else found["operators"][:10]
    more = len(found["operators"]) - len(shown)
    lines = _table("operator alone in int8", shown)
    if more:
        lines.append(f"... and {more} more: --layers shows them")
    lines += [
        "",
        *_table("block in int8", found["blocks"] if all_of_them else found["blocks"][:10]),
    ]
    lines += ["", f"{'in float':>8}  {'cosine':>9}  {'lowest':>9}"]
    lines += [
        f"{row['float']:>8}  {row['cosine_mean']:>9.6f}  {row['cosine_min']:>9.6f}"
        for row in found["curve"]
    ]
    fix = halving(found["curve"])
    if fix is not None:
        flags = " ".join(f"--exclude {name}" for name in fix["exclude"])
        lines += ["", f"to halve the loss, export with: {flags}"]
    return "\n".join(lines)


def halving(curve: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first row of *curve* with at most half of the loss of all in int8."""
    loss = 1 - curve[0]["cosine_mean"]
    return next((row for row in curve[1:] if 1 - row["cosine_mean"] <= loss / 2), None)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    width = max([len(title), *(len(row["layer"]) for row in rows)])
    lines = [f"{title:<{width}}  {'own SNR':>8}  {'cosine':>9}  {'lowest':>9}"]
    for row in rows:
        own = "" if row["snr_db"] is None else f"{row['snr_db']:.1f} dB"
        lines.append(
            f"{row['layer']:<{width}}  {own:>8}  {row['cosine_mean']:>9.6f}  "
            f"{row['cosine_min']:>9.6f}"
        )
    return lines

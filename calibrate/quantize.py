"""Static int8 from calibration data: one calibration, and each target's own placement.

Statistics of one pass (``observe``) -> quantizers by measured error (``quantizers``) -> weights
rounded to go with them (``gptq``) -> Q/DQ where the target's kernels fuse them (``placement``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.backend import Report, silent
from edgessl.calibrate import (
    observe,
    onnxruntime_int8,
    placement,
    quantizers,
    sensitivity,
    splitting,
    weight_only,
)
from edgessl.calibrate.observe import Data, Statistics
from edgessl.calibrate.operators import Graph, Operator
from edgessl.calibrate.sensitivity import Limit
from edgessl.errors import RecipeError, Unsupported, nearest, require
from edgessl.target import Int8

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Options:
    """How to quantize.

    ``method``: of ranges, one of ``quantizers.METHODS``. ``saturating``: keep weights to what
    processors without VNNI compute exactly. ``exclude``: layers or nodes that stay in float, with
    ``*`` for anything. ``max_drop``: what may be lost; the operators that lose most stay in float.
    """

    method: str = quantizers.AUTO
    saturating: bool = False
    exclude: tuple[str, ...] = ()
    max_drop: Limit | None = None


def static(
    path: Path,
    data: Data,
    form: Int8,
    options: Options | None = None,
    *,
    resume: Path | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Quantize the fp32 ONNX at *path*, in place.

    Args:
        resume: statistics are saved here every few seconds while they are gathered, and gone on
            from when they are of the same graph, data and options.

    Returns:
        facts for the manifest: ``scheme``, ``method``, ``operators`` (in ``int8`` and in
        ``float``), ``float_layers``, ``trade`` where something may have to stay in float, and
        ``without_vnni``: cosines to the float graph on a processor whose sums saturate.

    Raises:
        MissingDependency: onnx or onnxruntime is not installed.
        RecipeError: an unknown method, or an ``exclude`` that nothing is called.
        Unsupported: the graph has nothing to quantize, or its activations are not finite.
    """
    options = options or Options()
    onnx = require("onnx", "compress", "int8 quantization")
    model = onnx.load(str(path))
    found, plan = make_plan(model, data, form, options, resume=resume, report=report)
    kept: dict[str, Any] = {}
    nodes = {operator.node for operator in plan.operators}
    if options.max_drop is not None:
        nodes, kept = sensitivity.within(model, plan, data, options.max_drop, report)
    report("writing int8")
    trial = None if form.signed or options.saturating else sensitivity.Emulation(model, data)
    placement.place(model, plan, nodes)
    if trial is not None:
        report("computing as a processor without VNNI would")
        kept |= {"without_vnni": trial.compare(model, "onnx" if form.fused else "openvino")}
    weight_only.quantize_embeddings(model, "tensorrt" if form.signed else "onnx")
    if form.fused:
        onnxruntime_int8.fuse(model)
    onnx.save(model, str(path))
    if resume is not None:
        resume.unlink(missing_ok=True)
    floats = [operator.layer for operator in found if operator.node not in nodes]
    return {
        "scheme": f"int8 {'symmetric' if form.signed else 'asymmetric'}, static",
        "method": options.method,
        "operators": {"int8": len(nodes), "float": len(floats)},
        "float_layers": floats,
        **kept,
    }


def make_plan(
    model: onnx.ModelProto,
    data: Data,
    form: Int8,
    options: Options,
    *,
    resume: Path | None = None,
    report: Report = silent,
) -> tuple[list[Operator], placement.Plan]:
    """All operators of *model*, and how those that become int8 do so."""
    if options.method not in quantizers.METHODS:
        raise RecipeError(
            f"unknown method {options.method!r}.{nearest(options.method, quantizers.METHODS)} "
            f"Methods: {', '.join(quantizers.METHODS)}."
        )
    graph = Graph(model)
    if not graph.operators:
        raise Unsupported("this encoder has no matrix product or convolution that int8 could take.")
    chosen = _chosen(graph, form, options.exclude)
    seen = _statistics(graph, chosen, data, resume, report).tensors
    report("choosing ranges and smoothing")
    found: dict[str, quantizers.Quantizer] = {}
    for group in graph.groups(chosen):
        found |= quantizers.choose(graph, group, seen, signed=form.signed, method=options.method)
    report("rounding weights")
    saturating = options.saturating
    return graph.operators, placement.plan(graph, chosen, found, seen, saturating)


def _chosen(graph: Graph, form: Int8, exclude: Sequence[str]) -> list[Operator]:
    able = [o for o in graph.operators if form.convolutions or o.kind != "Conv"]
    if not able:
        raise Unsupported(
            "this encoder has only convolutions, which this target computes faster in float than "
            "in int8. Use --target openvino, or --precision fp16."
        )
    names = sorted({name for o in graph.operators for name in (o.layer, o.node)})
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RecipeError(
                f"--exclude {pattern!r}: no layer is called that.{nearest(pattern, names)} "
                "edgessl inspect MODEL --sensitivity lists them."
            )
    chosen = [o for o in able if not any(_is(o, pattern) for pattern in exclude)]
    if not chosen:
        raise RecipeError("--exclude leaves nothing to quantize; use --precision fp32.")
    return chosen


def _is(operator: Operator, pattern: str) -> bool:
    return fnmatchcase(operator.layer, pattern) or fnmatchcase(operator.node, pattern)


def _statistics(
    graph: Graph, operators: Sequence[Operator], data: Data, resume: Path | None, report: Report
) -> Statistics:
    tensors: dict[str, str] = {}
    for operator in operators:
        behind = graph.normalization_behind(operator)
        if behind is not None:
            tensors.setdefault(behind.input[0], "rows")
        path = splitting.activation_path(graph, operator.activations)
        if path is not None:
            tensors.setdefault(path[0].output, "rows")
    for operator in operators:
        tensors[operator.activations] = "planes" if operator.kind == "Conv" else "gram"
    layers = {operator.activations: operator.layer for operator in operators}
    key = None if resume is None else _key(graph.model, data, tensors)
    return observe.observe(
        graph.model,
        data,
        tensors,
        layers=layers,
        resume=None if resume is None or key is None else (resume, key),
        progress=lambda done, total: report(f"calibrating {done}/{total}"),
    )


def _key(model: onnx.ModelProto, data: Data, tensors: dict[str, str]) -> str:
    digest = hashlib.sha256(model.SerializeToString())
    digest.update(repr((data.spec, sorted(tensors.items()))).encode())
    for item in data.items:
        digest.update(item.tobytes() if hasattr(item, "tobytes") else str(item).encode())
    return digest.hexdigest()

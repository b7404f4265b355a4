"""The child process that builds one engine: the only code that calls TensorRT's builder.

The builder can end its process (TensorRT for RTX 1.7 does on some graphs), holds gigabytes
while it works and keeps one logger a process, so it gets a process of its own. The job comes
as JSON on stdin; the engine and a JSON result are written to the paths that the job names.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

from edgessl import cache
from edgessl.errors import EdgesslError, RecipeError, Unsupported, nearest, require
from edgessl.target import get

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
# The type that the graph must hold somewhere for an engine to deserve its precision's name.
_TYPES = {
    "fp16": "HALF",
    "bf16": "BF16",
    "int8": "INT8",
    "int8-weight-only": "INT8",
    "int4-weight-only": "INT4",
}
# What TensorRT 8.6 must be allowed to use; what is float in an int8 graph is fp16.
_FLAGS = {
    "fp16": ("FP16",),
    "bf16": ("BF16",),
    "int8": ("INT8", "FP16"),
    "int8-weight-only": ("INT8",),
    "int4-weight-only": ("INT4",),
}


def main() -> None:
    """Carry out the job on stdin; an ``EdgesslError`` becomes ``{"error": class, "message": ...}``."""
    job = json.load(sys.stdin)
    try:
        result = build(job)
    except EdgesslError as err:
        result = {"error": type(err).__name__, "message": str(err)}
    except OSError as err:  # the disk is full, or not ours to write on
        result = {"error": "OutputError", "message": f"the engine cannot be written: {err}"}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Parse ``job["onnx"]``, build, write ``job["engine"]``; returns facts for the manifest.

    Raises:
        MissingDependency: the TensorRT package is not installed.
        RecipeError: profiles that do not fit the graph's inputs.
        Unsupported: TensorRT refuses the graph, the precision or the compute capability.
    """
    target = get(job["target"])
    package = target.modules[0]
    trt = require(package, target.extra, f"building a {target.key} engine")
    title = f"{package} {trt.__version__}"
    problems: deque[str] = deque(maxlen=50)
    logger = _logger(trt, problems)
    builder = trt.Builder(logger)

    kinds = trt.NetworkDefinitionCreationFlag
    # Strongly typed (TensorRT 10, 11, RTX): every type is the ONNX's own, so the engine computes
    # what the parity check of that ONNX measured. 8.6 has only precision flags.
    typed = hasattr(kinds, "STRONGLY_TYPED")
    flag = kinds.STRONGLY_TYPED if typed else kinds.EXPLICIT_BATCH
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    _parse(parser, network, job["onnx"], title, problems)
    _check_types(network, trt, job["precision"], title, typed)

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace_mb"] << 20)
    _add_profile(builder, config, network, job["profiles"])
    tf32 = job["precision"] != "fp32"
    if not tf32:  # on by default, and 13 bits short of the fp32 that was asked for
        config.clear_flag(trt.BuilderFlag.TF32)
    for name in () if typed else _FLAGS.get(job["precision"], ()):
        precision_flag = getattr(trt.BuilderFlag, name, None)
        if precision_flag is None:
            raise Unsupported(f"{title} has no {job['precision']}. Use another --precision.")
        config.set_flag(precision_flag)
    if job["sparse"]:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if not typed and "FP16" in _FLAGS.get(job["precision"], ()):
        _keep_floats(network, config, trt)
    capabilities: list[str] = []  # TensorRT proper builds for the GPU that it finds
    if package == "tensorrt_rtx":
        capabilities = _set_capabilities(config, trt, job["compute_capabilities"], title)

    timing = Path(job["timing"]) if job.get("timing") else None
    if timing:
        _recall(config, timing)
    engine = builder.build_serialized_network(network, config)
    if timing and engine is not None:
        _remember(config, timing)
    if engine is None:
        reason = _last(problems)
        if "OutOfMemory" in reason:
            reason += (
                f" It may use {job['workspace_mb']} MB: raise --workspace-mb, or make the largest "
                "input smaller (--max-length, --max-seconds)."
            )
        raise Unsupported(f"{title} cannot build an engine from {Path(job['onnx']).name}: {reason}")
    Path(job["engine"]).write_bytes(engine)
    return {
        "package": package,
        "version": trt.__version__,
        "compute_capabilities": capabilities,
        "strongly_typed": typed,
        "tf32": tf32,
    }


def _recall(config: Any, timing: Path) -> None:
    """Let the builder use how long kernels took when it last tried them on this GPU."""
    if not hasattr(config, "create_timing_cache"):
        return
    known = config.create_timing_cache(cache.get(timing) or b"")
    if known is not None:
        config.set_timing_cache(known, ignore_mismatch=False)


def _remember(config: Any, timing: Path) -> None:
    known = config.get_timing_cache() if hasattr(config, "get_timing_cache") else None
    if known is not None:
        cache.put(timing, bytes(known.serialize()))


def check_profiles(inputs: dict[str, tuple[int, ...]], profiles: dict[str, Shapes]) -> None:
    """Raise unless *profiles* fits *inputs* (name -> shape, -1 for a dynamic axis).

    Raises:
        RecipeError: an unknown input, a dynamic input without a profile, or shapes that do not
            fit its rank, its fixed axes, or the order smallest <= optimal <= largest.
    """
    for name in profiles:
        if name not in inputs:
            raise RecipeError(
                f"shape profile for {name!r}, which is no input of the graph."
                f"{nearest(name, inputs)} Its inputs: {', '.join(inputs)}."
            )
    for name, shape in inputs.items():
        if name not in profiles:
            if -1 in shape:
                raise RecipeError(f"input {name!r} {shape} is dynamic and has no shape profile.")
            continue
        for want, got in zip(("smallest", "optimal", "largest"), profiles[name], strict=True):
            if len(got) != len(shape) or any(s not in (-1, g) for s, g in zip(shape, got)):
                raise RecipeError(f"{want} shape {got} does not fit input {name!r} {shape}.")
        low, optimal, high = profiles[name]
        if not all(1 <= a <= b <= c for a, b, c in zip(low, optimal, high)):
            raise RecipeError(
                f"shape profile of {name!r}: not 1 <= smallest {low} <= optimal {optimal} "
                f"<= largest {high} on every axis."
            )


def _logger(trt: Any, problems: deque[str]) -> Any:
    def log(self: Any, severity: Any, text: str) -> None:
        if int(severity) <= int(trt.ILogger.WARNING):  # smaller is graver
            problems.append(("warning: " if severity == trt.ILogger.WARNING else "") + text)

    body = {"__init__": lambda self: trt.ILogger.__init__(self), "log": log}
    return type("Logger", (trt.ILogger,), body)()


def _parse(parser: Any, network: Any, onnx: str, title: str, problems: deque[str]) -> None:
    parsed = parser.parse_from_file(onnx)
    name = Path(onnx).name
    if not parsed:
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        text = _one_line("; ".join(map(_describe, errors))) or _last(problems)
        raise Unsupported(f"{title} cannot read {name}: {text}")
    if network.num_inputs == 0 or network.num_outputs == 0:  # it takes some rubbish for a graph
        raise Unsupported(f"{title} cannot read {name}: no graph with inputs and outputs in it.")


def _describe(error: Any) -> str:
    """The parser's own text, after the node it stumbled on where this TensorRT tells."""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    name = error.node_name() if hasattr(error, "node_name") else ""
    node = f"{operator} {name!r}: " if name else f"{operator}: " if operator else ""
    return node + str(error.desc())


def _check_types(network: Any, trt: Any, precision: str, title: str, typed: bool) -> None:
    if not typed or precision not in _TYPES:
        return
    want = getattr(trt.DataType, _TYPES[precision])
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if any(layer.get_output(i).dtype == want for i in range(layer.num_outputs)):
            return
    raise Unsupported(
        f"{title} takes the precision from the ONNX alone, and this one computes nothing in "
        f"{precision}. Export it again with --precision {precision}."
    )


def _keep_floats(network: Any, config: Any, trt: Any) -> None:
    """What the graph computes in fp32 stays so where flags decide: normalisations, and nodes that
    would overflow. Q/DQ, casts and what TensorRT cannot hold to it are left to it."""
    kinds, float32 = trt.LayerType, trt.DataType.FLOAT
    free = (kinds.QUANTIZE, kinds.DEQUANTIZE, kinds.CAST)
    for layer in map(network.get_layer, range(network.num_layers)):
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if layer.type not in free and outputs and all(t.dtype == float32 for t in outputs):
            layer.precision = float32
            for index in range(layer.num_outputs):
                layer.set_output_type(index, float32)
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)


def _add_profile(builder: Any, config: Any, network: Any, profiles: dict[str, Any]) -> None:
    shapes = {name: (tuple(a), tuple(b), tuple(c)) for name, (a, b, c) in profiles.items()}
    inputs = {t.name: tuple(t.shape) for t in map(network.get_input, range(network.num_inputs))}
    check_profiles(inputs, shapes)
    if all(-1 not in shape for shape in inputs.values()):
        return  # nothing to choose
    profile = builder.create_optimization_profile()
    for name, (low, optimal, high) in shapes.items():
        profile.set_shape(name, low, optimal, high)
    if config.add_optimization_profile(profile) < 0:
        raise RecipeError(f"TensorRT refuses the shape profiles {shapes}.")


def _set_capabilities(config: Any, trt: Any, wanted: list[str], title: str) -> list[str]:
    """Aim at the GPUs of *wanted*; returns where the engine runs."""
    known = {
        f"{name[2:-1]}.{name[-1]}": kind
        for name, kind in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if not wanted:  # the library's own default: Ampere and later
        return sorted((cc for cc in known if float(cc) >= 8), key=float)
    for capability in wanted:
        if capability not in known:
            raise Unsupported(
                f"{title} has no engines for GPUs of compute capability {capability!r}; "
                f"it has {', '.join(known)}."
            )
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        if not config.set_compute_capability(known[capability], index):
            raise Unsupported(f"{title} refuses compute capability {capability}.")
    return list(wanted)


def _last(problems: deque[str]) -> str:
    errors = [text for text in problems if not text.startswith("warning: ")]
    return _one_line("; ".join((errors or list(problems))[-3:])) or "it gives no reason."


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]

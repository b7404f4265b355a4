"""The targets: one row each. Adding a target is a row here, a builder and an opener."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgessl.errors import RecipeError, Unsupported, nearest

PRECISIONS = (
    "fp32",
    "fp16",
    "bf16",
    "int8",
    "int8-dynamic",
    "int8-weight-only",
    "int4-weight-only",
)


@dataclass(frozen=True)
class Int8:
    """The form of int8 that a target computes fast: Q/DQ in the ONNX, before its builder.

    ``signed``: activations are symmetric int8 with zero point 0 (TensorRT takes nothing else),
    else uint8. ``convolutions``: they are quantized too. ``fused``: operators of ONNX Runtime's
    own in place of Q/DQ, which nothing else reads.
    """

    signed: bool = False
    convolutions: bool = True
    fused: bool = False


@dataclass(frozen=True)
class Target:
    """What edgessl needs to know of a place where encoders run.

    ``builder`` and ``opener`` are ``"module:function"`` strings, resolved when used:

    - builder ``(onnx: Path, directory: Path, plan: BuildPlan) -> dict``: writes the target's
      files into *directory*; returns the manifest's ``compatibility`` facts.
    - opener ``(directory: Path, manifest: Manifest, options: RuntimeOptions) -> Backend``.

    The ONNX that a builder gets is in the bundle's precision already (``edgessl.lower``).
    """

    key: str
    extra: str
    modules: tuple[str, ...]  # what opening a bundle imports
    build_modules: tuple[str, ...]  # what building one imports, beside the ONNX writer
    builder: str
    opener: str
    model_file: str
    precisions: tuple[str, ...]
    int8: Int8
    needs_gpu: bool = False
    # Where the engine cannot run on the building machine, these targets stand in for the parity
    # check of its ONNX, by precision.
    stand_ins: tuple[tuple[str, str], ...] = ()
    why_not: tuple[tuple[str, str], ...] = ()  # precision -> why this target lacks it


_STATIC = tuple(precision for precision in PRECISIONS if precision != "int8-dynamic")
_NOT_DYNAMIC = (("int8-dynamic", "only ONNX Runtime has operators for it"),)
_STAND_INS = tuple((p, "openvino" if p == "bf16" else "onnx") for p in _STATIC)

TARGETS: dict[str, Target] = {
    row.key: row
    for row in (
        Target(
            key="onnx",
            extra="onnx",
            modules=("onnxruntime",),
            build_modules=("onnxruntime",),
            builder="edgessl.export.onnx_graph:build",
            opener="edgessl.runtimes.ort_session:open_backend",
            model_file="model.onnx",
            precisions=tuple(p for p in PRECISIONS if p != "bf16"),
            int8=Int8(convolutions=False, fused=True),
            why_not=(("bf16", "ONNX Runtime's CPU kernels have no bf16"),),
        ),
        Target(
            key="openvino",
            extra="openvino",
            modules=("openvino",),
            build_modules=("openvino",),
            builder="edgessl.export.openvino_ir:build",
            opener="edgessl.runtimes.openvino_session:open_backend",
            model_file="openvino_model.xml",
            precisions=_STATIC,
            int8=Int8(),
            why_not=_NOT_DYNAMIC,
        ),
        Target(
            key="tensorrt",
            extra="tensorrt",
            modules=("tensorrt", "cuda.bindings"),
            build_modules=(),  # without TensorRT and a GPU the bundle carries a build plan instead
            builder="edgessl.export.tensorrt_engine:build",
            opener="edgessl.runtimes.tensorrt_session:open_backend",
            model_file="model.engine",
            precisions=_STATIC,
            int8=Int8(signed=True),
            needs_gpu=True,
            stand_ins=_STAND_INS,
            why_not=_NOT_DYNAMIC,
        ),
        Target(
            key="tensorrt-rtx",
            extra="tensorrt-rtx",
            modules=("tensorrt_rtx", "cuda.bindings"),
            build_modules=("tensorrt_rtx",),
            builder="edgessl.export.tensorrt_engine:build",
            opener="edgessl.runtimes.tensorrt_session:open_backend",
            model_file="model.engine",
            precisions=_STATIC,
            int8=Int8(signed=True),
            needs_gpu=True,
            stand_ins=_STAND_INS,
            why_not=_NOT_DYNAMIC,
        ),
    )
}


def get(key: str) -> Target:
    """The row called *key*.

    Raises:
        RecipeError: there is none; names the nearest.
    """
    if key not in TARGETS:
        raise RecipeError(
            f"unknown target {key!r}.{nearest(key, TARGETS)} Targets: {', '.join(TARGETS)}."
        )
    return TARGETS[key]


def check_precision(target: Target, precision: str) -> None:
    """Raise unless *target* has *precision*.

    Raises:
        RecipeError: no such precision.
        Unsupported: the precision exists, but not on this target.
    """
    if precision not in PRECISIONS:
        raise RecipeError(
            f"unknown precision {precision!r}.{nearest(precision, PRECISIONS)} "
            f"Precisions: {', '.join(PRECISIONS)}."
        )
    if precision not in target.precisions:
        why = dict(target.why_not).get(precision, "not built by this target")
        able = [row.key for row in TARGETS.values() if precision in row.precisions]
        raise Unsupported(
            f"target {target.key} has no {precision}: {why}. Use --precision "
            f"{'|'.join(target.precisions)}, or --target {'|'.join(able)}."
        )


def reads(target: Target, made_for: Target, precision: str) -> bool:
    """Whether *target* takes the ONNX of a bundle of *precision* that was made for another.

    What TensorRT takes is plain ONNX, which all do; others' quantized graphs are their own.
    """
    quantized = precision.startswith("int")
    return not quantized or target.key == made_for.key or made_for.int8.signed


def resolve(reference: str) -> Callable[..., Any]:
    """The function that ``"module:function"`` names."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function

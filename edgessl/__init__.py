"""edgessl: small, fast, verified encoders for devices.

    bundle = edgessl.build("path-or-hub-id", target="openvino", output="bundle/")
    session = edgessl.load("bundle/")               # no torch
    vectors = session.embed(["some text", ...])     # (n, d) float32

Importing this package loads neither torch nor any runtime library.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from edgessl.errors import (
    BundleError,
    CheckpointError,
    DeviceMismatch,
    EdgesslError,
    ItemError,
    MissingDependency,
    OutputError,
    ParityError,
    RecipeError,
    Unsupported,
    nearest,
)

if TYPE_CHECKING:
    from edgessl.pipeline import Built
    from edgessl.runtimes.session import Session

__version__ = "0.1.0"
__all__ = [
    "BundleError",
    "CheckpointError",
    "DeviceMismatch",
    "EdgesslError",
    "ItemError",
    "MissingDependency",
    "OutputError",
    "ParityError",
    "RecipeError",
    "Unsupported",
    "build",
    "load",
]


def build(
    model: str | os.PathLike[str],
    target: str,
    output: str | os.PathLike[str],
    *,
    precision: str | None = None,
    overwrite: bool = False,
    force: bool = False,
    timing: bool = True,
    **options: Any,
) -> Built:
    """Build a bundle at *output* from an encoder, and check it against the original.

    Args:
        model: a directory, a hub id, or a bundle that holds an ONNX.
        target: ``onnx``, ``openvino``, ``tensorrt`` or ``tensorrt-rtx``.
        output: the bundle's directory; written whole or not at all.
        precision: ``fp32``, ``fp16``, ``bf16``, ``int8`` (best with ``calibration=``),
            ``int8-dynamic``, ``int8-weight-only`` or ``int4-weight-only``; None is fp32, or what a
            bundle given as *model* has.
        overwrite: replace a bundle that is there.
        force: write it even if its parity is outside its precision's bound.
        timing: measure whether int8 is faster here than the best float precision.
        **options: the other fields of ``edgessl.recipe.Recipe``: ``pooling``, ``normalize``,
            ``features``, ``max_length``, ``calibration``, ``calibration_column``, ``samples``,
            ``seed``, ``method``, ``exclude``, ``max_drop``, ``isa``, ``revision``,
            ``workspace_mb``, ``compute_capabilities``.

    Raises:
        EdgesslError: see ``edgessl.errors``; nothing is left at *output*.
    """
    from edgessl import pipeline, recipe

    unknown = sorted(set(options) - set(recipe.Recipe.__dataclass_fields__))
    if unknown:
        raise RecipeError(
            f"build() has no option {unknown[0]!r}."
            f"{nearest(unknown[0], recipe.Recipe.__dataclass_fields__)}"
        )
    chosen = recipe.Recipe(model=os.fspath(model), target=target, precision=precision, **options)
    return pipeline.build(chosen, output, overwrite=overwrite, force=force, timing=timing)


def load(
    bundle: str | os.PathLike[str],
    *,
    device: str | None = None,
    mode: str = "latency",
    threads: int | None = None,
    streams: int | None = None,
    cache: bool = True,
    **options: Any,
) -> Session:
    """Open a bundle on this device; see ``edgessl.runtimes.session.load``."""
    from edgessl.runtimes import session

    return session.load(
        bundle,
        device=device,
        mode=mode,
        threads=threads,
        streams=streams,
        cache=cache,
        **options,
    )

"""What int8 arithmetic this processor has, and whether a bundle's comes out right on it.

x86 processors without VNNI add int8 products in pairs into saturating 16-bit sums, which weights
beyond [-64, 64] overflow: the vectors are wrong, and nothing says so. See docs/calibration.md.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl import machine
from edgessl.bundle import Manifest
from edgessl.errors import DeviceMismatch

# Instructions that add int8 products in 32 bits, in the words of /proc/cpuinfo.
EXACT: dict[str, tuple[str, ...]] = {
    "x86_64": ("avx512_vnni", "avx_vnni", "amx_int8"),
    "aarch64": ("asimddp", "i8mm"),
}
FULL, REDUCED = "full range", "reduced range"  # of the weights: [-127, 127] and [-64, 64]


@dataclass(frozen=True)
class Processor:
    """``flags`` as ``machine.isa`` gives them: empty where the system does not tell."""

    name: str
    machine: str
    flags: Mapping[str, bool]


@dataclass(frozen=True)
class Int8Arithmetic:
    """``kind``: ``exact``, ``saturating`` or ``unknown``; ``by``: which instructions."""

    kind: str
    by: str


def this_processor() -> Processor:
    cpuinfo = machine.read_text(Path("/proc/cpuinfo"))
    name = machine.model_name(cpuinfo) or machine.board() or platform.processor() or "unknown"
    return Processor(name, platform.machine(), machine.isa(cpuinfo, platform.machine()))


def arithmetic(flags: Mapping[str, bool], architecture: str) -> Int8Arithmetic:
    """What *flags* (of ``machine.isa``) on an *architecture* (``platform.machine()``) tell.

    Arm is exact in any case: without the dot product its kernels widen to 32 bits in time for
    weights in [-127, 127]. ``unknown``: an x86 whose flags the system does not list (Windows,
    macOS), or another architecture.
    """
    architecture = machine.architecture(architecture)
    names = [name for name in EXACT.get(architecture, ()) if flags.get(name)]
    if names or architecture == "aarch64":
        return Int8Arithmetic("exact", ", ".join(names) or "neon")
    if architecture == "x86_64" and flags:
        return Int8Arithmetic("saturating", "vpmaddubsw")
    return Int8Arithmetic("unknown", "")


def facts(weights: str) -> dict[str, Any]:
    """What an int8 bundle's manifest says under ``compatibility["int8"]``.

    Args:
        weights: ``FULL`` or ``REDUCED``.
    """
    exact = [name for names in EXACT.values() for name in names]
    return {"weights": weights, "isa": "any" if weights == REDUCED else exact}


def at_risk(manifest: Manifest, processor: Processor | None = None) -> bool:
    """Whether a bundle's int8 sums may saturate on the CPU: it has weights of full range, and
    *processor* (default: this one) does not list an instruction that is exact.

    A missing flag proves nothing (older kernels do not know avx_vnni, Windows and macOS list
    none), so whoever opens the bundle measures next: ``runtimes.int8_probe``. A manifest that
    does not say what its weights are is taken for full range, which is what they were then.
    """
    needs = manifest.compatibility.get("int8", facts(FULL))["isa"]
    if manifest.precision not in ("int8", "int8-dynamic") or needs == "any":
        return False
    processor = processor or this_processor()
    listed = any(processor.flags.get(name) for name in needs)
    return not listed and arithmetic(processor.flags, processor.machine).kind != "exact"


def check(
    manifest: Manifest, saturates: Callable[[], bool], processor: Processor | None = None
) -> None:
    """Refuse a bundle whose int8 sums saturate on the CPU.

    Args:
        saturates: measures it on the runtime; called only where the flags leave it open.

    Raises:
        DeviceMismatch: they do; has the command that builds one that is right here.
    """
    processor = processor or this_processor()
    if at_risk(manifest, processor) and saturates():
        raise DeviceMismatch(
            f"this CPU ({processor.name}) has no VNNI: it adds int8 products in saturating 16-bit "
            "sums, which this bundle's full-range weights overflow, so its vectors would be "
            f"wrong. Rebuild it: edgessl export {shlex.quote(manifest.provenance.source)} "
            f"--target {manifest.target} --precision int8 --calibration DATA --isa any -o NEW"
        )

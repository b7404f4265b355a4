"""The processor and the memory that this process may use, read from the system alone."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

# What int8 and bf16 kernels of encoders look for, in the words of /proc/cpuinfo.
ISA: dict[str, tuple[str, ...]] = {
    "x86_64": (
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "amx_int8",
        "amx_bf16",
    ),
    "aarch64": ("asimddp", "i8mm", "bf16", "sve"),
}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # bytes; cgroup v1 writes "no limit" as almost 2**63


def processor() -> dict[str, Any]:
    """Model, cores and instruction sets.

    ``usable_cores`` is what the affinity mask and the container's quota leave (it may be a
    fraction); ``quota_cores`` is None without a quota; ``isa`` is empty where the system does
    not tell.
    """
    psutil = _psutil()
    cpuinfo = read_text(Path("/proc/cpuinfo"))
    logical = psutil.cpu_count(logical=True) or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    quota = cpu_quota(read_text(Path("/proc/self/cgroup")), _CGROUPS)
    return {
        "model": model_name(cpuinfo) or board() or platform.processor() or "unknown",
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": logical,
        "affinity_cores": affinity,
        "quota_cores": quota,
        "usable_cores": affinity if quota is None else min(affinity, quota),
        "isa": isa(cpuinfo, platform.machine()),
    }


def memory() -> dict[str, Any]:
    """MB of 10**6 bytes; ``limit_mb`` is the container's limit, None without one."""
    psutil = _psutil()
    found = psutil.virtual_memory()
    limit = memory_limit(read_text(Path("/proc/self/cgroup")), _CGROUPS)
    return {
        "total_mb": round(found.total / 1e6),
        "available_mb": round(found.available / 1e6),
        "limit_mb": None if limit is None or limit >= found.total else round(limit / 1e6),
    }


def _psutil() -> Any:
    return importlib.import_module("psutil")  # by name: it comes without types


def operating_system() -> dict[str, str]:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:  # not Linux, or one without /etc/os-release
        name = platform.system()
    return {
        "name": name,
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
    }


def read_text(path: Path) -> str:
    """The text of a system's file, empty where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def board() -> str:
    """What the device tree calls this board (Jetson, Raspberry Pi), or ``""``."""
    return read_text(Path("/proc/device-tree/model")).strip("\0\n ")


def model_name(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo, or ``""`` (most Arm kernels)."""
    return _field(cpuinfo, "model name")


def isa(cpuinfo: str, machine: str) -> dict[str, bool]:
    """Which of ``ISA`` the text of /proc/cpuinfo lists; empty when it lists none at all."""
    flags = (_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split()
    names = ISA.get(architecture(machine), ())
    return {name: name in flags for name in names} if flags else {}


def architecture(machine: str) -> str:
    """``platform.machine()`` in Linux's words: ``x86_64`` for Windows' ``AMD64``."""
    return _ALIASES.get(machine.lower(), machine.lower())


def _field(cpuinfo: str, wanted: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""


def cpu_quota(membership: str, root: Path) -> float | None:
    """Cores that the container may use: the smallest quota from its cgroup up to the root.

    ``membership`` is the text of /proc/self/cgroup, ``root`` where cgroups are mounted; both
    versions of cgroups, and both at once.
    """
    quotas = []
    for level in _levels(membership, root, "cpu"):
        quotas.append(parse_quota(read_text(level / "cpu.max")))
        old = [read_text(level / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        quotas.append(parse_quota(" ".join(old)))
    return min((quota for quota in quotas if quota is not None), default=None)


def parse_quota(text: str) -> float | None:
    """``"150000 100000"`` -> 1.5; ``"max 100000"``, ``"-1 100000"`` and ``""`` -> None."""
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def memory_limit(membership: str, root: Path) -> int | None:
    """Bytes that the container may use; arguments as in ``cpu_quota``."""
    words = [
        read_text(level / name).strip()
        for level in _levels(membership, root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    limits = [int(word) for word in words if word.isdecimal()]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def _levels(membership: str, root: Path, controller: str) -> Iterator[Path]:
    """The process's own cgroup and those above it. In a container the upper part of the path
    is often not mounted: what does not exist reads as empty."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2, alone or beside version 1
            mounts = [root, root / "unified"]
        elif controller in controllers.split(","):
            mounts = [root / controllers, root / controller]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for mount in mounts:
            for level in (inside, *inside.parents):
                yield mount / level

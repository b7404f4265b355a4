"""What can be told of a device without any library."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from edgessl import machine
from edgessl.gate.remote.device import power

VARIABLE = "EDGESSL_SYSTEM_ROOT"  # in a container: where the device's own /etc and /proc are


def text(path: str) -> str:
    """Of a system's file, empty where there is none."""
    return machine.read_text(Path(os.environ.get(VARIABLE, "/"), path)).strip()


def boot_id() -> str:
    """Another after every start of the system; empty where there is no such thing."""
    return text("proc/sys/kernel/random/boot_id")


def jetpack() -> str:
    """The release of a Jetson's system software, empty elsewhere."""
    return text("etc/nv_tegra_release").partition(",")[0].strip("# ")


def facts(root: Path) -> dict[str, Any]:
    """For a person: which device this is, and what it can do."""
    existing = next(path for path in (root, *root.parents) if path.exists())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "model": machine.board()
        or machine.model_name(machine.read_text(Path("/proc/cpuinfo")))
        or "unknown",
        "machine": platform.machine(),
        "system": machine.operating_system()["name"],
        "cores": os.cpu_count(),
        "memory_mb": round(pages / 1e6),
        "free_mb": round(shutil.disk_usage(existing).free / 1e6),
        "jetpack": jetpack(),
        "power_mode": power.mode(),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "uv": shutil.which("uv") is not None,
        "python": platform.python_version(),
        "root": str(root),
    }

"""Where something was measured, and what the machine was like meanwhile.

What a system does not tell (containers have no cpufreq, virtual machines no temperatures) is
absent; ``environment(...)["unknown"]`` names what a reader might miss.
"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgessl import __version__, gpu, libraries, machine
from edgessl.gate.measuring import nvml, scenarios, sysfs

# Groups in which two reports must agree to be comparable. Of the system only the kernel: it
# schedules the threads; the name of the distribution around it does not.
COMPARED = ("machine", "clock", "power", "versions")
BASE = ("numpy", "tokenizers")  # every subject's latency has these in it
_ROOT = Path("/")
_TIMEOUT_S = 10

Run = Callable[[Sequence[str]], str]  # a command's output, "" where there is none


def environment(
    used: Iterable[str] = (),
    cpus: Sequence[int] = (),
    on_gpu: bool = False,
    root: Path = _ROOT,
    run: Run | None = None,
) -> dict[str, Any]:
    """What must be equal for two reports to be comparable, and who measured.

    Args:
        used: modules that the subjects loaded, beside ``BASE``: their versions are told.
        cpus: cores that the subjects were to stay on; empty: all that this process has.
        on_gpu: a GPU ran a subject, so it is part of the device.
        root: where /sys and /proc are.
        run: runs a command; for tests.

    Returns:
        the groups ``machine``, ``clock``, ``power``, ``versions`` and ``system``; ``device``, a
        short name; ``host``; ``timer`` (nanoseconds: ``resolution_ns``, ``cost_ns`` of reading
        the clock twice, ``overhead_ns`` of the whole timing loop); ``unknown``: a line for each
        thing that this system does not tell.
    """
    run = run or _output
    cpu = machine.processor()
    cards = nvml.cards() if on_gpu else []
    names = [found.name for found in gpu.probe().devices]
    groups: dict[str, Any] = {
        "machine": _machine(cpu, cpus, names),
        "clock": _clock(root, cards),
        "power": _power(root, run, cards),
        "versions": _versions(used, cards),
        "system": {"os": machine.operating_system()["name"], "kernel": platform.release()},
    }
    device = groups["machine"]["model"]
    return {
        **groups,
        "device": " + ".join([device, *dict.fromkeys(names)]) if on_gpu else device,
        "host": socket.gethostname(),
        "timer": timer(),
        "unknown": _unknown(groups),
    }


def now(root: Path = _ROOT) -> dict[str, Any]:
    """What changes: ``time``, ``load`` (1, 5, 15 minutes), ``mhz`` (median of the cores),
    ``celsius`` by sensor, ``throttled`` (counts and flags that are not 0), ``available_mb``, and
    since boot ``busy_s`` and ``stolen_s`` of all cores (stolen: by other virtual machines)."""
    found: dict[str, Any] = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        "load": sysfs.numbers(machine.read_text(root / "proc/loadavg"))[:3],
        "mhz": sysfs.mhz(root),
        "celsius": sysfs.celsius(root),
        "throttled": sysfs.throttled(root),
        "available_mb": sysfs.available_mb(root),
        **sysfs.cpu_seconds(root),
    }
    cards = nvml.weather()
    if cards:
        found["gpu"] = cards
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs between two environments so that their latencies do not compare, a line each.

    The host's name and the distribution are left out: two hosts of one make may agree.
    """
    lines = []
    for group in COMPARED:
        one, other = a.get(group, {}), b.get(group, {})
        for name in dict.fromkeys([*one, *other]):
            left, right = one.get(name), other.get(name)
            if (group == "versions" or name == "gpu") and None in (left, right):
                continue  # only one of them used it
            if left != right:
                lines += _differing(f"{group} {name}", left, right)
    kernels = [found.get("system", {}).get("kernel") for found in (a, b)]
    if kernels[0] != kernels[1]:
        lines += _differing("kernel", *kernels)
    return lines


def timer() -> dict[str, Any]:
    """The clock that everything is timed with."""
    calls = 2000
    began = time.perf_counter_ns()
    for _ in range(calls):
        time.perf_counter_ns()
        time.perf_counter_ns()
    cost = (time.perf_counter_ns() - began) / calls
    info = time.get_clock_info("perf_counter")
    return {
        "clock": info.implementation,
        "resolution_ns": info.resolution * 1e9,
        "cost_ns": round(cost, 1),
        "overhead_ns": round(scenarios.overhead_ns(), 1),
    }


def _differing(name: str, left: Any, right: Any) -> list[str]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return [
            line
            for key in dict.fromkeys([*left, *right])
            if left.get(key) != right.get(key)
            for line in _differing(f"{name} {key}", left.get(key), right.get(key))
        ]
    return [f"{name}: {_said(left)} and {_said(right)}"]


def _said(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _machine(cpu: Mapping[str, Any], cpus: Sequence[int], gpus: list[str]) -> dict[str, Any]:
    total = machine.memory()["total_mb"]
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    found = {
        "model": machine.board() or cpu["model"],
        "cpu": cpu["model"],
        "architecture": platform.machine(),
        "physical_cores": cpu["physical_cores"],
        "logical_cores": cpu["logical_cores"],
        "usable_cores": cpu["usable_cores"],
        "cores": sorted(cpus) or own,
        "isa": [name for name, there in cpu["isa"].items() if there],
        "memory_gb": round(total / 1000),  # kernels keep different crumbs of it for themselves
        "gpus": gpus,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _clock(root: Path, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cpus = root / "sys/devices/system/cpu"
    found: dict[str, Any] = {
        "governor": sysfs.every(cpus, "scaling_governor"),
        "driver": sysfs.every(cpus, "scaling_driver"),
        "preference": sysfs.every(cpus, "energy_performance_preference"),
        "max_khz": sysfs.every(cpus, "scaling_max_freq"),
        "min_khz": sysfs.every(cpus, "scaling_min_freq"),
        "boost": sysfs.boost(cpus),
        "gpu": {card["name"]: card["clock"] for card in cards if card["clock"]},
    }
    return {name: value for name, value in found.items() if value not in ("", {})}


def _power(root: Path, run: Run, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    profile = machine.read_text(root / "sys/firmware/acpi/platform_profile").strip()
    found: dict[str, Any] = {
        "nvpmodel": nvpmodel(run(("nvpmodel", "-q"))),
        "profile": profile,
        "source": sysfs.source(root / "sys/class/power_supply"),
        "gpu": {card["name"]: card["power"] for card in cards if card["power"]},
    }
    return {name: value for name, value in found.items() if value not in ("", {})}


def nvpmodel(text: str) -> str:
    """A Jetson's power mode, of what ``nvpmodel -q`` says: ``"MAXN (0)"``."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for at, line in enumerate(lines):
        label, _, name = line.partition("Power Mode:")
        if label.strip() == "NV":
            number = lines[at + 1] if at + 1 < len(lines) else ""
            return f"{name.strip()} ({number})" if number.isdecimal() else name.strip()
    return ""


def _versions(used: Iterable[str], cards: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found = {"python": platform.python_version(), "edgessl": __version__}
    for module in sorted({*BASE, *used}):
        found.update(libraries.installed(module))
    for card in cards:
        found["nvidia-driver"] = card["driver"]
    return found


def _unknown(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    if "governor" not in groups["clock"]:
        lines.append("this system does not tell its CPU clocks (no cpufreq): they may have changed")
    return lines


def _output(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout

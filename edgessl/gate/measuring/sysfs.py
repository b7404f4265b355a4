"""What Linux tells in /sys and /proc: clocks, power, temperatures. Where it does not: nothing."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from edgessl import machine


def every(cpus: Path, name: str) -> str:
    """The value of all cores; where they differ, all different ones."""
    texts = [machine.read_text(path).strip() for path in sorted(cpus.glob(f"cpu*/cpufreq/{name}"))]
    return ", ".join(dict.fromkeys(filter(None, texts)))


def boost(cpus: Path) -> str:
    forbidden = machine.read_text(cpus / "intel_pstate/no_turbo").strip()
    if forbidden:
        return "off" if forbidden == "1" else "on"
    allowed = machine.read_text(cpus / "cpufreq/boost").strip()
    return {"1": "on", "0": "off"}.get(allowed, "")


def source(supplies: Path) -> str:
    """``"mains"`` or ``"battery"``; ``""`` where the system has no such thing."""
    kinds = {folder: machine.read_text(folder / "type").strip() for folder in supplies.glob("*/")}
    mains = [
        machine.read_text(folder / "online").strip() for folder, k in kinds.items() if k == "Mains"
    ]
    if mains:
        return "mains" if "1" in mains else "battery"
    states = [
        machine.read_text(folder / "status").strip()
        for folder, k in kinds.items()
        if k == "Battery"
    ]
    return "battery" if "Discharging" in states else ""


def mhz(root: Path) -> float | None:
    files = (root / "sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_cur_freq")
    found = [int(text) / 1000 for text in map(_word, files) if text.isdecimal()]
    if not found:
        lines = machine.read_text(root / "proc/cpuinfo").splitlines()
        words = [line.partition(":")[2] for line in lines if line.startswith("cpu MHz")]
        found = [number for word in words for number in numbers(word)]
    return round(statistics.median(found), 1) if found else None


def celsius(root: Path) -> dict[str, float]:
    """By sensor; of several of one name the hottest."""
    found: dict[str, float] = {}
    for zone in (root / "sys/class/thermal").glob("thermal_zone*"):
        name = _word(zone / "type") or zone.name
        for thousandths in numbers(_word(zone / "temp")):
            found[name] = max(round(thousandths / 1000, 1), found.get(name, -273.0))
    return found


def throttled(root: Path) -> dict[str, int]:
    """Times that Intel's cores were slowed down since boot; a Raspberry Pi's flags."""
    total = 0
    for name in ("core_throttle_count", "package_throttle_count"):
        files = (root / "sys/devices/system/cpu").glob(f"cpu*/thermal_throttle/{name}")
        total += sum(int(text) for text in map(_word, files) if text.isdecimal())
    found = {"count": total}
    with_flags = _word(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    try:
        found["flags"] = int(with_flags, 16)
    except ValueError:
        pass
    return {name: value for name, value in found.items() if value}


def available_mb(root: Path) -> int | None:
    for line in machine.read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return round(int(value.split()[0]) * 1024 / 1e6)
    return None


def cpu_seconds(root: Path) -> dict[str, float]:
    """The first line of /proc/stat: user nice system idle iowait irq softirq steal."""
    fields = numbers(machine.read_text(root / "proc/stat").partition("\n")[0].removeprefix("cpu"))
    if len(fields) < 8:
        return {}
    hertz = os.sysconf("SC_CLK_TCK")
    busy = sum(fields[:3]) + fields[5] + fields[6]
    return {"busy_s": round(busy / hertz, 2), "stolen_s": round(fields[7] / hertz, 2)}


def _word(path: Path) -> str:
    return machine.read_text(path).strip()


def numbers(text: str) -> list[float]:
    found = []
    for word in text.split():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found

"""Energy and device memory, where something measures them.

A meter counts what the whole package, GPU or board takes. What it takes when idle is part of that
and is not subtracted: a faster model leaves more time to rest, which an item's energy must show.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from edgessl.gate.measuring import nvml
from edgessl.machine import read_text

RAPL = Path("/sys/class/powercap")
_TEGRASTATS_MS = 50

# The board's power in tegrastats' lines, in milliwatts now and on average: "VDD_IN 4880mW/4880mW"
# (JetPack 5 and 6), "POM_5V_IN 2532/2532" (JetPack 4).
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
_BOARD = ("VDD_IN", "POM_5V_IN")
_WITHIN = "VDDQ_VDD2_1V8AO"  # a part of VIN_SYS_5V0


class Meter(Protocol):
    """``resolution_ns``: blocks should last at least so long to be measured."""

    name: str
    resolution_ns: int

    def millijoules(self) -> float:
        """Taken since some moment in the past: only differences mean something."""

    def close(self) -> None: ...


def find(on_gpu: bool, rapl: Path = RAPL) -> tuple[Meter | None, list[str]]:
    """The best meter here: of the GPU where that is what runs, of the board, of the processor.

    Returns:
        None where there is none, and why, for the reader of a report.
    """
    if on_gpu:
        library = nvml.library()
        if library is not None:
            with suppress(Exception):  # before Volta there is no such counter
                return Nvml(library), []
    if (command := shutil.which("tegrastats")) is not None:
        meter = Tegrastats([command, "--interval", str(_TEGRASTATS_MS)])
        if meter.works():
            return meter, []
        meter.close()
        return None, ["energy: tegrastats shows no power of the board"]
    if on_gpu:
        return None, ["energy: NVML counts none here (pip install nvidia-ml-py)"]
    zones = packages(rapl)
    if not zones:
        return None, ["energy: no meter here (no RAPL, no tegrastats)"]
    try:
        return Rapl(zones), []
    except PermissionError as err:
        return None, [f"energy: RAPL may not be read by this user ({err.filename})"]
    except (OSError, ValueError):
        return None, ["energy: RAPL does not answer"]


def packages(rapl: Path = RAPL) -> list[Path]:
    """RAPL's zones of whole processors: ``intel-rapl:0``, not ``intel-rapl:0:1`` within it, nor
    ``psys``, which counts the processors once more."""
    found = []
    for zone in sorted(rapl.glob("intel-rapl:*")):
        if zone.name.count(":") == 1 and read_text(zone / "name").startswith("package"):
            found.append(zone)
    return found


class Rapl:
    """The processors' own counters, which begin anew at ``max_energy_range_uj``."""

    name = "RAPL"
    resolution_ns = 10_000_000  # the counters move every millisecond

    def __init__(self, zones: Iterable[Path]) -> None:
        self._zones = list(zones)
        self._range = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        self._last = self._read()
        self._microjoules = 0

    def millijoules(self) -> float:
        found = self._read()
        for new, old, most in zip(found, self._last, self._range, strict=True):
            self._microjoules += new - old if new >= old else new - old + most + 1
        self._last = found
        return self._microjoules / 1e3

    def close(self) -> None: ...

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


class Nvml:
    """The GPUs' own counters since the driver was loaded, all GPUs that it sees."""

    name = "NVML"
    resolution_ns = 500_000_000  # the counters move every 20 to 100 ms

    def __init__(self, library: Any) -> None:
        self._read = library.nvmlDeviceGetTotalEnergyConsumption
        self._cards = nvml.handles(library)
        self.millijoules()

    def millijoules(self) -> float:
        return float(sum(self._read(card) for card in self._cards))

    def close(self) -> None: ...


class Tegrastats:
    """A Jetson's board: the power that ``tegrastats`` prints, integrated over time."""

    name = "tegrastats"
    resolution_ns = 10 * _TEGRASTATS_MS * 1_000_000

    def __init__(self, command: Sequence[str]) -> None:
        self._millijoules = 0.0
        self._milliwatts: float | None = None
        self._since = time.perf_counter()
        self._lock = threading.Lock()
        self._first = threading.Event()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def works(self, timeout_s: float = 5.0) -> bool:
        """Whether a line with the board's power comes."""
        return self._first.wait(timeout_s) and self._milliwatts is not None

    def millijoules(self) -> float:
        with self._lock:
            self._add(time.perf_counter())
            return self._millijoules

    def close(self) -> None:
        self._process.kill()
        self._thread.join()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _watch(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = board_milliwatts(line)
            with self._lock:
                self._add(time.perf_counter())
                self._milliwatts = found if found is not None else self._milliwatts
            self._first.set()
        self._first.set()

    def _add(self, now: float) -> None:
        """What was taken at the last power that was told."""
        self._millijoules += (self._milliwatts or 0.0) * (now - self._since)
        self._since = now


def board_milliwatts(line: str) -> float | None:
    """The board's power now, of a line of tegrastats; None where it has none.

    AGX boards have no rail for all: there it is the sum of those of the parts.
    """
    rails = {name: float(now) for name, now in _RAIL.findall(line) if name != _WITHIN}
    for name in _BOARD:
        if name in rails:
            return rails[name]
    return sum(rails.values()) if rails else None


def device_memory_mb(pid: int) -> float | None:
    """GPU memory of a process now, in MB of 10**6 bytes; None where NVML does not tell.

    In a container NVML knows processes by other numbers than the container does.
    """
    library = nvml.library()
    if library is None:
        return None
    used = []
    for card in nvml.handles(library):
        with suppress(Exception):  # not supported on this board
            for found in library.nvmlDeviceGetComputeRunningProcesses(card):
                if found.pid == pid and found.usedGpuMemory is not None:
                    used.append(found.usedGpuMemory)
    return sum(used) / 1e6 if used else None

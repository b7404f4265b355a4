"""Energy: counters that were made up, a tegrastats of our own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgessl.gate.measuring import meters, nvml
from edgessl.gate.measuring.meters import Nvml, Rapl, Tegrastats, board_milliwatts


class Counters:
    """A /sys/class/powercap of packages that count to *most*."""

    def __init__(self, folder: Path, most: int = 999) -> None:
        self.folder, self.most = folder, most

    def set(self, zone: str, value: int, name: str = "package-0") -> None:
        place = self.folder / zone
        place.mkdir(parents=True, exist_ok=True)
        (place / "name").write_text(f"{name}\n")
        (place / "max_energy_range_uj").write_text(f"{self.most}\n")
        (place / "energy_uj").write_text(f"{value}\n")


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counters:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(nvml, "library", lambda: None)
    return Counters(tmp_path / "powercap")


def test_rapl_goes_round(counters: Counters) -> None:
    counters.set("intel-rapl:0", 900)
    meter = Rapl(meters.packages(counters.folder))
    began = meter.millijoules()
    counters.set("intel-rapl:0", 950)
    assert meter.millijoules() - began == pytest.approx(0.050)
    counters.set("intel-rapl:0", 10)  # 950 ... 999, 0 ... 10
    assert meter.millijoules() - began == pytest.approx(0.110)
    assert meter.millijoules() - began == pytest.approx(0.110)


def test_rapl_counts_packages_once(counters: Counters) -> None:
    counters.set("intel-rapl:0", 0)
    counters.set("intel-rapl:1", 0, "package-1")
    counters.set("intel-rapl:0:0", 0, "core")
    counters.set("intel-rapl:2", 0, "psys")
    meter, lacking = meters.find(False, counters.folder)
    assert isinstance(meter, Rapl) and lacking == []
    for zone, name in (("0", "package-0"), ("1", "package-1"), ("0:0", "core"), ("2", "psys")):
        counters.set(f"intel-rapl:{zone}", 100, name)
    assert meter.millijoules() == pytest.approx(0.2)


def test_no_meter(counters: Counters) -> None:
    assert meters.find(False, counters.folder) == (
        None,
        ["energy: no meter here (no RAPL, no tegrastats)"],
    )
    meter, (line,) = meters.find(True, counters.folder)
    assert meter is None and "nvidia-ml-py" in line


def test_rapl_that_may_not_be_read(counters: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    counters.set("intel-rapl:0", 0)
    place = counters.folder / "intel-rapl:0" / "energy_uj"

    def refuse(self: Rapl) -> list[int]:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(Rapl, "_read", refuse)
    meter, (line,) = meters.find(False, counters.folder)
    assert meter is None and "may not be read" in line and str(place) in line


def test_rapl_that_is_broken(counters: Counters) -> None:
    counters.set("intel-rapl:0", 0)
    (counters.folder / "intel-rapl:0" / "energy_uj").write_text("\n")
    assert meters.find(False, counters.folder) == (None, ["energy: RAPL does not answer"])


NANO = (
    "RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU [24%@1224,off] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@21C thermal@24.5C POM_5V_IN 2545/2547 POM_5V_GPU 0/0 POM_5V_CPU 549/529"
)
ORIN_NX = (
    "05-20-2024 10:11:12 RAM 3764/7620MB (lfb 34x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@729,0%@72"
    "9] GR3D_FREQ 0% cpu@48.5C VDD_IN 4880mW/4890mW VDD_CPU_GPU_CV 803mW/803mW VDD_SOC 1446mW/14mW"
)
AGX_ORIN = (
    "RAM 3764/30623MB (lfb 34x4MB) VDD_GPU_SOC 1000mW/803mW VDD_CPU_CV 200mW/1mW "
    "VIN_SYS_5V0 3000mW/3000mW VDDQ_VDD2_1V8AO 500mW/500mW"
)
AGX_XAVIER = "RAM 99/100MB GPU 100/0 CPU 310/310 SOC 930/930 CV 0/0 VDDRQ 155/155 SYS5V 1365/1365"


@pytest.mark.parametrize(
    ("line", "milliwatts"),
    [
        (NANO, 2545),
        (ORIN_NX, 4880),
        (AGX_ORIN, 4200),
        (AGX_XAVIER, 2860),
        ("RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU [24%@1224]", None),
        ("", None),
    ],
)
def test_lines_of_tegrastats(line: str, milliwatts: float | None) -> None:
    assert board_milliwatts(line) == milliwatts


def fake_tegrastats(folder: Path, line: str) -> None:
    folder.mkdir()
    script = folder / "tegrastats"
    script.write_text(
        f"#!{sys.executable}\nimport time\nwhile True:\n"
        f"    print({line!r}, flush=True)\n    time.sleep(0.01)\n"
    )
    script.chmod(0o755)


def test_tegrastats_adds_up(counters: Counters, tmp_path: Path) -> None:
    fake_tegrastats(tmp_path / "bin", ORIN_NX)
    meter, lacking = meters.find(True, counters.folder)
    assert isinstance(meter, Tegrastats) and lacking == []
    try:
        before, began = meter.millijoules(), time.perf_counter()
        time.sleep(0.1)
        taken, seconds = meter.millijoules() - before, time.perf_counter() - began
    finally:
        meter.close()
    assert taken == pytest.approx(4880 * seconds, rel=0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(meter._process.pid, 0)


def test_tegrastats_without_power(counters: Counters, tmp_path: Path) -> None:
    fake_tegrastats(tmp_path / "bin", "RAM 1766/3964MB")
    meter, lacking = meters.find(False, counters.folder)
    assert (meter, lacking) == (None, ["energy: tegrastats shows no power of the board"])


def test_nvml(counters: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {0: 5000, 1: 70}
    library = SimpleNamespace(
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=taken.__getitem__,
        nvmlDeviceGetComputeRunningProcesses=lambda card: [
            SimpleNamespace(pid=7, usedGpuMemory=3_000_000),
            SimpleNamespace(pid=8, usedGpuMemory=None),
        ],
    )
    monkeypatch.setattr(nvml, "library", lambda: library)
    meter, lacking = meters.find(True, counters.folder)
    assert isinstance(meter, Nvml) and lacking == []
    before = meter.millijoules()
    taken[0] += 250
    assert meter.millijoules() - before == 250
    assert meters.device_memory_mb(7) == pytest.approx(6.0)
    assert meters.device_memory_mb(8) is meters.device_memory_mb(9) is None


def test_nvml_of_old_gpus_has_no_counter(
    counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(card: int) -> int:
        raise RuntimeError("Not Supported")

    library = SimpleNamespace(
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=unsupported,
        nvmlDeviceGetComputeRunningProcesses=unsupported,
    )
    monkeypatch.setattr(nvml, "library", lambda: library)
    assert meters.find(True, counters.folder)[0] is None
    assert meters.device_memory_mb(7) is None

"""Where it was measured: the systems are made up, and what they tell is read off by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgessl import gpu
from edgessl.gate import conditions
from edgessl.gate.measuring import nvml

Tree = dict[str, str]
LAPTOP: Tree = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "4700000",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq": "3500000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1400000",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "0",
    "sys/firmware/acpi/platform_profile": "low-power",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": "0",
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": "61500",
    "sys/class/thermal/thermal_zone1/type": "broken",
    "sys/class/thermal/thermal_zone2/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone2/temp": "40000",
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345",
    "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable:    8000000 kB",
    "proc/stat": "cpu  1000 200 300 99999 50 10 20 500 0 0\ncpu0 1 2 3",
}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "library", lambda: None)


def planted(folder: Path, tree: Tree) -> Path:
    for name, text in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def silent(command: Sequence[str]) -> str:
    return ""


def of(root: Path, run: conditions.Run = silent, **options: Any) -> dict[str, Any]:
    return conditions.environment(root=root, run=run, **options)


def test_a_laptop_on_its_battery(tmp_path: Path) -> None:
    found = of(planted(tmp_path, LAPTOP))

    assert found["clock"] == {
        "governor": "powersave",
        "max_khz": "4700000, 3500000",
        "boost": "off",
    }
    assert found["power"] == {"profile": "low-power", "source": "battery"}
    assert found["unknown"] == []


def test_what_changes_on_a_laptop(tmp_path: Path) -> None:
    found = conditions.now(planted(tmp_path, LAPTOP))

    assert found.pop("time").endswith("+00:00")
    assert found == {
        "load": [0.52, 0.58, 0.59],
        "mhz": 1300.0,
        "celsius": {"x86_pkg_temp": 61.5},
        "throttled": {"count": 7},
        "available_mb": 8192,
        "busy_s": 1530 / os.sysconf("SC_CLK_TCK"),
        "stolen_s": 500 / os.sysconf("SC_CLK_TCK"),
    }


def test_a_jetson(tmp_path: Path) -> None:
    tree = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "sys/devices/system/cpu/cpufreq/boost": "1",
    }
    said: dict[tuple[str, ...], str] = {
        ("nvpmodel", "-q"): "NV Fan Mode:quiet\nNV Power Mode: MODE_15W\n2\n"
    }

    found = of(planted(tmp_path, tree), lambda command: said[tuple(command)])

    assert found["power"] == {"nvpmodel": "MODE_15W (2)"}
    assert found["clock"]["boost"] == "on"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN (0)"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: 30W\n", "30W"),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status\n", ""),
        ("", ""),
    ],
)
def test_nvpmodel(text: str, mode: str) -> None:
    assert conditions.nvpmodel(text) == mode


def test_a_raspberry_pi_that_lacks_power(tmp_path: Path) -> None:
    flags = planted(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005"})
    assert conditions.now(flags)["throttled"] == {"flags": 0x50005}


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    found = of(tmp_path)

    assert found["clock"] == found["power"] == {}
    assert "no cpufreq" in found["unknown"][0]
    assert list(conditions.now(tmp_path)) == ["time"]


def test_this_machine_goes_through_json() -> None:
    found = conditions.environment(["onnxruntime", "no.such.module"])

    assert json.loads(json.dumps(found)) == found
    assert found["device"] == found["machine"]["model"]
    assert {"python", "edgessl", "numpy", "tokenizers", "onnxruntime"} == set(found["versions"])
    assert json.dumps(conditions.now(), allow_nan=False)


def test_the_cores_that_subjects_stay_on() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert conditions.environment()["machine"]["cores"] == allowed
    assert conditions.environment(cpus=allowed[:1])["machine"]["cores"] == allowed[:1]


def test_the_timer() -> None:
    found = conditions.timer()
    assert 0 < found["resolution_ns"] < 1000 and 0 < found["cost_ns"] < 2000


def test_a_gpu_is_part_of_the_device_that_it_runs_for(monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"name": "Orin", "driver": "540.4", "clock": {"max_sm_mhz": 1300}, "power": {}}
    monkeypatch.setattr(nvml, "cards", lambda: [card])
    probe = gpu.GpuProbe(True, "", "12.6", (gpu.GpuDevice("Orin", "8.7", 8000),))
    monkeypatch.setattr(gpu, "probe", lambda: probe)

    found = conditions.environment(on_gpu=True)

    assert found["device"].endswith(" + Orin") and found["machine"]["gpus"] == ["Orin"]
    assert found["clock"]["gpu"] == {"Orin": {"max_sm_mhz": 1300}}
    assert found["versions"]["nvidia-driver"] == "540.4"
    without = conditions.environment()
    assert "Orin" not in without["device"] and without["machine"]["gpus"] == ["Orin"]
    assert conditions.differences(found, without) == []  # what ran on the CPU, beside it


HERE = {
    "machine": {"model": "one", "cores": [0, 1]},
    "clock": {"governor": "performance", "gpu": {"Orin": {"max_sm_mhz": 1300}}},
    "power": {},
    "versions": {"numpy": "2.0", "openvino": "2026.4"},
    "system": {"os": "Debian", "kernel": "6.1"},
    "host": "a",
    "timer": {"cost_ns": 90.1},
}


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({}, []),
        ({"host": "b", "timer": {}}, []),
        ({"system": {"os": "Ubuntu", "kernel": "6.1"}}, []),
        ({"system": {"os": "Debian", "kernel": "6.8"}}, ["kernel: 6.1 and 6.8"]),
        (
            {"machine": {"model": "two", "cores": []}},
            ["machine model: one and two", "machine cores: 0, 1 and none"],
        ),
        ({"power": {"nvpmodel": "MAXN"}}, ["power nvpmodel: unknown and MAXN"]),
        (
            {"clock": {"governor": "powersave", "gpu": {"Orin": {"max_sm_mhz": 900}}}},
            [
                "clock governor: performance and powersave",
                "clock gpu Orin max_sm_mhz: 1300 and 900",
            ],
        ),
        # a report of another runtime's bundle: what both used is the same
        ({"versions": {"numpy": "2.0", "onnxruntime": "1.31"}}, []),
        ({"versions": {"numpy": "2.1"}}, ["versions numpy: 2.0 and 2.1"]),
    ],
)
def test_differences(change: dict[str, Any], lines: list[str]) -> None:
    assert conditions.differences(HERE, {**HERE, **change}) == lines

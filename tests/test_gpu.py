"""The driver is asked in a child: here by children that stand in for every way it can go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgessl import gpu

# A driver in C with the calls that the probe makes: two GPUs, CUDA 12.6.
DRIVER = r"""
#include <stddef.h>
#include <stdio.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "GPU number %d", d - 40); return 0; }
int cuDeviceGetAttribute(int *v, int what, int d) {
    *v = what == 75 ? 8 : what == 76 ? (d == 40 ? 7 : 9) : -1;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *m, int d) { *m = (size_t)(d - 39) << 33; return 0; }
int cuGetErrorString(int code, const char **s) { *s = "no CUDA-capable device is detected"; return 0; }
"""


def driver(directory: Path, init: int = 0, count: int = 2) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler to make a driver with")
    library = directory / "libfake.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}"]
        + ["-x", "c", "-", "-o", str(library)],
        input=DRIVER.encode(),
        check=True,
    )
    return str(library)


def test_two_gpus(tmp_path: Path) -> None:
    assert gpu.ask_driver(driver(tmp_path)) == gpu.GpuProbe(
        usable=True,
        reason="",
        driver_version="12.6",
        devices=(
            gpu.GpuDevice("GPU number 0", "8.7", 8192),
            gpu.GpuDevice("GPU number 1", "8.9", 16384),
        ),
    )


def test_driver_without_a_gpu(tmp_path: Path) -> None:
    probe = gpu.ask_driver(driver(tmp_path, init=100))
    assert not probe.usable and probe.devices == ()
    assert probe.reason == "cuInit fails: no CUDA-capable device is detected (CUDA error 100)"


def test_all_gpus_hidden(tmp_path: Path) -> None:
    probe = gpu.ask_driver(driver(tmp_path, count=0))
    assert not probe.usable
    assert "CUDA_VISIBLE_DEVICES" in probe.reason


def test_no_driver() -> None:
    probe = gpu.ask_driver("libno-such-driver.so.1")
    assert not probe.usable
    assert "driver is not installed" in probe.reason
    assert "libno-such-driver.so.1" in probe.reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "signal 11 (SIGSEGV)"),
        ("raise SystemExit(7)", "exit code 7"),
        ("print('hello')", "could not be read"),
        ("pass", "could not be read"),
        ("print('[1]')", "could not be read"),
        ("import time; time.sleep(60)", "no answer in 0.5 s"),
    ],
)
def test_a_child_that_goes_wrong(code: str, reason: str) -> None:
    if "kill" in code and os.name != "posix":
        pytest.skip("signals are POSIX")
    probe = gpu.ask_driver(code=code, timeout_s=0.5 if "sleep" in code else 30)
    assert not probe.usable
    assert reason in probe.reason


def test_asked_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([gpu.GpuProbe(False, "first"), gpu.GpuProbe(False, "second")])
    monkeypatch.setattr(gpu, "ask_driver", lambda: next(answers))
    gpu.probe.cache_clear()
    try:
        assert gpu.probe() is gpu.probe()
        assert gpu.probe().reason == "first"
    finally:
        gpu.probe.cache_clear()


@pytest.mark.gpu
def test_the_real_driver() -> None:
    probe = gpu.probe()
    if not probe.usable:
        pytest.skip(probe.reason)
    assert probe.devices[0].memory_mb > 500
    major, minor = probe.devices[0].compute_capability.split(".")
    assert int(major) >= 5 and int(minor) >= 0
    assert float(probe.driver_version) >= 11

"""What the NVIDIA driver says of this machine, asked in another process.

TensorRT's libraries can end the process with SIGSEGV where there is no usable GPU, and a
broken driver can hang or crash whoever loads it. So the driver is asked first, by a child
that loads nothing but ``libcuda`` (desktop, server, WSL and Jetson all bring it).
"""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
from dataclasses import dataclass

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
TIMEOUT_S = 30.0  # a cold driver on a Jetson or a server with many GPUs takes seconds

# The child: standard library only. 75, 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR.
_CHILD = """
import ctypes, json, sys

def answer(**facts):
    print("\\n" + json.dumps(facts))
    sys.exit(0)

try:
    cuda = ctypes.CDLL(sys.argv[1])
except OSError as err:
    answer(reason=f"the NVIDIA driver is not installed ({err})")

def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        answer(reason=f"{name} fails: {(text.value or b'unknown error').decode()} (CUDA error {code})")

version, count = ctypes.c_int(), ctypes.c_int()
call("cuInit", 0)
call("cuDriverGetVersion", ctypes.byref(version))
call("cuDeviceGetCount", ctypes.byref(count))
devices = []
for index in range(count.value):
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetName", name, 256, device)
    call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    devices.append([name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value >> 20])
answer(version=f"{version.value // 1000}.{version.value % 1000 // 10}", devices=devices)
"""


@dataclass(frozen=True)
class GpuDevice:
    """One GPU: ``compute_capability`` as ``"8.6"``, ``memory_mb`` in MiB (all of it, not the free)."""

    name: str
    compute_capability: str
    memory_mb: int


@dataclass(frozen=True)
class GpuProbe:
    """``reason`` says why the GPU is not usable, and is empty when it is.

    ``driver_version`` is the newest CUDA that the driver speaks (``"13.0"``; empty when it did
    not answer). ``devices`` keeps the driver's order, after ``CUDA_VISIBLE_DEVICES``.
    """

    usable: bool
    reason: str
    driver_version: str = ""
    devices: tuple[GpuDevice, ...] = ()


@functools.cache
def probe() -> GpuProbe:
    """Ask the driver, once a process."""
    return ask_driver()


def ask_driver(
    library: str = LIBRARY, code: str = _CHILD, timeout_s: float = TIMEOUT_S
) -> GpuProbe:
    """Run *code* in a child with *library* as its argument, and read its last line."""
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", code, library],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return GpuProbe(False, f"the NVIDIA driver gave no answer in {timeout_s:g} s")
    except OSError as err:
        return GpuProbe(False, f"no process could be started to ask the NVIDIA driver ({err})")
    if child.returncode != 0:
        return GpuProbe(False, f"asking the NVIDIA driver ended with {exit_text(child.returncode)}")
    try:
        facts = json.loads(child.stdout.decode(errors="replace").strip().splitlines()[-1])
        version, reason = facts.get("version", ""), facts.get("reason", "")
        devices = tuple(GpuDevice(*device) for device in facts.get("devices", ()))
    except (ValueError, IndexError, TypeError, AttributeError) as err:
        return GpuProbe(False, f"the answer of the NVIDIA driver could not be read ({err})")
    if not reason and not devices:
        reason = "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"
    return GpuProbe(not reason, reason, version, devices)


def exit_text(code: int) -> str:
    """A child's return code in words: ``"exit code 3"`` or ``"signal 11 (SIGSEGV)"``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"

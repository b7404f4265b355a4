"""``edgessl info`` on the machine at hand, and on machines made of text files."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgessl import info, libraries, machine, target
from edgessl.gpu import GpuDevice, GpuProbe
from edgessl.libraries import Library

NATIVE = ("torch", "transformers", "onnx", "onnxruntime", "openvino", "tensorrt_rtx")
COLLECT = f"""
import json, sys
from edgessl import info
facts = info.collect()
print(json.dumps({{
    "facts": facts,
    "plain": json.loads(json.dumps(facts)) == facts,
    "loaded": [name for name in {NATIVE} if name in sys.modules],
}}))
"""


@pytest.fixture(scope="module")
def collected() -> dict[str, Any]:
    """A real ``collect()``, in a process that has imported nothing else."""
    done = subprocess.run([sys.executable, "-c", COLLECT], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def here(collected: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = collected["facts"]
    return facts


GPU = GpuProbe(True, "", "13.0", (GpuDevice("NVIDIA RTX A2000", "8.6", 12288),))
NO_DRIVER = GpuProbe(False, "the NVIDIA driver is not installed")


def all_libraries(**states: Library) -> dict[str, Library]:
    names = {*info.BUILD_MODULES, *info.INT8_MODULES}
    for row in target.TARGETS.values():
        names.update(row.modules, row.build_modules)
    return {name: states.get(name, Library("ok", "", ((name, "1.0"),))) for name in names}


def test_this_machine(here: dict[str, Any]) -> None:
    assert list(here["targets"]) == list(target.TARGETS)
    assert 0 < here["cpu"]["usable_cores"] <= here["cpu"]["logical_cores"] == os.cpu_count()
    assert here["cpu"]["int8"]["kind"] in ("exact", "saturating", "unknown")
    assert here["memory"]["total_mb"] >= here["memory"]["available_mb"] > 0
    for name in ("torch", "onnxruntime", "openvino", "numpy", "tokenizers"):
        installed = importlib.metadata.version(name)
        assert here["libraries"][name]["versions"] == {name: installed}
    for key in ("onnx", "openvino"):
        assert here["targets"][key]["build"] == {"ok": True, "why_not": [], "do": []}
        assert here["targets"][key]["run"]["ok"] is True
    assert "CPU" in here["targets"]["openvino"]["devices"]
    if not here["gpu"]["usable"]:
        for key in ("tensorrt", "tensorrt-rtx"):
            assert here["targets"][key]["run"]["ok"] is False
            assert here["targets"][key]["run"]["do"][-1] == info.NO_GPU


def test_the_table_of_this_machine(here: dict[str, Any]) -> None:
    lines = info.render(here).splitlines()
    assert max(map(len, lines)) <= 100
    head = next(line for line in lines if line.startswith("target "))
    rows = [line for line in lines if line.split("  ")[0] in target.TARGETS]
    assert [row.split()[0] for row in rows] == list(target.TARGETS)
    for row in rows:
        for title in ("build", "int8", "run"):
            assert row[head.index(title) :].split()[0] in ("yes", "no")
            assert row[head.index(title) - 1] == " "
    assert "AVX" not in lines[0] and any(line.startswith("ISA ") for line in lines)


def test_libraries_are_not_imported_into_this_process(collected: dict[str, Any]) -> None:
    assert collected["loaded"] == []
    assert collected["plain"] is True  # ready for JSON as it is


def test_a_missing_library_gives_the_command() -> None:
    row = dataclasses.replace(
        target.TARGETS["openvino"],
        modules=("no_such_module",),
        build_modules=("no_such_module", "no_such.inner"),
    )
    found = {
        **all_libraries(),
        **libraries.load(["no_such_module", "no_such.inner", "json.no_such"]),
    }
    assert found["json.no_such"] == Library("missing")  # the package is there, its part is not
    facts = info.target_facts(row, found, GPU)
    assert facts["build"] == {
        "ok": False,
        "why_not": ["not installed: no_such_module, no_such.inner"],
        "do": ["pip install 'edgessl[openvino]'"],
    }
    assert facts["run"]["do"] == ["pip install 'edgessl[openvino]'"]


def test_a_device_without_the_torch_side(here: dict[str, Any]) -> None:
    absent = {name: Library("missing") for name in (*info.BUILD_MODULES, "openvino")}
    found = all_libraries(**absent)
    facts = {key: info.target_facts(row, found, GPU) for key, row in target.TARGETS.items()}
    assert facts["onnx"]["build"]["do"] == ["pip install 'edgessl[compress]'"]
    assert facts["onnx"]["run"]["ok"] is True
    assert facts["openvino"]["build"]["do"] == ["pip install 'edgessl[compress,openvino]'"]
    assert facts["openvino"]["run"]["do"] == ["pip install 'edgessl[openvino]'"]
    assert facts["tensorrt"]["run"] == {"ok": True, "why_not": [], "do": []}
    text = info.render({**here, "targets": facts})
    # what several targets lack alike is said once
    assert "To build onnx, tensorrt, tensorrt-rtx bundles from a checkpoint here:" in text
    assert text.count("> pip install 'edgessl[compress]'") == 2  # and for int8
    assert max(map(len, text.splitlines())) <= 100


def test_no_gpu_is_nothing_that_a_command_installs() -> None:
    facts = info.target_facts(target.TARGETS["tensorrt-rtx"], all_libraries(), NO_DRIVER)
    assert facts["build"]["ok"] is True
    assert facts["run"] == {
        "ok": False,
        "why_not": ["no usable NVIDIA GPU: the NVIDIA driver is not installed"],
        "do": ["needs an NVIDIA GPU with a driver; build here, run there"],
    }
    assert info.target_facts(target.TARGETS["onnx"], all_libraries(), NO_DRIVER)["run"]["ok"]


def test_a_broken_library_is_reinstalled_in_its_own_version() -> None:
    broken = Library("broken", "ImportError: libcudart.so.12", (("onnxruntime-gpu", "1.23.0"),))
    run = info.target_facts(target.TARGETS["onnx"], all_libraries(onnxruntime=broken), GPU)["run"]
    assert run["why_not"] == ["onnxruntime 1.23.0 does not load: ImportError: libcudart.so.12"]
    assert run["do"] == ["pip install --force-reinstall onnxruntime-gpu==1.23.0"]
    torch = Library("broken", "OSError: x", (("torch", "2.13.0+cpu"),))
    build = info.target_facts(target.TARGETS["onnx"], all_libraries(torch=torch), GPU)["build"]
    assert build["do"] == ["pip install --force-reinstall torch"]  # "+cpu" is not on PyPI
    system = info.target_facts(
        target.TARGETS["tensorrt-rtx"], all_libraries(tensorrt_rtx=Library("broken", "x")), GPU
    )["run"]
    assert system["why_not"] == ["tensorrt_rtx does not load: x"]
    assert system["do"] == ["pip install --force-reinstall tensorrt-rtx"]


def test_two_onnxruntimes_are_noted() -> None:
    both = Library("ok", "", (("onnxruntime", "1.31.1"), ("onnxruntime-gpu", "1.31.1")))
    facts = info.target_facts(target.TARGETS["onnx"], all_libraries(onnxruntime=both), GPU)
    assert facts["notes"] == [
        "onnxruntime and onnxruntime-gpu overwrite each other's files; keep only one"
    ]


def test_rendering_a_gpu_a_quota_and_a_broken_library(here: dict[str, Any]) -> None:
    facts = json.loads(json.dumps(here))
    facts["gpu"] = dataclasses.asdict(GPU)
    facts["cpu"].update(quota_cores=1.5, usable_cores=1.5, isa={}, physical_cores=None)
    facts["cpu"]["int8"] = {"kind": "saturating", "by": "vpmaddubsw"}
    facts["memory"]["limit_mb"] = 2000
    facts["libraries"]["onnxruntime"].update(state="broken", versions={})
    text = " ".join(info.render(facts).split())
    assert "NVIDIA RTX A2000 (compute capability 8.6, 12.0 GiB); driver for CUDA 13.0" in text
    assert "container quota 1.5" in text and "1.5 usable" in text
    assert "int8 16-bit sums that saturate (vpmaddubsw): export for this CPU with --isa any" in text
    assert "container limit 2.0 GB" in text
    assert "onnxruntime (broken)" in text
    assert "unknown on this system" in text


MODULES = {
    "mod_fine": "print('noise'); __version__ = '1.2'",
    "mod_crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "mod_exit": "raise SystemExit('no licence')",
    "mod_lib": "raise OSError('libfoo.so.1: cannot open\\nsecond line')",
    "mod_dep": "import no_such_dependency",
    "mod_leave": "import os; os._exit(3)",
    "mod_slow": "import time; time.sleep(60)",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return list(MODULES)


def test_broken_libraries_are_reported_and_hide_no_other(modules: list[str]) -> None:
    order = [name for name in modules if name != "mod_slow"]
    for wanted in (order, order[::-1]):
        found = libraries.load(wanted)
        assert list(found) == wanted
        assert found["mod_fine"] == Library("ok", "", (("mod_fine", "1.2"),))
        problems = {name: found[name].problem for name in order if name != "mod_fine"}
        assert {found[name].state for name in problems} == {"broken"}
        assert problems == {
            "mod_crash": "importing it ends the process (signal 11 (SIGSEGV))",
            "mod_exit": "SystemExit: no licence",
            "mod_lib": "OSError: libfoo.so.1: cannot open",
            "mod_dep": "ModuleNotFoundError: No module named 'no_such_dependency'",
            "mod_leave": "importing it ends the process (exit code 3)",
        }


def test_a_library_that_hangs(modules: list[str]) -> None:
    found = libraries.load(["mod_fine", "mod_slow"], timeout_s=3.0)
    assert found["mod_fine"].state == "ok"
    assert found["mod_slow"] == Library("broken", "importing it takes more than 3 s")


X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) 6975P
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd asimddp i8mm sve2
CPU implementer\t: 0x41
"""


def test_cpuinfo() -> None:
    assert machine.model_name(X86) == "Intel(R) Xeon(R) 6975P"
    assert machine.model_name(ARM) == ""
    have = {name for name, there in machine.isa(X86, "x86_64").items() if there}
    assert have == {"avx2", "avx512f", "avx512_vnni", "amx_int8"}
    assert machine.isa(X86, "AMD64")["avx512_bf16"] is False
    arm = {"asimddp": True, "i8mm": True, "bf16": False, "sve": False}
    assert machine.isa(ARM, "aarch64") == arm
    assert machine.isa("", "x86_64") == {} == machine.isa(ARM, "riscv64")


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("150000 100000\n", 1.5),
        ("max 100000\n", None),
        ("-1\n 100000\n", None),
        ("", None),
        (" 100000", None),
        ("100000 0", None),
    ],
)
def test_quotas(text: str, cores: float | None) -> None:
    assert machine.parse_quota(text) == cores


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_cgroup_v2_takes_the_smallest_limit_above(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "cpu.max": "800000 100000\n",
            "system.slice/cpu.max": "200000 100000\n",
            "system.slice/app.service/cpu.max": "max 100000\n",
            "other.slice/cpu.max": "10000 100000\n",
            "system.slice/memory.max": "1073741824\n",
            "system.slice/app.service/memory.max": "max\n",
        },
    )
    membership = "0::/system.slice/app.service\n"
    assert machine.cpu_quota(membership, root) == 2.0
    assert machine.memory_limit(membership, root) == 1 << 30
    assert machine.cpu_quota("0::/other.slice\n", root) == 0.1
    assert machine.cpu_quota("0::/\n", root) == 8.0
    assert machine.memory_limit("0::/\n", root) is None


def test_cgroup_v1_in_a_container_and_beside_v2(tmp_path: Path) -> None:
    # Docker: /proc/self/cgroup has the host's path, the mount begins at the container's own.
    membership = "9:name=systemd:/\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n"
    root = tree(
        tmp_path,
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "536870912\n",
        },
    )
    assert machine.cpu_quota(membership, root) == 0.5
    assert machine.memory_limit(membership, root) == 512 << 20
    tree(root, {"unified/cpu.max": "25000 100000\n"})
    assert machine.cpu_quota(membership, root) == 0.25
    tree(
        root,
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "unified/cpu.max": "max 100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert machine.cpu_quota(membership, root) is None
    assert machine.memory_limit(membership, root) is None
    assert machine.cpu_quota("", root) is None

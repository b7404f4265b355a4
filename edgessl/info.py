"""What this machine can do, and what it takes to do the rest: ``edgessl info``."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import edgessl
from edgessl import gpu, isa, libraries, machine
from edgessl.libraries import Library
from edgessl.target import TARGETS, Target

# The torch side: what building from a checkpoint imports for every target. And for int8: module ->
# the extra that brings it.
BUILD_MODULES = ("torch", "transformers", "safetensors", "onnx", "onnxscript")
INT8_MODULES = {"onnx": "compress", "onnxruntime": "onnx"}
BUILD_EXTRA = "compress"
# Versions that a bug report needs, and that nobody has to import for it.
BASE = ("numpy", "tokenizers", "PIL", "click", "psutil")

NO_GPU = "needs an NVIDIA GPU with a driver; build here, run there"
WIDTH = 100  # columns

_PURPOSES = {
    "build": "build {} bundles from a checkpoint",
    "int8": "build {} bundles in int8",
    "run": "run {} bundles",
}

# On the CPU; GPUs are exact.
_INT8 = {
    "exact": "exact sums ({})",
    "saturating": "16-bit sums that saturate ({}): export for this CPU with --isa any",
    "unknown": "unknown on this system; measured when an int8 bundle is opened",
}


def collect() -> dict[str, Any]:
    """Facts about this machine, ready for JSON.

    ``libraries``: module -> state (ok, missing, broken), problem, versions by distribution.
    ``targets``: key -> ``build``, ``int8`` and ``run`` (ok, why_not, do), versions, devices, notes.
    Imports the libraries in a child process, which takes seconds.
    """
    rows = TARGETS.values()
    needed = [module for row in rows for module in (*row.modules, *row.build_modules)]
    found = libraries.load([*BUILD_MODULES, *INT8_MODULES, *needed])
    card = gpu.probe()
    cpu = machine.processor()
    return {
        "edgessl": edgessl.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": machine.operating_system(),
        "cpu": {**cpu, "int8": asdict(isa.arithmetic(cpu["isa"], platform.machine()))},
        "memory": machine.memory(),
        "gpu": {**asdict(card), "devices": [asdict(device) for device in card.devices]},
        "libraries": {
            **{name: _library_facts(library) for name, library in found.items()},
            **{name: {"versions": libraries.installed(name)} for name in BASE},
        },
        "targets": {row.key: target_facts(row, found, card) for row in rows},
    }


def _library_facts(library: Library) -> dict[str, Any]:
    return {
        "state": library.state,
        "problem": library.problem,
        "versions": dict(library.versions),
    }


def target_facts(row: Target, found: dict[str, Library], card: gpu.GpuProbe) -> dict[str, Any]:
    """Whether bundles of *row* can be built from a checkpoint, built in int8, and run here."""
    torch_side = dict.fromkeys(BUILD_MODULES, BUILD_EXTRA)
    build = _verdict({**torch_side, **dict.fromkeys(row.build_modules, row.extra)}, found)
    run = _verdict(dict.fromkeys(row.modules, row.extra), found)
    notes = []
    if row.needs_gpu and not card.usable:
        run["ok"] = False
        run["why_not"].append(f"no usable NVIDIA GPU: {card.reason}")
        run["do"].append(NO_GPU)
        if row.stand_ins and build["ok"]:
            notes.append("a bundle built here is checked for accuracy on its ONNX, not its engine")
    versions = [pair for module in row.modules for pair in found[module].versions]
    packages = [name for name, _ in versions if name.startswith("onnxruntime")]
    if len(packages) > 1:
        notes.append(f"{' and '.join(packages)} overwrite each other's files; keep only one")
    return {
        "build": build,
        "int8": _verdict(INT8_MODULES if "int8" in row.precisions else {}, found),
        "run": run,
        "versions": dict(versions),
        "devices": [device for module in row.modules for device in found[module].devices],
        "notes": notes,
    }


def _verdict(extras: dict[str, str], found: dict[str, Library]) -> dict[str, Any]:
    """Whether the modules of *extras* (module -> extra) load; if not, why, and the commands."""
    missing = [name for name in extras if found[name].state == "missing"]
    broken = [name for name in extras if found[name].state == "broken"]
    why, commands = [], []
    if missing:
        why.append(f"not installed: {', '.join(missing)}")
        wanted = dict.fromkeys(extras[name] for name in missing)
        commands.append(f"pip install 'edgessl[{','.join(wanted)}]'")
    for name in broken:
        # without pip's records it came with the system (JetPack): pip can only guess its name
        package, version = (*found[name].versions, (name.replace("_", "-"), ""))[0]
        why.append(f"{name} {version} does not load: {found[name].problem}".replace("  ", " "))
        # a local version ("2.13.0+cpu") is not on PyPI
        pin = f"=={version}" if version and "+" not in version else ""
        commands.append(f"pip install --force-reinstall {package}{pin}")
    return {"ok": not why, "why_not": why, "do": commands}


def render(info: dict[str, Any]) -> str:
    """*info* for a person: plain text of at most 100 columns (commands are never broken)."""
    system, cpu, targets = info["os"], info["cpu"], info["targets"]
    facts = [
        ("edgessl", f"{info['edgessl']}, {info['python']}"),
        ("system", ", ".join(filter(None, [*system.values()]))),
        ("processor", cpu["model"]),
        ("cores", _cores(cpu)),
        ("ISA", _isa(cpu["isa"])),
        ("int8", _INT8[cpu["int8"]["kind"]].format(cpu["int8"]["by"])),
        ("memory", _memory(info["memory"])),
        ("GPU", _gpu(info["gpu"])),
        ("libraries", ", ".join(_library_lines(info["libraries"]))),
    ]
    lines = [line for name, text in facts for line in _hanging(f"{name:<11}", text)]
    table = [("target", "build", "int8", "run", "with")]
    for key, row in targets.items():
        build, int8, run = (row[verb]["ok"] for verb in ("build", "int8", "run"))
        on = f" on {', '.join(row['devices'])}" if row["devices"] else ""
        what = _versions(row["versions"]) + on
        table.append((key, _yes(build), _yes(build and int8), _yes(run), what))
    widths = [max(len(cells[column]) for cells in table) for column in range(4)]
    lines.append("")
    for cells in table:
        lead = "".join(f"{cell:<{width + 2}}" for cell, width in zip(cells, widths))
        lines += _hanging(lead, cells[4])
    for verb, purpose in _PURPOSES.items():
        for keys, why_not, steps in _grouped(verb, targets):
            lines += ["", *_hanging("", f"To {purpose.format(keys)} here:")]
            lines += [line for why in why_not for line in _hanging("  - ", why)]
            lines += [f"  > {step}" for step in steps]
    for note in dict.fromkeys(note for row in targets.values() for note in row["notes"]):
        keys = ", ".join(key for key, row in targets.items() if note in row["notes"])
        lines += ["", *_hanging("", f"{keys}: {note}.")]
    return "\n".join(line.rstrip() for line in lines)


def _hanging(lead: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
    ) or [lead]


def _grouped(verb: str, targets: dict[str, Any]) -> Iterator[tuple[str, list[str], list[str]]]:
    """The targets that lack the same things together: their keys, why, and what to do."""
    verdicts = {key: row[verb] for key, row in targets.items() if not row[verb]["ok"]}
    seen = []
    for verdict in verdicts.values():
        if verdict not in seen:
            seen.append(verdict)
            keys = ", ".join(key for key, other in verdicts.items() if other == verdict)
            yield keys, verdict["why_not"], verdict["do"]


def _yes(able: bool) -> str:
    return "yes" if able else "no"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "-"


def _library_lines(found: dict[str, Any]) -> Iterable[str]:
    for name, facts in found.items():
        if facts["versions"]:
            broken = " (broken)" if facts.get("state") == "broken" else ""
            yield _versions(facts["versions"]) + broken
        else:
            yield f"no {name}" if facts.get("state") != "broken" else f"{name} (broken)"


def _cores(cpu: dict[str, Any]) -> str:
    physical = cpu["physical_cores"] or "unknown number of"
    text = f"{cpu['usable_cores']:g} usable of {cpu['logical_cores']} logical, {physical} physical"
    if cpu["quota_cores"] is not None:
        text += f"; container quota {cpu['quota_cores']:g}"
    if cpu["affinity_cores"] < cpu["logical_cores"]:
        text += f"; affinity {cpu['affinity_cores']}"
    return text


def _isa(flags: dict[str, bool]) -> str:
    if not flags:
        return "unknown on this system"
    have = " ".join(name for name, there in flags.items() if there) or "none of interest"
    lack = " ".join(name for name, there in flags.items() if not there)
    return f"{have} (not: {lack})" if lack else have


def _memory(memory: dict[str, Any]) -> str:
    text = f"{memory['total_mb'] / 1000:.1f} GB, {memory['available_mb'] / 1000:.1f} GB available"
    limit = memory["limit_mb"]
    return text if limit is None else f"{text}; container limit {limit / 1000:.1f} GB"


def _gpu(card: dict[str, Any]) -> str:
    if not card["usable"]:
        return f"none usable: {card['reason']}"
    devices = [
        f"{device['name']} (compute capability {device['compute_capability']}, "
        f"{device['memory_mb'] / 1024:.1f} GiB)"
        for device in card["devices"]
    ]
    return f"{', '.join(devices)}; driver for CUDA {card['driver_version']}"

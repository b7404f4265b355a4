"""Which libraries are installed here, and which of them load.

Installed is not the same as working: a wheel for another CUDA raises at import, and some native
libraries take the whole process with them. So they are imported in a child process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from edgessl.gpu import exit_text

TIMEOUT_S = 120.0  # torch from a cold SD card takes most of a minute

# Modules whose distributions have other names, or several.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-directml",
    ),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    "cuda.bindings": ("cuda-python", "cuda-bindings"),
    "PIL": ("pillow",),
}

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edgessl.libraries import answer; answer(sys.argv[2:])"
)


@dataclass(frozen=True)
class Library:
    """One module: ``problem`` says why a broken one does not load.

    ``versions``: distribution -> version of all that provide the module. ``devices``: what
    OpenVINO finds (empty for others).
    """

    state: Literal["ok", "missing", "broken"]
    problem: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] = ()


def installed(module: str) -> dict[str, str]:
    """Distribution -> version of what provides *module*, without importing it."""
    found = {}
    for name in DISTRIBUTIONS.get(module, (module,)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load(modules: Iterable[str], timeout_s: float = TIMEOUT_S) -> dict[str, Library]:
    """Import *modules* in a child process and say how it went; this process imports none.

    A module that kills the child, or does not return within *timeout_s*, is broken; a new child
    goes on with those after it.
    """
    wanted = list(dict.fromkeys(modules))
    waiting = [name for name in wanted if _is_findable(name)]
    answers: dict[str, dict[str, Any]] = {}
    while waiting:
        lines, ending = _ask(waiting, timeout_s)
        done = {line["module"]: line for line in lines if "state" in line}
        answers.update(done)
        waiting = [name for name in waiting if name not in done]
        if waiting:  # the child ended at the first of these
            culprit = waiting.pop(0)
            answers[culprit] = {"state": "broken", "problem": f"importing it {ending}"}
    return {name: _library(name, answers.get(name, {"state": "missing"})) for name in wanted}


def _library(module: str, answer: dict[str, Any]) -> Library:
    versions = {} if answer["state"] == "missing" else installed(module)
    if not versions and answer.get("version"):
        versions = {module: answer["version"]}  # installed without pip's records
    return Library(
        answer["state"],
        answer.get("problem", ""),
        tuple(versions.items()),
        tuple(answer.get("devices", ())),
    )


def _is_findable(module: str) -> bool:
    # Only the first part: looking for "a.b" would import "a" into this process.
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # imported already, by something that left no spec
        return True


def _ask(modules: list[str], timeout_s: float) -> tuple[list[dict[str, Any]], str]:
    """The child's lines, and how it ended."""
    # Into a file: a pipe that a grandchild holds open would outlast the time limit.
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.run(
                [sys.executable, "-c", _CHILD, json.dumps(sys.path), *modules],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
            ending = f"ends the process ({exit_text(child.returncode)})"
        except subprocess.TimeoutExpired:
            ending = f"takes more than {timeout_s:g} s"
        except OSError as err:
            ending = f"was not possible: no process could be started ({err})"
        output.seek(0)
        return [json.loads(line) for line in output if line.endswith(b"\n")], ending


def answer(modules: list[str]) -> None:
    """The child's side: import each module and print one JSON line for it. Does not return."""
    # Libraries that print at import must not print into the answer.
    stdout = os.dup(1)
    os.dup2(2, 1)
    for module in modules:
        line = json.dumps({"module": module, **_import(module)}) + "\n"
        os.write(stdout, line.encode())
    os._exit(0)  # without the clean-up at exit, where native libraries crash too


def _import(module: str) -> dict[str, Any]:
    try:
        found = importlib.import_module(module)
        devices = found.Core().available_devices if module == "openvino" else []
    except BaseException as err:  # whatever an import raises, SystemExit included, is the answer
        absent = isinstance(err, ModuleNotFoundError) and f"{module}.".startswith(f"{err.name}.")
        if absent:
            return {"state": "missing"}
        text = (str(err).strip().splitlines() or [""])[0]
        return {"state": "broken", "problem": f"{type(err).__name__}: {text}".rstrip(": ")}
    version = getattr(found, "__version__", "")
    return {"state": "ok", "version": str(version), "devices": [str(name) for name in devices]}

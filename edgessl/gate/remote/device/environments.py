"""Virtual environments on the device, each made once, by hash of what is in it."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgessl.errors import EdgesslError, OutputError, Unsupported
from edgessl.gate.remote.device import system

_READY = "edgessl-ready"
_NO_NETWORK = re.compile(
    "NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|name resolution|"
    "Network is unreachable|error sending request|dns error|Connection refused"
)
_NO_SPACE = re.compile(r"No space left|Errno 28|os error 28|Disk quota")


def ready(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """``python`` of the environment that *request* asks for, and whether it is ``ready``."""
    folder = _folder(root, request)
    there = (folder / _READY).is_file()
    if there:
        os.utime(folder)
    return {"python": str(folder / "bin" / "python"), "ready": there}


def make(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Make it, unless another process has by now.

    ``wheel``: path of edgessl's, with ``extras``; ``packages``: further requirements;
    ``pip_args``; ``wheelhouse``: a folder of wheels, in place of any index, or None.
    On a Jetson it also sees the system's packages: its TensorRT comes with JetPack.

    Raises:
        Unsupported: Python cannot make one here, or pip did not find what is needed.
        OutputError: the disk is full.
    """
    folder = _folder(root, request)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _READY).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            free = shutil.disk_usage(folder.parent).free
            try:
                _fill(folder, request, free)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            os.sync()  # all of it is on the disk before anything says so
            (folder / _READY).touch()
    return {}


def _folder(root: Path, request: dict[str, Any]) -> Path:
    # Not the wheel itself: edgessl's own code is taken from elsewhere, and only what it needs
    # decides; else every commit would be another environment.
    facts = {name: value for name, value in request.items() if name != "wheel"}
    text = json.dumps([facts, sys.version, sys.executable, system.jetpack()], sort_keys=True)
    return root / "envs" / hashlib.sha256(text.encode()).hexdigest()[:16]


def _fill(folder: Path, request: dict[str, Any], free: int) -> None:
    system_site = ["--system-site-packages"] if system.jetpack() else []
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv")
    if importlib.util.find_spec("ensurepip") is not None:
        create = [sys.executable, "-m", "venv", *system_site, str(folder)]
        install = [python, "-m", "pip", "install"]
    elif uv is not None:
        create = [uv, "venv", "--python", sys.executable, *system_site, str(folder)]
        install = [uv, "pip", "install", "--python", python]
    else:
        version = ".".join(map(str, sys.version_info[:2]))
        raise Unsupported(
            f"{sys.executable} has no ensurepip, so it cannot make a virtual environment. Install "
            f"it there (sudo apt install python{version}-venv) or install uv"
        )
    extras = f"[{','.join(request['extras'])}]" if request["extras"] else ""
    house = request["wheelhouse"]
    offline = ["--no-index", "--find-links", house] if house else []
    wanted = [f"{request['wheel']}{extras}", *request["packages"]]
    print(f"making an environment with {' '.join(wanted[1:]) or 'edgessl' + extras} ...",
          file=sys.stderr, flush=True)  # fmt: skip
    _call(create, folder, free)
    _call([*install, *offline, *request["pip_args"], *wanted], folder, free)


def _call(command: list[str], folder: Path, free: int) -> None:
    settings = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PREFER_BINARY": "1"}
    done = subprocess.run(
        command,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise _explained(done.stdout, folder, free)


def _explained(output: str, folder: Path, free: int) -> EdgesslError:
    lines = [line.strip() for line in output.strip().splitlines()] or ["no reason given"]
    # pip's first error is the cause, what follows are consequences
    said = [line for line in lines if re.match(r"(?i)(error|fatal)\b", line)] or lines[-1:]
    reason = re.sub(r"(?i)^error:?\s*", "", said[0])[:300].rstrip(".")
    if _NO_SPACE.search(output):
        return OutputError(
            f"no space left on the device: the environment at {folder.parent} needs more than "
            f"the {free / 1e6:.1f} MB that were free there"
        )
    if _NO_NETWORK.search(output):
        return Unsupported(
            f"pip there reaches no package index ({reason}). Fetch the wheels here (pip download), "
            'and name their folder in devices.toml: wheelhouse = "DIR"'
        )
    return Unsupported(
        f"pip could not install what is needed there: {reason}. See docs/devices.md for "
        "pip_args, packages and extras"
    )

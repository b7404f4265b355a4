"""Detached jobs: they outlive the connection, but not the interest in them.

Each has a supervisor, which holds the lock of the job's folder as long as it lives: a kernel gives
it back when a process is killed or the device reboots, so nobody has to trust process numbers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgessl.gate.remote.device import power, store, system

MARKER = "EDGESSL_JOB"  # in the environment of every process of a job
REPORT, STDIN, STDOUT, STDERR, CODE, ASKED = (
    "report.json", "stdin", "stdout", "stderr", "code", "asked"
)  # fmt: skip
_ATTEMPT = "attempt"
_PATIENCE_S = 2.0  # between SIGTERM and SIGKILL
_SUPERVISOR_S = 30.0  # which has to end the others first, and to restore the power mode
_FORGOTTEN_S = 86_400  # after which nobody comes back for a job's result
_FIRST_STEP_S, _STEP_S = 0.05, 1.0  # between looks: soon so seldom that no measurement sees them


def start(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Start a job, once: the same ``job`` and ``attempt`` again does nothing.

    ``argv``, ``env`` (beside the session's own) and ``files`` (name -> text) are the job;
    ``power_mode``; ``lost_after_s``: how long it goes on without anybody asking for it. Jobs of one
    device run one after the other.
    """
    sweep(root)
    folder = root / "jobs" / request["job"]
    folder.mkdir(parents=True, exist_ok=True)
    if not _begun(folder, request):
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _begun(folder, request):  # or a question whose answer was lost has done it
                _begin(folder, request, lock.fileno())
    return {"boot_id": system.boot_id()}


def _begun(folder: Path, request: dict[str, Any]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return (folder / _ATTEMPT).read_text() == str(request["attempt"])
    return False


def _begin(folder: Path, request: dict[str, Any], lock: int) -> None:
    for name in (REPORT, STDOUT, STDERR, CODE):
        (folder / name).unlink(missing_ok=True)
    for name, content in request["files"].items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    (folder / ASKED).touch()
    (folder / _ATTEMPT).write_text(str(request["attempt"]))
    subprocess.Popen(
        [sys.executable, "-I", "-S", sys.argv[0], "supervise", str(folder)],
        env={**os.environ, MARKER: folder.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),  # never closed there: it lasts as long as that process
    )


def follow(root: Path, request: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
    """Emit what the job writes on stderr from ``offset`` on, and how it ended.

    Lasts until then, or until nobody writes to standard input any more; whoever does, is asking.
    """
    folder = root / "jobs" / request["job"]
    offset, step_s = request["offset"], _FIRST_STEP_S
    emit({"text": "", "offset": offset})  # it is heard
    while True:
        ending = _ending(folder)  # before the last words are read
        with contextlib.suppress(FileNotFoundError), (folder / STDERR).open("rb") as stream:
            stream.seek(offset)
            if piece := stream.read():
                offset += len(piece)
                emit({"text": piece.decode(errors="replace"), "offset": offset})
        if ending is not None:
            emit(ending)
            return
        if select.select([0], [], [], step_s)[0]:
            if not os.read(0, 4096):
                return
            (folder / ASKED).touch()
        step_s = min(2 * step_s, _STEP_S)


def result(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The report that the job has written, and its hash."""
    content = (root / "jobs" / request["job"] / REPORT).read_bytes()
    return {"text": content.decode(), "sha256": hashlib.sha256(content).hexdigest()}


def stop(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """End the job, if it still runs, and remove all of it; also what nobody has used for long."""
    folder = root / "jobs" / request["job"]
    for pid in members(folder.name):  # the supervisor among them, which restores the power mode
        _kill(pid, signal.SIGTERM)
    _wait(lambda: not alive(folder), _SUPERVISOR_S)
    end_processes(folder.name)
    power.restore(folder)
    shutil.rmtree(folder, ignore_errors=True)
    store.forget(root)
    return {}


def sweep(root: Path) -> None:
    """Clean up after supervisors that were killed, and results that nobody fetched."""
    for folder in (root / "jobs").glob("*"):
        if not alive(folder):
            end_processes(folder.name)
            power.restore(folder)
            if time.time() - folder.stat().st_mtime > _FORGOTTEN_S:
                shutil.rmtree(folder, ignore_errors=True)


def clean(root: Path, _request: dict[str, Any]) -> dict[str, Any]:
    """Remove everything of edgessl, unless a job runs."""
    running = [folder.name for folder in (root / "jobs").glob("*") if alive(folder)]
    if not running:
        sweep(root)
        shutil.rmtree(root)
    return {"running": running, "root": str(root)}


def alive(folder: Path) -> bool:
    """Whether the job has a supervisor."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def members(job: str) -> list[int]:
    """Every process of the job but this one, whatever session it has fled to."""
    return [pid for pid, name in _marked() if name == job and pid != os.getpid()]


def end_processes(job: str) -> None:
    """End them, those that do not listen the hard way."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in members(job):
            _kill(pid, number)
            _kill(pid, signal.SIGCONT)  # one that is stopped would not hear of it
        if _wait(lambda: not members(job), _PATIENCE_S):
            return


def _marked() -> Iterator[tuple[int, str]]:
    marker = f"{MARKER}=".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            for entry in (path / "environ").read_bytes().split(b"\0"):
                if entry.startswith(marker):
                    yield int(path.name), entry[len(marker) :].decode()


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(done: Callable[[], bool], limit_s: float) -> bool:
    limit = time.monotonic() + limit_s
    while not (finished := done()) and time.monotonic() < limit:
        time.sleep(0.05)
    return finished


def _ending(folder: Path) -> dict[str, Any] | None:
    there = alive(folder)
    with contextlib.suppress(FileNotFoundError):
        return {"code": int((folder / CODE).read_text())}
    return None if there else {"gone": True, "boot_id": system.boot_id()}

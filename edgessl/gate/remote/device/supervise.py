"""The process beside a job: starts it, waits, ends it, and leaves the device as it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from edgessl.errors import EdgesslError
from edgessl.gate.remote.device import jobs, power

_STEP_S = 1.0


def supervise(folder: Path) -> None:
    """Run the job of *folder* to its end and note its exit code there.

    SIGTERM ends it, and so does nobody asking for it: then nothing of it is left.
    """
    signal.signal(signal.SIGTERM, _leave)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    code: int | None
    try:
        code = _run(folder, request)
    except (EdgesslError, OSError) as err:
        _say(folder, f"error: {err}")
        code = getattr(err, "exit_code", 2)
    if code is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    unread = folder / f"{jobs.CODE}.new"
    unread.write_text(str(code))
    os.replace(unread, folder / jobs.CODE)


def _run(folder: Path, request: dict[str, Any]) -> int | None:
    """The exit code; None where nobody wants it any more."""
    wanted = _Interest(folder / jobs.ASKED, request["lost_after_s"])
    given = folder / jobs.STDIN
    with ExitStack() as stack:
        lock = stack.enter_context((folder.parents[1] / "job.lock").open("a"))
        if not _alone(lock.fileno(), wanted, folder):
            return None
        stack.callback(power.restore, folder)
        if request["power_mode"]:
            power.set_up(folder, request["power_mode"])
        stack.callback(jobs.end_processes, folder.name)
        child = subprocess.Popen(
            request["argv"],
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), **request["env"]},  # goes with the job
            stdin=stack.enter_context(given.open("rb")) if given.exists() else subprocess.DEVNULL,
            stdout=stack.enter_context((folder / jobs.STDOUT).open("wb")),
            stderr=stack.enter_context((folder / jobs.STDERR).open("ab")),
            start_new_session=True,
        )
        # A thread that blocks wakes up for nothing; waiting with a time limit polls.
        waiting = threading.Thread(target=child.wait, daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(_STEP_S)
            if wanted.over():
                return None
        return child.returncode


class _Interest:
    """Whether somebody has asked lately, by this process's own clock: the device's may jump."""

    def __init__(self, asked: Path, lost_after_s: float) -> None:
        self._asked, self._lost_after_s = asked, lost_after_s
        self._last = 0
        self._since = time.monotonic()

    def over(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            last = self._asked.stat().st_mtime_ns
            if last != self._last:
                self._last, self._since = last, time.monotonic()
        return time.monotonic() - self._since > self._lost_after_s


def _alone(lock: int, wanted: _Interest, folder: Path) -> bool:
    """Wait until no other job runs on this device: it would be in the figures of both."""
    said = False
    while not wanted.over():
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if not said:
            _say(folder, "waiting for another job on this device ...")
            said = True
        time.sleep(_STEP_S)
    return False


def _say(folder: Path, line: str) -> None:
    with (folder / jobs.STDERR).open("ab") as stream:
        stream.write(f"{line}\n".encode())


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Once: a second one must not cut the cleaning short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(1)

"""A worker as whoever measures sees it: started, asked, and gone without fail.

Between its answers a worker is stopped (SIGSTOP): ONNX Runtime's threads, for one, go on spinning
for 30 ms after an inference, and would take a core from the next subject.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from edgessl import errors
from edgessl.errors import EdgesslError
from edgessl.gpu import exit_text

OPEN_S = 1800.0  # a device may have to build an engine
ANSWER_S = 300.0
# Windows has none: there, workers are not stopped.
_STOP, _CONTINUE = (getattr(signal, name, 0) for name in ("SIGSTOP", "SIGCONT"))


class Process:
    """``name``: of the subject, for messages. ``began_ns``: by ``time.perf_counter_ns``."""

    def __init__(
        self, name: str, process: subprocess.Popen[str], said: IO[bytes], began_ns: int
    ) -> None:
        self.name = name
        self.pid = process.pid
        self._began_ns = began_ns
        self._process = process
        self._said = said
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def age_ns(self) -> int:
        """Since it was about to be started."""
        return time.perf_counter_ns() - self._began_ns

    def ask(self, do: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        """The worker's answer.

        Raises:
            EdgesslError: the worker's own error, of the same class; or it ended, or does not
                answer.
        """
        assert self._process.stdin is not None
        _signal(self._process, _CONTINUE)
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=timeout_s or ANSWER_S)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            raise EdgesslError(
                f"{self.name}: no answer to {do!r} for {timeout_s or ANSWER_S:g} s; it was ended."
            ) from None
        if not line:
            code = self._process.wait()
            said = self._last_words()
            raise EdgesslError(
                f"{self.name}: its process ended with {exit_text(code)}{': ' if said else '.'}{said}"
            )
        _signal(self._process, _STOP)
        answer = json.loads(line)
        if "ok" in answer:
            return answer["ok"]
        if not answer["error"]:
            raise EdgesslError(f"{self.name}: {answer['message']}")
        raise getattr(errors, answer["error"])(f"{self.name}: {answer['message']}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put("")

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line]
        return lines[-1][:300] if lines else ""


@contextmanager
def started(name: str, cpus: Sequence[int] = ()) -> Iterator[Process]:
    """A fresh worker, which stays on *cpus*; it and what it started are gone at the end."""
    with tempfile.TemporaryFile() as errors_file:
        began = time.perf_counter_ns()
        child = subprocess.Popen(
            [sys.executable, "-m", "edgessl.gate.measuring.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_file,
            text=True,
            encoding="utf-8",
        )
        try:  # not "with child": that would wait for the thread that listens to it
            worker = Process(name, child, errors_file, began)
            if cpus:
                worker.ask("stay", cpus=list(cpus))
            yield worker
        finally:
            _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """Kill it, and what the subject has started."""
    _signal(child, signal.SIGKILL)
    child.kill()  # where it has not come to make a group
    child.wait()
    assert child.stdin is not None
    with suppress(OSError):  # what it did not read any more
        child.stdin.close()


def _signal(child: subprocess.Popen[str], number: int) -> None:
    """To the worker, and what a subject has started."""
    if number and child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)

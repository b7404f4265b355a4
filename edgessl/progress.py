"""Steps of a long job, on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from edgessl import interrupts

_CLEAR = "\r\033[K"
_COLUMNS = 80  # of a terminal that does not say


class Steps:
    """Call it with each step's name; leaving the ``with`` block ends the last one.

    Inside the block a terminal belongs to it alone: libraries find a stderr that is no terminal,
    so they draw no bars there, and what they write goes above the live line. A terminal that is
    gone (a closed pipe, a full disk) never ends the job.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._stream: TextIO | None = sys.stderr  # None where it is closed
        terminal = self._stream is not None and self._stream.isatty()
        self._quiet = quiet
        self._live = terminal and not quiet and os.environ.get("TERM") != "dumb"
        self._name = ""
        self._began = 0.0
        self._done = ""  # how far the step is
        self._first: tuple[int, float] | None = None  # what was done when, to tell the rate
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._spinner: threading.Thread | None = None
        self._redirected = contextlib.ExitStack()
        self._shared: _Shared | None = None
        if self._stream is not None and terminal:
            self._shared = _Shared(self.write, self._stream.fileno)

    def __call__(self, name: str) -> None:
        interrupts.check()
        self._finish("done")
        self._name, self._began = name, time.monotonic()
        self._done, self._first = "", None
        if self._live:
            self._stop.clear()
            self._spinner = threading.Thread(target=self._spin, daemon=True)
            self._spinner.start()
        elif not self._quiet:
            self.write(f"{name} ...\n")

    def count(self, done: int, total: int | None, unit: str) -> None:
        """Say that *done* of *total* are done: the rate is of those since the step's first call."""
        interrupts.check()
        now = time.monotonic()
        self._first = self._first or (done, now)
        begun, since = self._first
        rate = (done - begun) / (now - since) if now > since else 0.0
        of = f" of {total:,}" if total is not None else ""
        self._done = f": {done:,}{of} {unit}"
        if rate:
            self._done += f", {rate:,.{0 if rate >= 10 else 1}f}/s"
        if rate and total is not None and total > done:
            self._done += f", {_duration((total - done) / rate)} left"

    def __enter__(self) -> Steps:
        if self._shared is not None:
            self._redirected.enter_context(contextlib.redirect_stderr(self._shared))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._redirected.close()
        self._finish("done" if error is None else "stopped")
        if self._shared is not None:
            self._shared.close()

    def write(self, text: str) -> None:
        """Put *text* on the terminal in one piece, over the live line."""
        if self._stream is None:
            return
        # The job goes on without anybody watching; its result is what counts.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{_CLEAR}{text}" if self._live else text)
            self._stream.flush()

    def _finish(self, word: str) -> None:
        if self._spinner is not None:
            self._stop.set()
            self._spinner.join()
            self._spinner = None
            self.write(f"{self._name}: {word} in {time.monotonic() - self._began:.1f} s\n")
        self._name = ""

    def _spin(self) -> None:
        for frame in itertools.cycle("|/-\\"):
            tail = f" {time.monotonic() - self._began:4.0f} s"
            # A line that wraps could not be drawn over.
            name = self._name + self._done
            self.write(f"{frame} {_shortened(name, self._columns() - len(tail) - 3)}{tail}")
            if self._stop.wait(0.2):
                return

    def _columns(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                return os.get_terminal_size(self._stream.fileno()).columns or _COLUMNS
        return _COLUMNS


class _Shared(io.TextIOBase):
    """The stderr that libraries see while a ``Steps`` has the terminal: whole lines, no bars."""

    def __init__(self, put: Callable[[str], None], fileno: Callable[[], int]) -> None:
        self._put = put
        self._fileno = fileno
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            self._put("".join(f"{line}\n" for line in lines))
        return len(text)

    def close(self) -> None:
        if self._line:
            self.write("\n")
        super().close()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fileno()


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _shortened(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: max(columns - 3, 0)] + "..."

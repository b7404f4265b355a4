"""Steps of a long job, on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from types import TracebackType


class Steps:
    """Call it with each step's name; leaving the ``with`` block ends the last one."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._name = ""
        self._began = 0.0
        self._stop = threading.Event()
        self._spinner: threading.Thread | None = None

    def __call__(self, name: str) -> None:
        self._finish("done")
        self._name, self._began = name, time.monotonic()
        if self._quiet:
            return
        if self._live:
            self._stop.clear()
            self._spinner = threading.Thread(target=self._spin, daemon=True)
            self._spinner.start()
        else:
            print(f"{name} ...", file=sys.stderr, flush=True)

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish("done" if error is None else "stopped")

    def _finish(self, word: str) -> None:
        if self._spinner is not None:
            self._stop.set()
            self._spinner.join()
            self._spinner = None
            taken = time.monotonic() - self._began
            print(f"\r\033[K{self._name}: {word} in {taken:.1f} s", file=sys.stderr, flush=True)
        self._name = ""

    def _spin(self) -> None:
        for frame in itertools.cycle("|/-\\"):
            taken = time.monotonic() - self._began
            # Only the head of the line is redrawn: a library's own bar may share the terminal.
            print(f"\r{frame} {self._name} {taken:4.0f} s", end="", file=sys.stderr, flush=True)
            if self._stop.wait(0.2):
                return

"""Whole processes: wall time and peak memory.

The peak that Linux reports for a process starts at that of the process that spawned it, so a
measuring process with torch in it would hide what a small one needs. This file is therefore also
a program: a Python with nothing loaded that spawns the command and reports on it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One process. ``peak_mb`` is the largest resident set of it or of any process it waited
    for, in MB of 10**6 bytes; ``began`` is seconds since the epoch."""

    seconds: float
    peak_mb: float
    began: float
    output: str


def run(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Run *command* to its end.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    spawner = [sys.executable, "-I", "-S", __file__, *command]
    result = subprocess.run(spawner, capture_output=True, text=True, env=dict(environment))
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    output, _, facts = result.stdout.rstrip("\n").rpartition("\n")
    return Run(**json.loads(facts), output=output)


def _main() -> None:
    began, start = time.time(), time.perf_counter()
    child = subprocess.Popen(sys.argv[1:])
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    kilobyte = 1 if sys.platform == "darwin" else 1024
    facts = {"seconds": seconds, "peak_mb": usage.ru_maxrss * kilobyte / 1e6, "began": began}
    print("\n" + json.dumps(facts))
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _main()

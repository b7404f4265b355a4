"""The ``edgessl`` command as a user runs it: in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Imports of these top-level modules fail as if they were not installed.
_WITHOUT = """
import sys
class Absent:
    def __init__(self, finder, names):
        self.finder, self.names = finder, names
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
names = sys.argv.pop(1).split(",")
sys.meta_path[:] = [Absent(finder, names) for finder in sys.meta_path]
from edgessl.cli import main
main()
"""
_COMMAND = (sys.executable, "-m", "edgessl")
TIMEOUT_S = 240


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without the hub's settings and proxies, and with no hub to talk to."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.upper().endswith("_PROXY")
    }
    return {**mine, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "", **(extra or {})}


def edgessl(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; *without* names modules that shall seem not to be installed."""
    command = [sys.executable, "-c", _WITHOUT, ",".join(without)] if without else list(_COMMAND)
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def signalled(
    step: str, delay_s: float, number: signal.Signals, *arguments: str | Path
) -> tuple[int, str]:
    """Send a signal *delay_s* after the line of *step* came; return exit code and stderr.

    Ctrl-C goes to the whole process group, as from a terminal.
    """
    process = subprocess.Popen(
        [*_COMMAND, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith(step):
                break
        else:
            raise AssertionError(f"no step {step!r} in: {''.join(seen)}")
        time.sleep(delay_s)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, rest = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, "".join(seen) + rest


def screen(written: str) -> list[str]:
    """What a terminal shows after *written*: knows ``\\r``, ``\\n`` and erase-to-end-of-line.

    Raises:
        AssertionError: any other control character or sequence.
    """
    lines, column = [""], 0
    for token in re.findall(r"\x1b\[[\d;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+|\x1b", written):
        if token == "\n":
            lines.append("")
        elif token == "\r":
            column = 0
        elif token == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif token.startswith("\x1b") or not token.isprintable():
            raise AssertionError(f"unexpected on a terminal: {token!r}")
        else:
            lines[-1] = lines[-1][:column] + token + lines[-1][column + len(token) :]
            column += len(token)
    return lines

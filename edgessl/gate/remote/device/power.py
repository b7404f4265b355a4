"""A Jetson's power mode and clocks for the time of a job, and as they were before after it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from edgessl.errors import Unsupported

_BEFORE, _CLOCKS = "power-before", "clocks-before"  # in the job's folder: they outlive a reboot
_TIMEOUT_S = 60.0


def mode() -> str:
    """The number of the present mode, empty where there is none."""
    if _tool("nvpmodel") is None:
        return ""
    lines = _run("nvpmodel", "-q", sudo=False).split()
    return lines[-1] if lines and lines[-1].isdecimal() else ""


def set_up(folder: Path, wanted: str) -> None:
    """Set mode *wanted* and the clocks to their maximum; what was there is noted in *folder*.

    Raises:
        Unsupported: no Jetson, not allowed without a password, or the mode needs a reboot.
    """
    if _tool("nvpmodel") is None or _tool("jetson_clocks") is None:
        raise Unsupported(
            "power_mode is for Jetson, and there is no nvpmodel or jetson_clocks there. "
            "Leave it out of devices.toml."
        )
    before = folder / _BEFORE
    if not before.exists():  # after a reboot the mode is ours already
        _run("jetson_clocks", "--store", str(folder / _CLOCKS))
        before.write_text(mode())
    _run("nvpmodel", "-m", wanted)
    if mode() != wanted:
        raise Unsupported(
            f"power mode {wanted} was not taken (there is none, or it needs a reboot). "
            f"Set it there by hand: sudo nvpmodel -m {wanted}"
        )
    _run("jetson_clocks")


def restore(folder: Path) -> None:
    """Undo ``set_up``, if it was done for the job in *folder*."""
    before = folder / _BEFORE
    if not before.exists():
        return
    if earlier := before.read_text():
        _run("nvpmodel", "-m", earlier)
    _run("jetson_clocks", "--restore", str(folder / _CLOCKS))
    before.unlink()


def _tool(name: str) -> str | None:
    # A session without a terminal often lacks these folders.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin")


def _run(name: str, *arguments: str, sudo: bool = True) -> str:
    tool = _tool(name) or name
    lead = ["sudo", "-n"] if sudo and os.geteuid() != 0 else []
    try:
        done = subprocess.run(
            [*lead, tool, *arguments],
            stdin=subprocess.DEVNULL,  # "reboot now?" is answered with no
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise Unsupported(f"{name} does not run there: {err}") from err
    if done.returncode != 0 and re.search(r"sudo:|password", done.stderr):
        raise Unsupported(
            f"sudo asks for a password to run {name}. Allow it there without one (sudo visudo: "
            f"USER ALL=(root) NOPASSWD: {tool}), or leave power_mode out of devices.toml."
        )
    if done.returncode != 0 and sudo and arguments[:1] != ("-m",):
        line = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Unsupported(f"{name} failed: {''.join(line)}")
    return done.stdout

"""A Jetson's tools for power modes and clocks, as shell scripts that only note what they are told."""

from __future__ import annotations

from pathlib import Path

_TOOLS = {
    "nvpmodel": "case $1 in\n-q) echo NV Power Mode: MAXN; cat $S/mode;;\n"
    "-m) [ $2 = 9 ] || echo $2 > $S/mode;;\nesac",  # 9 is one that needs a reboot
    "jetson_clocks": 'echo $1 $(cat $S/mode) >> $S/clocks\n[ "$1" != --store ] || touch $2',
    "sudo": "[ ! -e $S/locked ] || { echo sudo: a password is required >&2; exit 1; }\n"
    '[ "$1" != -n ] || shift\nexec "$@"',
    "tegrastats": "while :; do echo VDD_IN 5000mW/5000mW; sleep 0.1; done",
}


def install(folder: Path, state: Path) -> None:
    """Put them in *folder*; *state* gets ``mode``, which is 2, and ``clocks``, what was asked of
    them in which mode. A file ``locked`` there makes sudo ask for a password."""
    state.mkdir()
    (state / "mode").write_text("2\n")
    for name, script in _TOOLS.items():
        (folder / name).write_text(f"#!/bin/sh\nS={state}\n{script}\n")
        (folder / name).chmod(0o755)

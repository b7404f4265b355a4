"""A job on a device from beginning to end, through lost connections and reboots."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence

from edgessl.errors import EdgesslError
from edgessl.gate.remote.device.jobs import REPORT, STDIN
from edgessl.gate.remote.link import Link

RESTARTS = 2
_SPARE_S = 60.0  # that a job outlives the patience of whoever waits for it
_COUNTED = re.compile(r"(\d+) of (\d+) (\w+)")
_KEPT = 20  # last lines of what a job says


def run(
    link: Link,
    argv: Sequence[str],
    *,
    files: Mapping[str, str] | None = None,
    given: str = "",
    env: Mapping[str, str] | None = None,
    power_mode: str = "",
    reports: bool = False,
) -> tuple[str, list[str]]:
    """Run *argv* there, detached, and wait for it.

    What it says on stderr is progress: ``NAME ...`` a step, ``2 of 10 rounds`` how far it is.

    Args:
        files: name -> text, in the folder that it runs in; *given*: its standard input.
        reports: it leaves a report.

    Returns:
        the report's text, and what a reader of it should know.

    Raises:
        EdgesslError: its own error; it crashed, was lost, or rebooted the device too often.
    """
    job = secrets.token_hex(8)
    request = {
        "job": job,
        "argv": list(argv),
        "files": {**(files or {}), **({STDIN: given} if given else {})},
        "env": dict(env or {}),
        "power_mode": power_mode,
        "lost_after_s": link.lost_after_s + _SPARE_S,
    }
    notes: list[str] = []
    try:
        for attempt in range(1 + RESTARTS):
            said: list[str] = []
            begun = link.ask("start", {**request, "attempt": attempt})
            ending = link.follow(job, lambda line: _hear(line, said, link))
            if "code" in ending:
                break
            rebooted = ending["boot_id"] != begun["boot_id"]
            notes.append(_note(link, rebooted))
        else:
            raise link.error(f"given up after {RESTARTS} more attempts: {notes[-1]}")
        if ending["code"] != 0:
            raise _failure(link, ending["code"], said)
        return _report(link, job) if reports else "", notes
    finally:
        link.try_to("stop", {"job": job})


def _hear(line: str, said: list[str], link: Link) -> None:
    if line.strip():
        said[:] = [*said, line.strip()][-_KEPT:]
    if line.endswith(" ..."):
        link.report(line.removesuffix(" ..."))
    elif counted := _COUNTED.fullmatch(line):
        link.report.count(int(counted[1]), int(counted[2]), counted[3])


def _note(link: Link, rebooted: bool) -> str:
    if rebooted:
        return f"{link.called} rebooted while it measured; the measurement was begun again."
    return (
        f"on {link.called} all processes of the measurement were killed, and it was begun again. If "
        "that is done at every log-out (KillUserProcesses): loginctl enable-linger"
    )


def _failure(link: Link, code: int, said: Sequence[str]) -> EdgesslError:
    last = said[-1] if said else ""
    if last.startswith("error: "):
        return link.error(last.removeprefix("error: "), code)
    if code < 0:
        why = " (out of memory?)" if code == -9 else ""
        return link.error(f"the job there was killed by signal {-code}{why}. {last}".rstrip())
    return link.error(f"the job there crashed (exit code {code}): {last or 'it said nothing'}")


def _report(link: Link, job: str) -> str:
    for _ in range(2):
        found = link.ask("result", {"job": job})
        if hashlib.sha256(found["text"].encode()).hexdigest() == found["sha256"]:
            return str(found["text"])
    raise link.error(f"{REPORT} arrived damaged twice. Measure again.")

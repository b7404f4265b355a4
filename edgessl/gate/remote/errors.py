"""What can go wrong between here and a device, in one line for a person."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgessl.gate.remote.devices import Device


class Lost(Exception):
    """The connection is gone or did not come about; ``final``: trying again is of no use."""

    def __init__(self, line: str, final: bool) -> None:
        super().__init__(line)
        self.final = final


@dataclass(frozen=True)
class _Case:
    pattern: str  # in what ssh says
    line: str  # of {host}, {ssh}: the command by hand, {said}: ssh's own last line
    final: bool = False


_CASES = (
    _Case(
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "the host key of {host} has changed: another machine answers there, or it was installed "
        "anew. If you know why, forget the old key: ssh-keygen -R {known}",
        final=True,
    ),
    _Case(
        "Host key verification failed|host key is known",
        "{host} is not among the known hosts. Connect once by hand and compare its key: {ssh}",
        final=True,
    ),
    _Case(
        "Permission denied|Too many authentication failures",
        "{host} refused the key of this user. Put yours there: ssh-copy-id {copy}; a key with a "
        "passphrase needs ssh-agent (ssh-add). This must work without a question: {ssh} true",
        final=True,
    ),
    _Case(
        "Could not resolve hostname",
        "the name {host} does not resolve. Check its spelling in --on, devices.toml and "
        "~/.ssh/config.",
    ),
    _Case(
        "Connection refused",
        "nothing answers at {host}. Is sshd running there, and is this its port?",
    ),
    _Case(
        "timed out|No route to host|unreachable|Host is down",
        "{host} is not reachable ({said}). Is it on, and in this network? Try: {ssh}",
    ),
    _Case(
        "Bad configuration option|Bad owner or permissions|terminating, .* bad configuration",
        "ssh does not accept its settings ({said}). Mend ~/.ssh/config.",
        final=True,
    ),
)


def explained(stderr: str, device: Device) -> Lost:
    """What ssh said on its way out, for a person."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = lines[-1].rstrip(".") if lines else "the connection was closed"
    port = f"-p {device.port} " if device.port else ""
    machine = device.host.rpartition("@")[2]
    words = {
        "host": f"{machine} port {device.port}" if device.port else machine,
        "known": f"'[{machine}]:{device.port}'" if device.port else machine,
        "copy": f"{port}{device.host}",
        "ssh": device.by_hand,
        "said": said,
    }
    for case in _CASES:
        if re.search(case.pattern, stderr):
            return Lost(case.line.format(**words), case.final)
    return Lost(f"no connection to {words['host']}: {said}. Try: {device.by_hand}", final=False)

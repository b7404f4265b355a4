"""One connection to a device: the ``ssh`` command, with the user's own configuration and keys.

The first ssh carries all others (ControlMaster) and stays as long as this process writes to it:
its command there is ``cat``, which ends with its input, however this process ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgessl.errors import MissingDependency
from edgessl.gate.remote.device.landing import MARK
from edgessl.gate.remote.devices import Device
from edgessl.gate.remote.errors import Lost, explained

_OPTIONS = {
    "BatchMode": "yes",  # never a question: nobody may be there to answer
    "ConnectTimeout": "15",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",
    # What a user has set for working there by hand and would be in the way.
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ControlPersist": "no",
}
_LOGIN_S = 60.0  # for all of it: name, connection, keys, shell
_STEP_S = 0.1
_SOCKET = 90  # bytes of a path that every system takes for a socket, ssh's own ending included


class Connection:
    """Open until ``close``. *check* is called while waiting, and may raise to end the wait."""

    def __init__(self, device: Device, check: Callable[[], None]) -> None:
        self._device, self._check = device, check
        if shutil.which("ssh") is None:
            raise MissingDependency("--on needs the ssh command of OpenSSH; install it.")
        self._folder = tempfile.TemporaryDirectory(
            prefix="edgessl-", dir="/tmp" if len(tempfile.gettempdir()) > _SOCKET - 40 else None
        )
        self._messages = Path(self._folder.name, "messages")
        self._master: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Log in.

        Raises:
            Lost: it did not work; says why.
        """
        with self._messages.open("wb") as messages:
            self._master = subprocess.Popen(
                self._command("-M", f"echo '{MARK}'; exec cat"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,  # Ctrl-C is ours: there is something to end there first
            )
        assert self._master.stdout is not None
        seen = b""
        limit = time.monotonic() + _LOGIN_S
        while f"{MARK}\n".encode() not in seen:
            self._check()
            if time.monotonic() > limit:
                raise Lost(
                    f"{self._device.host} did not finish the login in {_LOGIN_S:g} s. "
                    f"Try: {self._device.by_hand}",
                    final=False,
                )
            if select.select([self._master.stdout], [], [], _STEP_S)[0]:
                piece = os.read(self._master.stdout.fileno(), 4096)
                if not piece:
                    self._master.wait()
                    raise explained(self._messages.read_text(errors="replace"), self._device)
                seen += piece

    def run(self, command: str, payload: Iterable[bytes] = ()) -> tuple[int, str]:
        """Run *command* there with *payload* as its input; its exit code and standard output.

        Raises:
            Lost: the connection went meanwhile.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self._command("-oControlMaster=no", command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # its answer says why
                    for piece in payload:
                        self._check()
                        process.stdin.write(piece)
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                while process.poll() is None:
                    self._check()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_STEP_S)
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            errors.seek(0)
            if process.returncode == 255:  # ssh's own
                raise explained(errors.read().decode(errors="replace"), self._device)
            return process.returncode, output.read().decode(errors="replace")

    def lines(self, command: str, first: bytes, every_s: float) -> Iterator[str]:
        """What *command* prints there, as it comes; *first* goes to it, and a line now and then.

        Raises:
            Lost: the connection went before it ended.
        """
        process = subprocess.Popen(
            self._command("-oControlMaster=no", command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        said, due, seen = first, 0.0, b""
        try:
            while True:
                self._check()
                if time.monotonic() >= due:
                    with contextlib.suppress(BrokenPipeError):  # it has ended: so will its output
                        process.stdin.write(said + b"\n")
                        process.stdin.flush()
                    said, due = b"", time.monotonic() + every_s
                if select.select([process.stdout], [], [], _STEP_S)[0]:
                    piece = os.read(process.stdout.fileno(), 1 << 16)
                    if not piece:
                        break
                    *lines, seen = (seen + piece).split(b"\n")
                    yield from (line.decode(errors="replace") for line in lines)
            if process.wait() == 255:
                raise Lost("the connection was lost.", final=False)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def close(self) -> None:
        """End it, and with it every ssh of it."""
        if self._master is not None:
            for pipe in (self._master.stdin, self._master.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            try:
                self._master.wait(2)
            except subprocess.TimeoutExpired:  # the other side is not there to say goodbye
                self._master.kill()
                self._master.wait()
        self._folder.cleanup()

    def _command(self, role: str, command: str) -> list[str]:
        options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
        port = ["-p", str(self._device.port)] if self._device.port else []
        socket = str(Path(self._folder.name, "master"))
        return ["ssh", "-T", *options, role, "-S", socket, *port, "--", self._device.host, command]

"""Questions to a device, over as many connections as it takes."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from edgessl.errors import BundleError, DeviceError, EdgesslError, Unsupported
from edgessl.gate.remote.device import landing
from edgessl.gate.remote.devices import Device
from edgessl.gate.remote.errors import Lost
from edgessl.gate.remote.ssh import Connection
from edgessl.gate.remote.wheel import Wheel

_PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.10")
_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
_ASKING_S = 10.0
_STEP_S = 0.1
_ERRORS: dict[int, type[EdgesslError]] = {3: Unsupported, 4: BundleError}


class Progress(Protocol):
    """``edgessl.progress.Steps``, or what is like it."""

    def __call__(self, name: str) -> None: ...

    def count(self, done: int, total: int | None, unit: str) -> None: ...


class Link:
    """A device that answers. ``root``: the folder there, ``code``: edgessl's in it.

    *lost_after_s*: how long a lost device is tried for. *check* is called while waiting and may
    raise to end it.
    """

    def __init__(
        self,
        device: Device,
        wheel: Wheel,
        report: Progress,
        lost_after_s: float,
        check: Callable[[], None],
    ) -> None:
        self.device, self.wheel, self.report, self.check = device, wheel, report, check
        self.lost_after_s = lost_after_s
        self.python = self.root = ""
        self._lost_at: float | None = None
        self._connection: Connection | None = None

    @property
    def code(self) -> str:
        return f"{self.root}/code/{self.wheel.digest}"

    @property
    def called(self) -> str:
        """The device's name, for a person."""
        return self.device.name or self.device.host

    def argv(self, command: str) -> list[str]:
        """Of the process there that answers *command*."""
        return [self.python, "-I", "-S", self.code, command]

    def connect(self) -> None:
        """Log in, and see to it that edgessl's code is there.

        Raises:
            DeviceError: it cannot be reached, or has no room.
            Unsupported: no Linux, or no Python that is new enough.
        """
        try:
            self._connect()
        except Lost as lost:
            raise self.error(str(lost)) from lost

    def ask(self, command: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question; asked again over a new connection where one is lost.

        Raises:
            EdgesslError: what the device says is wrong; it was lost for too long.
        """
        while True:
            try:
                return self.ask_once(command, request)
            except Lost as lost:
                self.reconnect(lost)

    def try_to(self, command: str, request: dict[str, Any]) -> None:
        """As ``ask``, where nothing depends on it: once, to the end, and over this connection."""
        check, self.check = self.check, lambda: None
        with contextlib.suppress(EdgesslError, Lost):
            self.ask_once(command, request)
        self.check = check

    def follow(self, job: str, told: Callable[[str], None]) -> dict[str, Any]:
        """Tell every line that the job writes on stderr, and return how it ended."""
        offset, rest = 0, ""
        while True:
            try:
                for answer in self._answers(job, offset):
                    self._lost_at = None
                    if "text" not in answer:
                        if rest:
                            told(rest)
                        return answer
                    offset = answer["offset"]
                    *lines, rest = (rest + answer["text"]).split("\n")
                    for line in lines:
                        told(line)
                raise self.error("'follow' ended there before the job did.")
            except Lost as lost:
                self.reconnect(lost)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def error(self, line: str, exit_code: int = 2) -> EdgesslError:
        """An error about this device; the code says of which kind."""
        if line.startswith("no space left on the device"):
            line += '. Make room there, or name another folder in devices.toml: directory = "DIR"'
        return _ERRORS.get(exit_code, DeviceError)(f"{self.called}: {line}")

    def _connect(self) -> None:
        self.close()
        self._connection = Connection(self.device, lambda: self.check())
        self._connection.open()
        self._land()

    def reconnect(self, lost: Lost) -> None:
        """Try until the device is back.

        Raises:
            DeviceError: it was lost for too long, or trying is of no use.
        """
        self.report("connection lost, trying again")
        self._lost_at = self._lost_at or time.monotonic()  # a connection without answers is none
        limit = self._lost_at + self.lost_after_s
        for delay in itertools.chain(_DELAYS_S, itertools.repeat(_DELAYS_S[-1])):
            if lost.final:
                raise self.error(str(lost)) from lost
            if time.monotonic() + delay > limit:
                raise self.error(
                    f"lost for {self.lost_after_s:g} s. What runs there ends by itself within a "
                    f"minute; measure again when it is back. The last attempt: {lost}"
                ) from lost
            until = time.monotonic() + delay
            while time.monotonic() < until:
                self.check()
                time.sleep(_STEP_S)
            try:
                self._connect()
                return
            except Lost as again:
                lost = again

    def _land(self) -> None:
        folder = self.device.directory
        pythons = [self.device.python] if self.device.python else list(_PYTHONS)
        look = _inline("look", folder, self.wheel.digest)
        new_enough = "-I -S -c 'import sys; sys.exit(sys.version_info < (3, 10))'"
        script = f"""
            for p in {shlex.join(pythons)}; do
                "$p" {new_enough} 2>/dev/null && exec "$p" {look}
            done
            for p in {shlex.join(pythons)}; do
                "$p" --version 2>&1 && break
            done
            """
        assert self._connection is not None
        _, output = self._connection.run("exec sh -s", [script.encode()])
        found = _marked(output)
        if not found:
            said = output.strip().splitlines()[-1:]
            raise self.error(_no_python(self.device.python, "".join(said)), 3)
        if found[0]["system"] != "Linux":
            raise self.error(f"it runs {found[0]['system']}, and --on is for Linux.", 3)
        self.python, self.root = found[0]["python"], found[0]["root"]
        if not found[0]["code"]:
            words = ("unpack", folder, self.wheel.digest, self.wheel.name)
            command = f"exec {shlex.quote(self.python)} {_inline(*words)}"
            code, output = self._connection.run(command, [self.wheel.content])
            answers = _marked(output)
            if not answers or "error" in answers[0]:
                reason = answers[0]["error"] if answers else f"Python there ended with {code}"
                raise self.error(
                    f"edgessl could not be put there: {reason}. Make room, or name another folder "
                    'in devices.toml: directory = "DIR"'
                )

    def ask_once(
        self, command: str, request: dict[str, Any], payload: Iterable[bytes] = ()
    ) -> dict[str, Any]:
        """As ``ask``; *payload* follows the request.

        Raises:
            Lost: so was the connection.
        """
        assert self._connection is not None
        first = json.dumps(request).encode() + b"\n"
        code, output = self._connection.run(
            self._command(command), itertools.chain([first], payload)
        )
        answers = _marked(output)
        self._lost_at = None
        if not answers:
            raise self.error(f"'{command}' ended there with code {code} and no answer.")
        if "error" in answers[0]:
            raise self.error(answers[0]["error"], answers[0]["exit_code"])
        return answers[0]

    def _answers(self, job: str, offset: int) -> Iterator[dict[str, Any]]:
        """Of ``follow`` there, as they come."""
        assert self._connection is not None
        request = json.dumps({"job": job, "offset": offset}).encode()
        for line in self._connection.lines(self._command("follow"), request, _ASKING_S):
            yield from _marked(line)

    def _command(self, command: str) -> str:
        return f"exec {shlex.join(self.argv(command))}"


def _inline(*words: str) -> str:
    """Arguments of Python that run landing.py: one line without quotes that any shell misreads."""
    source = base64.b64encode(Path(landing.__file__).read_bytes()).decode()
    code = f'import base64;exec(base64.b64decode("{source}").decode())'
    return f"-I -S -c {shlex.join([code, *words])}"


def _marked(output: str) -> list[dict[str, Any]]:
    """The answers among whatever else a login shell has printed."""
    lines = (line for line in output.splitlines() if line.startswith(landing.MARK))
    return [json.loads(line.removeprefix(landing.MARK)) for line in lines]


def _no_python(wanted: str, found: str) -> str:
    """*found*: what it said of its version, or what the shell said of it."""
    if wanted:
        state = f"{wanted} is {found}" if found.startswith("Python") else f"there is no {wanted}"
        return f"{state}, and edgessl needs Python 3.10 or newer. Mend python in devices.toml."
    state = f"its Python is {found}" if found.startswith("Python") else "it has no Python"
    return (
        f"{state}, and edgessl needs 3.10 or newer. Install one there (sudo apt install "
        'python3.10 python3.10-venv), or name one in devices.toml: python = "PATH"'
    )

"""How jobs on devices end, with the device's answers made up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from edgessl.errors import BundleError, DeviceError, EdgesslError, Unsupported
from edgessl.gate.remote import jobs
from edgessl.gate.remote.devices import Device
from edgessl.gate.remote.errors import Lost
from edgessl.gate.remote.link import Link
from edgessl.gate.remote.wheel import Wheel
from edgessl.progress import Steps


class FakeLink(Link):
    """Says that the job wrote *said* and ended as *endings* say, one after the other."""

    def __init__(self, endings: list[dict[str, Any]], said: str = "", sha256: str = "") -> None:
        super().__init__(
            Device("box", "h"), Wheel("", b"", "", ""), Steps(quiet=True), 60.0, lambda: None
        )
        self.endings, self.said, self.sha256 = endings, said, sha256
        self.asked: list[str] = []

    def ask(self, command: str, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(command)
        return {"boot_id": "one", "text": "{}", "sha256": self.sha256}

    def follow(self, job: str, told: Callable[[str], None]) -> dict[str, Any]:
        for line in self.said.splitlines():
            told(line)
        return self.endings.pop(0)

    def try_to(self, command: str, request: dict[str, Any]) -> None:
        self.asked.append(command)


@pytest.mark.parametrize(
    ("code", "said", "error", "line"),
    [
        (4, "a ...\nerror: no bundle at a.\n", BundleError, "box: no bundle at a."),
        (3, "error: no onnxruntime", Unsupported, "box: no onnxruntime"),
        (1, "Traceback\n  x\nKeyError: 3", DeviceError, "crashed (exit code 1): KeyError: 3"),
        (2, "", DeviceError, "crashed (exit code 2): it said nothing"),
        (2, "error: no space left on the device: 1 MB", DeviceError, 'directory = "DIR"'),
        (-11, "", DeviceError, "box: the job there was killed by signal 11."),
    ],
)
def test_jobs_that_fail(code: int, said: str, error: type[EdgesslError], line: str) -> None:
    link = FakeLink([{"code": code}], said)

    with pytest.raises(EdgesslError) as caught:
        jobs.run(link, ["bench"])

    assert type(caught.value) is error and str(caught.value).endswith(line)
    assert link.asked == ["start", "stop"]


def test_a_device_that_reboots_again_and_again() -> None:
    link = FakeLink([{"gone": True, "boot_id": boot} for boot in ("two", "three", "four")])

    with pytest.raises(DeviceError, match="^box: given up after 2 more attempts: box rebooted"):
        jobs.run(link, ["bench"])

    assert link.asked == ["start", "start", "start", "stop"]


def test_processes_that_are_killed_with_the_connection() -> None:
    link = FakeLink([{"gone": True, "boot_id": "one"}, {"code": 0}])

    assert "loginctl enable-linger" in "".join(jobs.run(link, ["bench"])[1])


def test_a_device_that_is_lost_for_too_long() -> None:
    link = FakeLink([])
    link.lost_after_s = 0.5  # before the first new attempt

    with pytest.raises(DeviceError, match="^box: lost for 0.5 s. .* attempt: no route$"):
        link.reconnect(Lost("no route", final=False))


def test_progress() -> None:
    class Told(Steps):
        def __call__(self, name: str) -> None:
            said.append(name)

        def count(self, done: int, total: int | None, unit: str) -> None:
            said.append((done, total, unit))

    said: list[object] = []
    link = FakeLink([{"code": 0}], "measuring ...\nWarning: x\n2 of 10 rounds\n")
    link.report = Told(quiet=True)

    jobs.run(link, ["bench"])

    assert said == ["measuring", (2, 10, "rounds")]


def test_a_report_that_is_damaged_on_its_way() -> None:
    link = FakeLink([{"code": 0}], sha256="x")
    with pytest.raises(DeviceError, match="damaged"):
        jobs.run(link, ["bench"], reports=True)

    right = hashlib.sha256(b"{}").hexdigest()
    assert jobs.run(FakeLink([{"code": 0}], sha256=right), ["bench"], reports=True) == ("{}", [])

"""Devices over ssh, with a real sshd on this machine: what is copied, run, lost and left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgessl.errors import DeviceError, Unsupported
from edgessl.gate import bench as here
from edgessl.gate import conditions
from edgessl.gate.plan import Plan
from edgessl.gate.remote import bench, fleet, jobs, link
from edgessl.gate.remote.link import Link
from edgessl.progress import Steps
from tests import disks, jetson, sshd
from tests.sshd import Sshd

SUBJECT = """
import time

def make():
    def embed(items):
        time.sleep(0.001)
        return [0.0] * len(items)
    return embed
"""
LOST_AFTER_S = 20.0


class Told(Steps):
    """Progress, remembered; *then* does something at a step."""

    def __init__(self, then: Callable[[str], None] = lambda name: None) -> None:
        super().__init__(quiet=True)
        self.names: list[str] = []
        self._then = then

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self._then(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One for all tests: edgessl is sent to it once."""
    with sshd.serving(tmp_path_factory.mktemp("device")) as found:
        yield found


@pytest.fixture
def box(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """The device; after the test no process and no job may be left there."""
    monkeypatch.setenv("PATH", f"{server.folder / 'local'}:{os.environ['PATH']}")
    monkeypatch.setattr(link, "_DELAYS_S", (0.2,))
    yield server
    limit = time.monotonic() + 10
    while (left := sshd.left(server.folder)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not left
    assert not list((server.root / "jobs").glob("*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path, 3) as disk:
        yield disk


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def linked(box: Sshd, told: Told | None = None) -> AbstractContextManager[Link]:
    return fleet.linked(box.device(), told or Told(), LOST_AFTER_S)


def shell(on: Link, script: str, **settings: Any) -> tuple[str, list[str]]:
    return jobs.run(on, ["sh", "-c", script], **settings)


def once(text: str, do: Callable[[], None]) -> Callable[[str], None]:
    """What to do at the first step that has *text* in it."""
    done: list[str] = []

    def then(name: str) -> None:
        if text in name and not done:
            done.append(name)
            do()

    return then


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "subject.py").write_text(SUBJECT)
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n")
    return Plan(
        {"sleeper": f"{tmp_path / 'subject.py'}:make"},
        shapes=("corpus",),
        data=str(tmp_path / "texts.txt"),
        rounds=1,
        seconds=0.05,
        peak=False,
    )


def test_a_measurement(box: Sshd, plan: Plan, tmp_path: Path) -> None:
    told = Told()
    found = bench.measure(box.device("lab box"), plan, told)

    assert found.environment["device"] == "lab box"
    assert found.environment["machine"] == conditions.environment()["machine"]
    assert found.subjects[0].path == plan.subjects["sleeper"] and found.commit == here.commit()
    (run,) = found.runs
    assert run.key == ("sleeper", "single-stream", "corpus") and run.settings["data"] == "texts.txt"
    assert all(1e6 < sample < 1e9 for sample in run.latencies)
    assert told.names[:4] == [
        "connecting to lab box",
        "copying sleeper to lab box",
        "copying data to lab box",
        "measuring on lab box",
    ]
    again = Told()
    with pytest.raises(DeviceError, match="^box: rounds must be at least 1"):
        bench.measure(box.device(), replace(plan, rounds=0), again)
    assert again.names[:2] == ["connecting to box", "measuring on box"]  # all is there already


def test_several_devices(
    box: Sshd, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    host = f"{box.device().host}:{box.port}"
    python = f'python = "{sys.executable}"\ninstall = false\n'
    (tmp_path / "devices.toml").write_text(
        f'[device.one]\nhost = "{host}"\n{python}[device.two]\nhost = "{host}"\n{python}'
        '[device.off]\nhost = "127.0.0.1:1"\n'
    )
    script = "date +%s.%N; sleep 0.2; date +%s.%N; cp stdout report.json"
    monkeypatch.setattr(bench, "_measure", lambda on, _: shell(on, script, reports=True))
    waiting: list[str] = []

    def wait(name: str) -> None:
        if "waiting for another job on this device" in name:
            waiting.append(name)
        if len(waiting) == 2:
            fcntl.flock(lock, fcntl.LOCK_UN)

    box.root.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((box.root / "job.lock").open("a"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    told = Told(wait)

    found: dict[str, Any] = bench.measure_all(
        ["one", "off", "two"], plan, told, devices=tmp_path / "devices.toml"
    )

    assert list(found) == ["one", "off", "two"]
    assert str(found["off"]).startswith("off: nothing answers at 127.0.0.1 port 1.")
    (began, ended), (began_later, _) = sorted(
        [float(word) for word in found[name][0].split()] for name in ("one", "two")
    )
    assert began < ended < began_later  # two names of one device measure in turn


def test_a_dropped_connection(box: Sshd) -> None:
    told = Told(once("first", box.drop))

    with linked(box, told) as on:
        text, notes = shell(
            on, "echo first ... >&2; sleep 1; echo second ... >&2; echo {} > report.json",
            reports=True,
        )  # fmt: skip

    assert (text, notes) == ("{}\n", [])
    assert told.names[1:] == ["first", "connection lost, trying again", "second"]


def test_a_device_that_stays_away(box: Sshd) -> None:
    def leave() -> None:
        (box.folder / "authorized").rename(box.folder / "away")
        box.drop()

    with fleet.linked(box.device(), Told(once("first", leave)), 0.5) as on:
        with pytest.raises(DeviceError, match="^box: .*refused the key"):
            shell(on, "echo first ... >&2; sleep 100")
        (box.folder / "away").rename(box.folder / "authorized")
        on.connect()
        (job,) = (box.root / "jobs").iterdir()
        on.ask("stop", {"job": job.name})


def test_a_reboot(box: Sshd) -> None:
    boot_id = box.system / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True, exist_ok=True)
    boot_id.write_text("one\n")

    def reboot() -> None:
        boot_id.write_text(f"{time.time_ns()}\n")
        box.drop()
        sshd.kill(box.folder)

    script = "[ -e there ] || sleep=100; touch there; echo up ... >&2; sleep ${sleep:-0}; "
    told = Told(once("up", reboot))
    with linked(box, told) as on:
        text, notes = shell(on, script + "echo {} > report.json", reports=True)

    assert text == "{}\n" and told.names.count("up") == 2
    assert notes == ["box rebooted while it measured; the measurement was begun again."]


def test_a_job_that_crashes(box: Sshd) -> None:
    with linked(box) as on, pytest.raises(DeviceError) as caught:
        shell(on, "echo loading >&2; kill -9 $$")
    assert str(caught.value) == (
        "box: the job there was killed by signal 9 (out of memory?). loading"
    )


# A worker that is stopped, one that does not listen, and one in a session of its own.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "100"], start_new_session=True)
stopped = subprocess.Popen(["sleep", "100"])
os.kill(stopped.pid, signal.SIGSTOP)
print("up ...", file=sys.stderr, flush=True)
time.sleep(100)
"""


def test_an_interrupt_leaves_nothing(box: Sshd) -> None:
    def interrupt() -> None:
        assert len(sshd.left(box.folder)) >= 5
        raise KeyboardInterrupt

    with linked(box, Told(once("up", interrupt))) as on, pytest.raises(KeyboardInterrupt):
        jobs.run(on, [sys.executable, "-c", STUBBORN])


def test_nobody_asks(box: Sshd) -> None:
    """As after this machine was lost: the job ends by itself."""
    with linked(box) as on:
        request = {
            "job": "forgotten", "attempt": 0, "argv": ["sleep", "100"], "files": {}, "env": {},
            "power_mode": "", "lost_after_s": 2.0,
        }  # fmt: skip
        on.ask("start", request)
        on.ask("start", request)  # the answer was lost
        limit = time.monotonic() + 10
        while "sleep" not in sshd.left(box.folder).values() and time.monotonic() < limit:
            time.sleep(0.02)
        assert list(sshd.left(box.folder).values()).count("sleep") == 1


def test_a_jetson(box: Sshd) -> None:
    jetson.install(box.bin, box.folder / "jetson")
    (box.system / "etc").mkdir()
    (box.system / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n")
    state = box.folder / "jetson"

    with linked(box) as on:
        facts = on.ask("facts", {})
        assert (facts["jetpack"], facts["power_mode"]) == ("R36 (release)", "2")
        shell(on, f"cp {state}/mode {state}/meanwhile", power_mode="0")

    assert (state / "meanwhile").read_text() == "0\n" and (state / "mode").read_text() == "2\n"
    for tool in box.bin.iterdir():
        tool.unlink()


def test_logins_that_are_refused(box: Sshd, tmp_path: Path) -> None:
    key, known = box.folder / "key", box.folder / "known"
    right, trusted = key.read_bytes(), known.read_text()

    def said() -> str:
        with pytest.raises(DeviceError) as caught, linked(box):
            pass
        return str(caught.value)

    try:
        key.write_bytes((box.folder / "stranger").read_bytes())
        assert "127.0.0.1 port" in said() and "ssh-copy-id" in said()
        known.write_text("")
        assert "is not among the known hosts" in said()
        known.write_text(trusted.replace(trusted.split()[2], _stranger(box)))
        assert "ssh-keygen -R '[127.0.0.1]:" in said()
    finally:
        key.write_bytes(right)
        known.write_text(trusted)


def _stranger(box: Sshd) -> str:
    return (box.folder / "stranger.pub").read_text().split()[1]


def test_devices_without_a_python(box: Sshd) -> None:
    box.tool("old", "[ $1 = --version ] && echo Python 3.8.10 || exit 1")

    def said(python: str) -> str:
        device = replace(box.device(), python=python, install=bool(python))
        with pytest.raises(Unsupported) as caught, fleet.linked(device, Told()):
            pass
        return str(caught.value)

    assert said("old").startswith("box: old is Python 3.8.10, and edgessl needs Python 3.10")
    for version in ("", ".10", ".11", ".12", ".13"):
        box.tool(f"python3{version}", "echo no such command; exit 127")
    assert "it has no Python" in said("") and "python3.10-venv" in said("")
    for tool in box.bin.iterdir():
        tool.unlink()


def test_a_full_disk(box: Sshd, small_disk: Path) -> None:
    device = replace(box.device(), directory=str(small_disk))
    (small_disk / "taken").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 200_000))

    with pytest.raises(DeviceError) as caught, fleet.linked(device, Told()):
        pass

    assert str(caught.value) == (
        f"box: edgessl could not be put there: No space left on device: {small_disk}. Make room, or "
        'name another folder in devices.toml: directory = "DIR"'
    )
    assert list((small_disk / "code").iterdir()) == []

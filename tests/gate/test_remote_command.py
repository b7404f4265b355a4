"""``edgessl devices`` and ``edgessl bench --on`` for several, with the devices' answers made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgessl import console
from edgessl.commands import on_devices
from edgessl.commands.devices import devices
from edgessl.errors import DeviceError, EdgesslError
from edgessl.gate import report as reports
from edgessl.gate.plan import Plan
from edgessl.gate.remote import bench, fleet
from edgessl.gate.remote.devices import Device
from edgessl.gate.report import Report, Round, Run, Subject

FACTS = {
    "model": "Jetson Orin Nano", "machine": "aarch64", "system": "Ubuntu 22.04", "cores": 6,
    "memory_mb": 7620, "free_mb": 12000, "jetpack": "R36 (release)", "power_mode": "0",
    "venv": True, "uv": False, "python": "3.10.12", "root": "/home/e/.cache/edgessl/remote",
}  # fmt: skip
CLEAN: dict[str, Any] = {"running": [], "root": "/r"}
REPORT = Report(
    {"device": "nano", "host": "h"},
    (Subject("a", "a/"),),
    (Run("a", "single-stream", "1x8", (Round(0, (5, 6, 7), 3, 18),)),),
)


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text(
        '[device.nano]\nhost = "e@10.0.0.7:2222"\n[device.pi]\nhost = "pi"\n'
    )
    said: dict[str, Any] = {"pi": DeviceError("pi: nothing answers at pi.")}

    def at_once(found: Mapping[str, Device], do: object, report: object) -> dict[str, Any]:
        return {name: said[name] for name in found}

    monkeypatch.setattr(fleet, "at_once", at_once)
    return said


def run(*arguments: str) -> int:
    return console.run(console.Commands(commands=[devices]), ["devices", *arguments])


def test_a_list(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out.splitlines() == [
        "device  reached with",
        "nano    ssh -p 2222 e@10.0.0.7",
        "pi      ssh pi",
    ]
    assert run("nano", "--json") == 0
    assert json.loads(capsys.readouterr().out)["nano"]["port"] == 2222
    assert run("nona") == 2
    assert "Did you mean 'nano'?" in capsys.readouterr().err
    assert run("--clean") == run("--clean", "--check", "nano") == 2


def test_a_check(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers["nano"] = FACTS
    assert run("--check", "-q") == 2  # one of them did not answer
    out, err = capsys.readouterr()
    assert out == (
        "nano: Jetson Orin Nano (aarch64), 6 cores, 7,620 MB, Ubuntu 22.04, R36 (release), power "
        "mode 0; Python 3.10.12 (venv), 12,000 MB free in /home/e/.cache/edgessl/remote\n"
    )
    assert err == "error: pi: nothing answers at pi.\n"
    assert run("--check", "-q", "--json", "nano") == 0
    assert json.loads(capsys.readouterr().out) == {"nano": FACTS}


def test_a_cleaning(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers["nano"] = CLEAN
    assert run("--clean", "-q", "nano") == 0
    assert capsys.readouterr().out == "nano: /r was removed\n"
    answers["nano"] = {**CLEAN, "running": ["x"]}
    assert run("--clean", "-q", "nano") == 0
    assert "nothing was removed" in capsys.readouterr().out


def test_reports_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Report | EdgesslError] = {
        "nano": REPORT,
        "ssh://pi@pi:22": REPORT,
        "off": DeviceError("off: gone"),
    }
    monkeypatch.setattr(bench, "measure_all", lambda *_, **__: found)

    def measure(output: Path | None, as_json: bool) -> int:
        return on_devices.measure(
            tuple(found), None, Plan({"a": "a/"}), ("edgessl", "bench"),
            output=output, overwrite=False, quiet=True, as_json=as_json,
        )  # fmt: skip

    assert measure(tmp_path / "r.json", False) == 2
    out, err = capsys.readouterr()
    assert err == "error: off: gone\n" and f"report  {tmp_path / 'r.nano.json'}" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.nano.json", "r.pi-pi-22.json"]
    signed = replace(REPORT, command=("edgessl", "bench"))
    assert reports.read(tmp_path / "r.nano.json") == signed
    assert measure(None, True) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [reports.loads(line) for line in lines] == [signed, signed]

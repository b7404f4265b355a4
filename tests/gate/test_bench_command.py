"""``edgessl bench`` as a user meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgessl import console, text_output
from edgessl.commands.bench import bench
from edgessl.errors import OutputError
from edgessl.gate import bench as measuring
from edgessl.gate import report as reports
from tests.gate.tiny import save_bundle, save_functions
from tests.measured import Machine

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--rounds", "2", "--seconds", "0.01", "--no-peak", "--no-energy", "-q")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, stdout and stderr, in a folder with ``tiny`` and ``functions.py``."""
    monkeypatch.chdir(tmp_path)
    save_functions(tmp_path)
    save_bundle(tmp_path / "tiny")

    def run(*arguments: str) -> tuple[int, str, str]:
        group = console.Commands("edgessl", commands=[bench])
        code = console.run(group, ["bench", *arguments])
        return code, *capsys.readouterr()

    return run


def test_two_bundles_and_a_report(run: Run) -> None:
    code, printed, errors = run("a=tiny", "b=tiny", *QUICK, "--shape", "1x8", "-o", "r.json")

    assert (code, errors) == (0, "")
    found = reports.read(Path("r.json"))
    assert [run.key for run in found.runs] == [
        ("a", "single-stream", "1x8"),
        ("b", "single-stream", "1x8"),
    ]
    assert found.command[0] == "edgessl" and found.environment["host"]
    assert "p99, ms" in printed and "cold start, ms" in printed
    (ratio,) = (line for line in printed.splitlines() if line.startswith("b / a"))
    assert ratio.endswith("too few rounds")  # of two nobody can tell
    assert printed.endswith("report  r.json\n")


def test_the_ratio_is_the_one_that_the_gate_uses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "measure", Machine({"a": 1.0, "b": 1.2}))
    code, printed, _ = run("a=tiny", "b=tiny", "--rounds", "20", "-q")
    assert code == 0
    (ratio,) = (line for line in printed.splitlines() if line.startswith("b / a"))
    middle, low, high = (float(ratio.split()[place]) for place in (-4, -3, -1))
    assert low < 1.2 < high and low <= middle <= high and high - low < 0.05


def test_against_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"tiny": 1.0, "tiny again": 1.0})
    monkeypatch.setattr(measuring, "measure", machine)
    code, printed, _ = run("tiny", "--aa", "-q")
    assert code == 0 and machine.asked == [30]
    rows = [line.split() for line in printed.splitlines() if "+5%" in line]
    assert [row[3:5] for row in rows] == [["the", "same"], ["5%", "slower"], ["10%", "slower"]]
    assert rows[0][5:7] == ["0.0%", "100.0%"] and float(rows[2][5].rstrip("%")) > 95
    code, printed, _ = run("tiny", "--aa", "-q", "--json")
    one, other = reports.loads(printed).subjects
    assert (one.name, other.name) == ("tiny", "tiny again")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "missing argument"),
        (("tiny", "x/tiny"), "two subjects are called 'tiny'"),
        (("tiny", "x=tiny", "--aa"), "--aa compares one bundle with itself"),
        (("tiny", "--data", "d.txt", "--shape", "1x8"), "--data is for --shape corpus"),
        (("tiny", "--cpus", "zero"), "--cpus 'zero': name cores"),
        (("tiny", "--rounds", "0"), "'--rounds'"),
        (("tiny", "--rounds", "9", "--aa"), "--aa needs --rounds 10"),
        (("tiny", "--devices", "d.toml"), "--devices is for --on"),
        (("tiny", "--scenario", "ofline"), "Did you mean 'offline'"),
        (("tiny", "--seconds", "nan"), "not nan"),
        (("tiny", "-o", "functions.py"), "functions.py exists; pass --overwrite"),
        (("tiny", "-o", "tiny"), "tiny is a directory"),
        (("tiny", "-o", "no/r.json"), "there is no directory"),
        (("functions.py:fails",), "functions:fails: ValueError: no model here"),
    ],
)
def test_wrong_use(run: Run, arguments: tuple[str, ...], message: str) -> None:
    before = sorted(os.listdir())
    code, printed, errors = run(*arguments, "-q")
    assert (code, printed) == (2, "") and message in errors
    assert errors.count("\n") == 1 and sorted(os.listdir()) == before


def test_a_bundle_that_is_none(run: Run) -> None:
    code, _, errors = run("nowhere", "-q")
    assert code == 4 and "no bundle at 'nowhere'" in errors


COMMAND = """
from edgessl import console
from edgessl.commands.bench import bench
console.main(console.Commands("edgessl", commands=[bench]))
"""


@pytest.mark.parametrize(("rounds_first", "kept"), [(0, False), (3, True)])
def test_ctrl_c(run: Run, rounds_first: int, kept: bool, tmp_path: Path) -> None:
    """What is whole is kept, where it is enough to tell anything."""
    script = COMMAND.replace(
        "console.main",
        "from edgessl.gate import bench as measuring\n"
        "play, left = measuring.play, [{}]\n"
        "def counted(*given):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: print('now', flush=True)\n"
        "    return play(*given)\n"
        "measuring.play = counted\n"
        "console.main".format(rounds_first),
    )
    arguments = [
        "bench",
        "functions.py:slow",
        "--rounds",
        "500",
        "--seconds",
        "0.01",
        "-o",
        "r.json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments, "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == console.INTERRUPTED
    if kept:
        assert errors == "interrupted: 3 of 500 rounds are in r.json\n"
        (measured,) = reports.read(Path("r.json")).runs
        assert len(measured.rounds) == 3
    else:
        assert errors == "interrupted: nothing was written\n" and not Path("r.json").exists()


def test_help_names_what_happens(run: Run) -> None:
    code, printed, _ = run("--help")
    assert code == 0 and "Ctrl-C" in printed and "FILE.py:FACTORY" in printed


def test_a_full_disk(run: Run) -> None:
    code, _, errors = run("functions.py:quick", *QUICK, "-o", "/dev/full")
    assert code == 2 and errors.startswith("error: cannot write /dev/full: No space left")


def test_an_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    text_output.write(path, "old")

    def refuse(place: str) -> None:
        raise OSError(28, "No space left on device", place)

    monkeypatch.setattr(text_output, "fsync", refuse)
    with pytest.raises(OutputError, match="No space left"):
        text_output.write(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["r.json"]

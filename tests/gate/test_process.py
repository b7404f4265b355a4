"""A worker from outside: what it answers, how it rests, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgessl.errors import BundleError, EdgesslError, RecipeError
from edgessl.gate.measuring import process, workload
from edgessl.gate.measuring.process import Process
from edgessl.gate.measuring.worker import peak_memory_mb
from tests.gate.tiny import save_functions

Open = Callable[[str], Any]


@pytest.fixture
def items(tmp_path: Path) -> Path:
    workload.write(["a text"], tmp_path / "items")
    return tmp_path / "items"


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    return save_functions(tmp_path)


@pytest.fixture
def worker() -> Iterator[Process]:
    with process.started("the subject") as found:
        yield found


def opened(worker: Process, subject: str, items: Path) -> Any:
    return worker.ask("open", subject=subject, first=str(items), settings={}, options={})


def state(pid: int) -> str:
    """``R``, ``S``, ``T`` (stopped), ...; ``""`` where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    found = text.rpartition(")")[2].split()[0]
    return "" if found == "Z" else found  # dead already, and nobody has asked yet


def until(happened: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)
    return happened()


def test_a_function(worker: Process, functions: Path, items: Path) -> None:
    assert opened(worker, f"{functions}:quick", items) == {"runtime": f"{functions}:quick"}
    worker.ask("take", cell=["a"], path=str(items), size=1, start=0, ragged=False)
    warm = worker.ask("warm_up", cell=["a"])
    assert warm["queries"] > 100 and warm["usual_ns"] > 0
    block = worker.ask("block", cell=["a"], span_ns=1_000_000)
    assert block["busy_ns"] >= 1_000_000 and block["items"] == len(block["latency_ns"])
    assert block["lead"] > 0 and not block["overloaded"]
    found = worker.ask("finish")
    assert 5 < found["memory_mb"] < 500 and "numpy" in found["libraries"]


def test_what_a_library_prints_is_no_answer(worker: Process, functions: Path, items: Path) -> None:
    opened(worker, f"{functions}:prints", items)
    worker.ask("take", cell=["a"], path=str(items), size=1, start=0, ragged=False)
    block = worker.ask("warm_up", cell=["a"])  # prints thousands of lines
    assert block["queries"] > 100


def test_it_rests_unless_asked(worker: Process, functions: Path, items: Path) -> None:
    opened(worker, f"{functions}:quick", items)
    assert until(lambda: state(worker.pid) == "T")
    worker.ask("take", cell=["a"], path=str(items), size=1, start=0, ragged=False)
    assert until(lambda: state(worker.pid) == "T")


@pytest.mark.parametrize(
    ("factory", "kind", "message"),
    [
        ("fails", EdgesslError, "the subject: ValueError: no model here$"),
        ("returns_nothing", RecipeError, "returned NoneType for a list of 1 item"),
        ("is_no_function", RecipeError, "returned int: it must return a function"),
        ("absent", RecipeError, "has no function 'absent'"),
        ("dies", EdgesslError, r"ended with signal 11 \(SIGSEGV\): Fatal: the library is broken"),
    ],
)
def test_functions_that_do_not_work(
    worker: Process, functions: Path, items: Path, factory: str, kind: type, message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        opened(worker, f"{functions}:{factory}", items)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_errors_of_a_bundle_keep_their_class(worker: Process, items: Path) -> None:
    with pytest.raises(BundleError, match="the subject: no bundle at"):
        opened(worker, "nowhere", items)


def test_one_that_hangs(functions: Path, items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ANSWER_S", 0.8)
    with process.started("slowpoke") as worker:
        with pytest.raises(EdgesslError, match="slowpoke: no answer to 'open' for 0.8 s"):
            opened(worker, f"{functions}:hangs", items)
    assert state(worker.pid) == ""


def test_one_that_is_killed_between_questions(
    worker: Process, functions: Path, items: Path
) -> None:
    opened(worker, f"{functions}:quick", items)
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: state(worker.pid) == "")
    with pytest.raises(EdgesslError, match=r"ended with signal 9 \(SIGKILL\)\."):
        worker.ask("finish")


def test_close_is_called(
    functions: Path, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSED", str(tmp_path / "closed"))
    with process.started("closing") as worker:
        opened(worker, f"{functions}:Closed", items)
        worker.ask("finish")
    assert (tmp_path / "closed").read_text() == "closed"


def test_it_stays_on_its_cores() -> None:
    (first, *_) = sorted(os.sched_getaffinity(0))
    with process.started("one core", [first]) as worker:
        assert os.sched_getaffinity(worker.pid) == {first}


ORPHAN = """
import sys
from edgessl.gate.measuring import process
from edgessl.gate.measuring.process import started

with started("one") as one, started("two") as two:
    for worker in (one, two):
        worker.ask("open", subject=sys.argv[1], first=sys.argv[2], settings={}, options={})
    print(one.pid, two.pid, flush=True)
    worker.ask("take", cell=["a"], path=sys.argv[2], size=1, start=0, ragged=False)
    worker.ask("warm_up", cell=["a"])
    worker.ask("block", cell=["a"], span_ns=60_000_000_000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_one_that_measures_dies(
    number: signal.Signals, functions: Path, items: Path
) -> None:
    """Of a worker that rests, and of one that is busy."""
    measuring = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, f"{functions}:slow", str(items)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with measuring:
        assert measuring.stdout is not None
        pids = [int(word) for word in measuring.stdout.readline().split()]
        assert until(lambda: sorted(map(state, pids)) in (["S", "T"], ["R", "T"]))
        measuring.send_signal(number)
        assert measuring.wait(10) != 0
        gone = until(lambda: [state(pid) for pid in pids] == ["", ""])
    assert len(pids) == 2 and gone


def test_peak_memory() -> None:
    assert peak_memory_mb("VmPeak:   9 kB\nVmHWM:\t  123456 kB\nVmRSS: 1 kB\n") == 126.418944
    measured = peak_memory_mb("")  # a system without /proc
    assert measured is not None and measured > 5

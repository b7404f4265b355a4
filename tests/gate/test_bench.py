"""Measuring, from a plan to a report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgessl.errors import BundleError, EdgesslError, RecipeError
from edgessl.gate import bench, conditions
from edgessl.gate import report as reports
from edgessl.gate.bench import measure
from edgessl.gate.measuring import meters, rounds
from edgessl.gate.plan import Plan
from edgessl.gate.report import Report
from edgessl.gate.subjects import named
from tests.gate.tiny import save_bundle, save_functions

MS = 1_000_000


class FakeWorker:
    """A process that works at once: blocks take as long as they should."""

    def __init__(self, name: str, log: list[str], usual_ms: float) -> None:
        self.name, self.pid, self.log, self.usual_ns = name, 0, log, int(usual_ms * MS)

    def age_ns(self) -> int:
        return 123 * MS

    def ask(self, do: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        self.log.append(f"{self.name} {do}")
        if do == "open":
            return {"runtime": "fake", "device": "CPU", "streams": 2}
        if do == "warm_up":
            return {"usual_ns": self.usual_ns, "queries": 3, "stable": self.name != "C"}
        if do == "finish":
            return {"memory_mb": 50.0, "libraries": ["numpy"]}
        if do not in ("block", "serve"):
            return None
        if do == "serve":
            self.log[-1] += f" {arguments['qps']:g} {arguments['streams']} {arguments['seed']}"
        count = max(1, arguments.get("span_ns", 0) // self.usual_ns)
        return {
            "latency_ns": [self.usual_ns] * count,
            "items": count,
            "busy_ns": self.usual_ns * count,
            "overloaded": do == "serve" and self.name == "C",
            "lead": 1,
        }


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the workers of a plan were asked, in order."""
    asked: list[str] = []

    @contextmanager
    def started(name: str, cpus: Any = ()) -> Iterator[FakeWorker]:
        asked.append(f"{name} started")
        yield FakeWorker(name, asked, {"A": 10, "B": 20, "C": 40}[name])
        asked.append(f"{name} ended")

    monkeypatch.setattr(rounds, "started", started)
    monkeypatch.setattr(conditions, "environment", lambda *_: {"device": "here"})
    return asked


@pytest.fixture
def functions(tmp_path: Path) -> str:
    return str(save_functions(tmp_path))


def plan(functions: str, names: str, **options: Any) -> Plan:
    subjects = {name: f"{functions}:quick" for name in names}
    return Plan(subjects, **{"rounds": 1, "peak": False, "energy": False, **options})


def blocks(log: list[str]) -> str:
    return "".join(line[0] for line in log if line.endswith("block"))


def test_blocks_are_interleaved(log: list[str], functions: str) -> None:
    measure(plan(functions, "AB", seconds=0.48))
    assert blocks(log) == "ABBAABBAABBAABBA"


def test_all_are_open_and_warm_before_the_first_block(log: list[str], functions: str) -> None:
    measure(plan(functions, "AB", seconds=0.06))
    assert log == [
        *("A started", "A open", "B started", "B open"),
        *("A take", "B take", "A warm_up", "B warm_up"),
        *("A block", "B block", "A finish", "B finish", "B ended", "A ended"),
    ]


def test_the_order_of_starting_rotates(log: list[str], functions: str) -> None:
    measure(plan(functions, "ABC", seconds=0.01, rounds=3, first_round=1))
    assert [line[0] for line in log if line.endswith("started")] == list("BCACABABC")


def test_every_subject_is_measured_for_as_long(log: list[str], functions: str) -> None:
    found = measure(plan(functions, "ABC", seconds=0.2))
    # 3 blocks of 67 ms: queries of 10, 20 and 40 ms leave some of a block unused
    assert {run.subject: run.rounds[0].busy_ns / MS for run in found.runs} == {
        "A": 240,
        "B": 240,
        "C": 200,
    }


def test_scenarios_share_a_process_where_the_mode_is_the_same(
    log: list[str], functions: str
) -> None:
    wanted = ("single-stream", "offline", "multi-stream", "server")
    found = measure(plan(functions, "A", seconds=0.01, scenarios=wanted, rounds=2))
    assert log.count("A started") == 4 and log.count("A warm_up") == 8
    assert [(*run.key[1:], run.settings["mode"]) for run in found.runs] == [
        ("single-stream", "1", "latency"),
        ("offline", "256", "throughput"),
        ("multi-stream", "8", "latency"),
        ("server", "1", "throughput"),
    ]


def test_arrivals_are_the_same_for_all_subjects(log: list[str], functions: str) -> None:
    found = measure(plan(functions, "AC", scenarios=("server",), rounds=2, seed=5))
    # 0.7 of what C can do, which takes 40 ms
    assert [line for line in log if " serve" in line] == [
        *("A serve 17.5 2 [5, 0]", "C serve 17.5 2 [5, 0]"),
        *("C serve 17.5 2 [5, 1]", "A serve 17.5 2 [5, 1]"),
    ]
    assert {run.settings["qps"] for run in found.runs} == {17.5}
    assert any("C / server / 1: overloaded in 2 of 2 rounds" in note for note in found.notes)


def test_what_is_asked_for_is_in_the_report(log: list[str], functions: str) -> None:
    found = measure(plan(functions, "AC", seconds=0.06, rounds=3, threads=1, first_round=7))
    assert reports.loads(found.dumps()) == found
    (run, other) = found.runs
    assert run.settings == {"mode": "latency", "threads": 1}
    assert [visit.number for visit in run.rounds] == [7, 8, 9]
    (visit, *_) = run.rounds
    assert visit.latency_ns == (10 * MS,) * 6 and visit.items == 6 and visit.busy_ns == 60 * MS
    assert visit.cold_start_ns == 123 * MS and visit.memory_mb == 50.0
    assert visit.energy_mj is None and "load" in visit.conditions
    assert any("C / single-stream / 1: not steady" in note for note in found.notes)
    assert not any(note.startswith("A ") for note in found.notes)


def test_energy_is_of_all_items_that_ran(
    log: list[str], functions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meter:
        """Each time it is read, another 70 mJ are gone."""

        name, resolution_ns, taken, closed = "fake", 100 * MS, 0.0, False

        def millijoules(self) -> float:
            self.taken += 70
            return self.taken

        def close(self) -> None:
            self.closed = True

    meter = Meter()
    monkeypatch.setattr(meters, "find", lambda on_gpu: (meter, []))
    found = measure(plan(functions, "A", seconds=0.2, energy=True))
    # two blocks of 100 ms, as long as the meter needs: 10 items and one before them
    assert blocks(log) == "AA" and meter.closed
    assert found.runs[0].rounds[0].energy_mj == pytest.approx(140 / 22)


def test_reports_on_the_way(log: list[str], functions: str) -> None:
    seen: list[Report] = []
    found = measure(plan(functions, "AB", seconds=0.01, rounds=3), each=seen.append)
    assert [len(report.runs[1].rounds) for report in seen] == [1, 2, 3]
    assert replace(seen[-1], created=found.created) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenarios": ("sever",)}, "no scenario 'sever'. Did you mean 'server'"),
        ({"seconds": math.nan}, "seconds must be a number above 0, not nan"),
        ({"seconds": 0}, "seconds must be"),
        ({"qps": math.inf}, "qps must be a number above 0, not inf"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"shapes": ("0x4",)}, "at least one item"),
        ({"shapes": ("1x4",)}, "tokens are a bundle's"),
        ({"shapes": ("corpus",)}, "name the data"),
        ({"data": "absent.txt"}, "absent.txt"),
        ({"cpus": (0, 4095)}, "no core 4095"),
        ({"subjects": {}}, "name a bundle"),
        ({"subjects": {"x": "absent.py:make"}}, "no file 'absent.py'"),
    ],
)
def test_plans_that_cannot_be(
    options: dict[str, Any], message: str, log: list[str], functions: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        measure(replace(plan(functions, "A"), **options))
    assert log == []  # before anything was started


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("tiny") / "tiny")


def test_bundles_and_functions_for_real(
    bundle: Path, functions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All scenarios, items of both kinds, a bundle beside a function; through a file."""
    (tmp_path / "texts.txt").write_text("the of and\n" * 20 + "to in the of\n" * 20)
    wanted = Plan(
        {"tiny": str(bundle), "own": f"{functions}:quick"},
        scenarios=("single-stream", "offline"),
        shapes=("2x16", "corpus"),
        data=str(tmp_path / "texts.txt"),
        rounds=1,
        seconds=0.02,
        peak=False,
        threads=1,
    )
    (tmp_path / "plan.json").write_text(wanted.dumps())
    assert bench.main([str(tmp_path / "plan.json"), str(tmp_path / "report.json")]) == 0
    assert capsys.readouterr().err == "1 of 1 rounds\n"

    found = reports.read(tmp_path / "report.json")
    assert len(found.runs) == 8
    tiny, own = found.subjects
    assert tiny.task == "text" and tiny.size_bytes and tiny.digest and own.size_bytes is None
    runs = {run.key: run for run in found.runs}
    pairs, corpus = runs["tiny", "single-stream", "2x16"], runs["tiny", "offline", "corpus"]
    assert pairs.facts["ran"]["runtime"] == "onnxruntime" and pairs.facts["ran"]["threads"] == 1
    assert pairs.rounds[0].items == 2 * len(pairs.latencies)
    assert corpus.rounds[0].items == 40 * len(corpus.latencies)
    assert corpus.settings["data"] == "texts.txt"
    assert found.environment["versions"].keys() >= {"onnxruntime", "numpy", "tokenizers"}
    for run in found.runs:
        (visit,) = run.rounds
        assert visit.busy_ns >= 20 * MS * 0.99 and visit.busy_ns >= sum(visit.latency_ns)
        assert visit.cold_start_ns and visit.cold_start_ns > 20 * MS


def test_the_share_of_the_peak(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Peak(FakeWorker):
        def ask(self, do: str, timeout_s: float | None = None, **arguments: Any) -> Any:
            asked.append((do, arguments))
            return 2e9

    @contextmanager
    def started(name: str, cpus: Any) -> Iterator[FakeWorker]:
        yield Peak(name, [], 1)

    monkeypatch.setattr(bench, "started", started)
    found = measure(Plan({"a": str(bundle), "b": str(bundle)}, rounds=1, seconds=0.02))
    facts = found.runs[0].facts
    # 33,000 operations at 32 tokens, which is what these texts have
    assert facts["flops_per_item"] == pytest.approx(33_000)
    (visit,) = found.runs[0].rounds
    rate = visit.items / (visit.busy_ns / 1e9)
    assert facts["peak_share"] == pytest.approx(rate * 33_000 / 2e9)
    assert asked == [("peak", {"runtime": "onnxruntime", "precision": "fp32"})]  # once for both


def test_bundles_that_cannot_be_measured(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        measure(Plan({"x": str(tmp_path / "absent")}))
    damaged = save_bundle(tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"short")
    with pytest.raises(BundleError, match="x: .*model.onnx: missing or of the wrong size"):
        measure(Plan({"x": str(damaged)}, rounds=1))
    with pytest.raises(RecipeError, match="at most 48 tokens"):
        measure(Plan({"x": str(bundle)}, shapes=("1x49",)))
    with pytest.raises(EdgesslError, match="x: asked for device 'gpu'"):
        measure(Plan({"x": str(bundle)}, device="gpu", rounds=1))


def test_main_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 2
    (tmp_path / "plan.json").write_text('{"subjects": {}')
    assert bench.main([str(tmp_path / "plan.json"), str(tmp_path / "r.json")]) == 2
    (tmp_path / "plan.json").write_text(Plan({"x": "nowhere"}).dumps())
    assert bench.main([str(tmp_path / "plan.json"), str(tmp_path / "no" / "r.json")]) == 2
    assert bench.main([str(tmp_path / "plan.json"), str(tmp_path / "r.json")]) == 4
    usage, plan, place, bundle = capsys.readouterr().err.splitlines()
    assert "usage: " in usage and "plan.json' cannot be read" in plan
    assert "no directory" in place and "no bundle at 'nowhere'" in bundle


def test_measuring_loads_no_runtime_here(bundle: Path, functions: str) -> None:
    """The process that measures stays small and idle."""
    code = (
        "import json, sys; from edgessl.gate.bench import measure; "
        "from edgessl.gate.plan import Plan; "
        "measure(Plan({'a': sys.argv[1]}, rounds=1, seconds=0.01, peak=False)); "
        "print(json.dumps([n for n in ('torch', 'onnxruntime', 'openvino') if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_names_of_subjects() -> None:
    assert named(["a/minilm/", "new=b/minilm", "peer.py:make"]) == {
        "minilm": "a/minilm/",
        "new": "b/minilm",
        "peer:make": "peer.py:make",
    }
    assert named(["lr=3/minilm", "./lr=3/tiny"]) == {"lr": "3/minilm", "tiny": "./lr=3/tiny"}
    for bad, message in (("=x", "NAME=PATH"), ("x=", "NAME=PATH")):
        with pytest.raises(RecipeError, match=message):
            named([bad])
    with pytest.raises(RecipeError, match="called 'minilm'.*NAME=b/minilm"):
        named(["a/minilm", "b/minilm"])

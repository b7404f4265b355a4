"""Threads and streams: the system's files are made up, the plans are read off by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgessl.backend import RuntimeOptions
from edgessl.cores import Cores, Plan, here, parse_list, plan
from edgessl.errors import RecipeError


class System:
    """A /sys of so many processors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, text: str) -> System:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
        return self

    def siblings(self, *groups: str) -> System:
        for group in groups:
            for cpu in parse_list(group):
                path = f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
                self.write(path, group)
        return self

    def capacities(self, *values: int) -> System:
        for cpu, value in enumerate(values):
            self.write(f"devices/system/cpu/cpu{cpu}/cpu_capacity", str(value))
        return self

    def cores(self, *allowed: int) -> Cores:
        return here(self.folder, set(allowed), "0::/\n")


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-3,8\n", {0, 1, 2, 3, 8}),
        ("5", {5}),
        ("", set()),
        ("\n", set()),
        ("0-x", set()),
        ("none", set()),
    ],
)
def test_lists_of_the_kernel(text: str, numbers: set[int]) -> None:
    assert parse_list(text) == numbers


def test_a_system_that_tells_nothing(system: System) -> None:
    assert system.cores(0, 1, 2) == Cores((0, 1, 2), (0, 1, 2))


def test_hyper_threads_are_one_core(system: System) -> None:
    system.siblings("0,2", "1,3")
    assert system.cores(0, 1, 2, 3) == Cores((0, 1), (0, 1))
    assert system.cores(2, 3) == Cores((2, 3), (2, 3))  # the mask leaves the second of each
    assert system.cores(1, 3) == Cores((1,), (1,))


def test_intel_hybrid(system: System) -> None:
    system.siblings("0-1", "2-3", "4", "5").write("devices/cpu_core/cpus", "0-3")
    system.write("devices/cpu_atom/cpus", "4-5")
    assert system.cores(*range(6)) == Cores((0, 2), (0, 2, 4, 5))
    assert system.cores(4, 5) == Cores((4, 5), (4, 5))  # only slow ones are allowed
    assert not system.cores(4, 5).hybrid


@pytest.mark.parametrize(
    ("capacities", "fast"),
    [
        ((446, 446, 1024, 1024), (2, 3)),
        ((250, 250, 870, 870, 1024), (2, 3, 4)),
        ((1024, 1024), (0, 1)),
    ],
)
def test_arm_big_little(system: System, capacities: tuple[int, ...], fast: tuple[int, ...]) -> None:
    system.capacities(*capacities)
    everything = tuple(range(len(capacities)))
    assert system.cores(*everything) == Cores(fast, everything)


def test_the_quota(system: System) -> None:
    system.write("fs/cgroup/cpu.max", "150000 100000")
    assert system.cores(0, 1, 2, 3).quota == 1.5


EIGHT = tuple(range(8))


@pytest.mark.parametrize(
    ("cores", "mode", "threads", "streams", "expected"),
    [
        (Cores(EIGHT, EIGHT), "latency", None, None, Plan(8, 1)),
        (Cores(EIGHT, EIGHT), "throughput", None, None, Plan(1, 8)),
        (Cores(EIGHT, EIGHT), "throughput", 2, None, Plan(2, 4)),
        (Cores(EIGHT, EIGHT), "throughput", 3, None, Plan(3, 2)),
        (Cores(EIGHT, EIGHT), "throughput", None, 2, Plan(4, 2)),
        (Cores(EIGHT, EIGHT), "throughput", None, 16, Plan(1, 16)),
        (Cores(EIGHT, EIGHT), "throughput", 16, None, Plan(16, 1)),
        (Cores(EIGHT, EIGHT), "latency", 3, None, Plan(3, 1)),
        (Cores(EIGHT, EIGHT), "latency", None, 2, Plan(4, 2)),
        (Cores(EIGHT, EIGHT, 1.5), "latency", None, None, Plan(1, 1)),
        (Cores(EIGHT, EIGHT, 1.5), "throughput", None, None, Plan(1, 2)),
        (Cores(EIGHT, EIGHT, 0.5), "latency", None, None, Plan(1, 1)),
        (Cores(EIGHT, EIGHT, 0.5), "throughput", None, None, Plan(1, 1)),
        (Cores(EIGHT, EIGHT, 64.0), "latency", None, None, Plan(8, 1)),
        (Cores((2, 3), (0, 1, 2, 3)), "latency", None, None, Plan(2, 1, (2, 3))),
        (Cores((2, 3), (0, 1, 2, 3)), "latency", 1, None, Plan(1, 1, (2,))),
        (Cores((2, 3), (0, 1, 2, 3)), "latency", 4, None, Plan(4, 1)),
        (Cores((2, 3), (0, 1, 2, 3), 1.0), "latency", None, None, Plan(1, 1, (2,))),
        (Cores((2, 3), (0, 1, 2, 3)), "throughput", None, None, Plan(1, 4)),
        (Cores((0,), (0,)), "latency", None, None, Plan(1, 1)),
    ],
)
def test_plans(
    cores: Cores, mode: str, threads: int | None, streams: int | None, expected: Plan
) -> None:
    assert plan(mode, threads, streams, cores) == expected


def test_this_machine() -> None:
    cores = here()
    assert 1 <= len(cores.fast) <= len(cores.all) <= (os.cpu_count() or 1)
    assert plan("latency").streams == plan("throughput").threads == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "latencies"}, "'latencies' is neither latency nor throughput. Did you mean 'l"),
        ({"mode": None}, "mode None is neither"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"streams": -1}, "streams must be at least 1, not -1"),
        ({"threads": 1.5}, "threads must be a whole number, not 1.5"),
        ({"streams": True}, "streams must be a whole number, not True"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        RuntimeOptions(**options)  # type: ignore[arg-type]

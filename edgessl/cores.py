"""How many threads an inference gets: what this process may use, and which cores are fast."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from edgessl.machine import cpu_quota, read_text

_SYSTEM = Path("/sys")


@dataclass(frozen=True)
class Cores:
    """``fast``: one CPU number for each performance core that this process may use, ``all``: for
    each core of any kind (a core's hyper-threads count once). ``quota``: of the container, in
    cores; None without one."""

    fast: tuple[int, ...]
    all: tuple[int, ...]
    quota: float | None = None

    @property
    def hybrid(self) -> bool:
        return len(self.fast) < len(self.all)


@dataclass(frozen=True)
class Plan:
    """``threads`` inside each of ``streams`` inferences at once. ``cpus``: where they are to stay
    (the performance cores of a hybrid processor); empty: anywhere."""

    threads: int
    streams: int
    cpus: tuple[int, ...] = ()


def plan(
    mode: str, threads: int | None = None, streams: int | None = None, cores: Cores | None = None
) -> Plan:
    """What suits *mode* on *cores* (default: this machine); what is given is taken as it is.

    Latency: every performance core works on one input; a slow core would hold the others up, and a
    thread beyond the quota would have them all stopped until the next period, so the quota is
    rounded down. Throughput: one core a stream, of any kind, the quota rounded up: sharing one
    inference among cores costs more than it brings.
    """
    cores = cores or here()
    quota = math.inf if cores.quota is None else cores.quota
    if mode == "latency":
        usable = max(1, int(min(len(cores.fast), quota)))
        streams = streams or 1
    else:
        usable = max(1, math.ceil(min(len(cores.all), quota)))
        streams = streams or max(1, usable // (threads or 1))
    threads = threads or max(1, usable // streams)
    stay = mode == "latency" and cores.hybrid and threads * streams <= len(cores.fast)
    return Plan(threads, streams, cores.fast[: threads * streams] if stay else ())


def here(
    system: Path = _SYSTEM, allowed: set[int] | None = None, membership: str | None = None
) -> Cores:
    """The cores of this machine.

    Args:
        system: where sysfs is mounted.
        allowed: CPU numbers that the process may run on. ``membership``: the text of
            /proc/self/cgroup. None asks the system.
    """
    if allowed is None:
        can_ask = hasattr(os, "sched_getaffinity")
        allowed = os.sched_getaffinity(0) if can_ask else set(range(os.cpu_count() or 1))
    cpus = _one_a_core(system, sorted(allowed))
    if membership is None:
        membership = read_text(Path("/proc/self/cgroup"))
    quota = cpu_quota(membership, system / "fs" / "cgroup")
    return Cores(_fast(system, cpus), cpus, quota)


def parse_list(text: str) -> set[int]:
    """The kernel's lists: ``"0-3,8"`` -> {0, 1, 2, 3, 8}; what is no list is empty."""
    found: set[int] = set()
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        if low.isdecimal() and (high or low).isdecimal():
            found.update(range(int(low), int(high or low) + 1))
    return found


def _one_a_core(system: Path, allowed: list[int]) -> tuple[int, ...]:
    """The first allowed hyper-thread of each core."""
    taken: set[int] = set()
    chosen = []
    for cpu in allowed:
        if cpu not in taken:
            chosen.append(cpu)
            siblings = system / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            taken |= parse_list(read_text(siblings))
    return tuple(chosen)


def _fast(system: Path, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """Those of *cpus* that are performance cores; all of them where the system knows no kinds."""
    performance = parse_list(read_text(system / "devices/cpu_core/cpus"))  # Intel's hybrids
    if performance:
        chosen = tuple(cpu for cpu in cpus if cpu in performance)
    else:  # Arm: 1024 for the fastest kind
        folder = system / "devices/system/cpu"
        words = {cpu: read_text(folder / f"cpu{cpu}/cpu_capacity").strip() for cpu in cpus}
        capacity = {cpu: int(word) for cpu, word in words.items() if word.isdecimal()}
        least = min(capacity.values(), default=0)
        # Of three kinds (a prime core, big ones, little ones) two are fast.
        chosen = tuple(cpu for cpu in cpus if capacity.get(cpu, 0) > least)
    return chosen or cpus

"""One device or several at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

from edgessl import interrupts
from edgessl.errors import EdgesslError
from edgessl.gate.remote import wheel
from edgessl.gate.remote.devices import Device
from edgessl.gate.remote.link import Link, Progress

LOST_AFTER_S = 600.0
_Found = TypeVar("_Found")


@contextmanager
def linked(
    device: Device,
    report: Progress,
    lost_after_s: float = LOST_AFTER_S,
    check: Callable[[], None] = interrupts.check,
) -> Iterator[Link]:
    """A connection for the time of the block. *check* may raise to end any waiting."""
    with closing(Link(device, wheel.pack(), report, lost_after_s, check)) as link:
        report(f"connecting to {link.called}")
        link.connect()
        yield link


def at_once(
    devices: Mapping[str, Device],
    do: Callable[[Link], _Found],
    report: Progress,
    lost_after_s: float = LOST_AFTER_S,
) -> dict[str, _Found | EdgesslError]:
    """What *do* found on each device, by name, or why it did not: one does not stop the others."""
    stopped = threading.Event()
    lock = threading.Lock()

    def check() -> None:
        interrupts.check()
        if stopped.is_set():
            raise KeyboardInterrupt

    def one(name: str) -> _Found | EdgesslError:
        try:
            with linked(devices[name], _Named(report, lock, name), lost_after_s, check) as link:
                return do(link)
        except EdgesslError as err:
            return err

    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            return dict(zip(devices, pool.map(one, devices), strict=True))
        finally:
            stopped.set()  # where this thread was interrupted, the others end their jobs, too


class _Named:
    """One terminal for several devices: every step with the device's name before it."""

    def __init__(self, report: Progress, lock: threading.Lock, name: str) -> None:
        self._report, self._lock, self._name = report, lock, name

    def __call__(self, name: str) -> None:
        with self._lock:
            self._report(f"{self._name}: {name}")

    def count(self, done: int, total: int | None, unit: str) -> None:
        """Not shown: the line is the device's that spoke last."""

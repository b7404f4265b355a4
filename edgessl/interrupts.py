"""Ctrl-C and SIGTERM that no library can swallow.

Both raise where they arrive. Deep inside torch that may be below an ``except:`` that drops them,
so they are remembered and raised again at the next step of the job.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_arrived: list[int] = []
_outcome: list[Callable[[], str]] = []


@contextmanager
def remembered() -> Iterator[None]:
    """Inside the block SIGINT raises ``KeyboardInterrupt`` and SIGTERM ``SystemExit(143)``.

    Does nothing outside the main thread, or for a signal that the program handles or ignores.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    changed = {n: before for n, before in usual.items() if signal.getsignal(n) == before}
    _arrived.clear()
    _outcome.clear()
    for number in changed:
        signal.signal(number, _arrive)
    try:
        yield
    finally:
        for number, before in changed.items():
            signal.signal(number, before)


def check() -> None:
    """Raise again what has arrived.

    Raises:
        KeyboardInterrupt: SIGINT came.
        SystemExit: SIGTERM came.
    """
    if _arrived:
        _raise(_arrived[0])


def leaves(outcome: Callable[[], str] | None) -> None:
    """Say what an interrupted job leaves behind, until told otherwise; None: nothing."""
    _outcome[:] = [outcome] if outcome else []


def outcome() -> str:
    """What the job that was interrupted has left, for a message."""
    return _outcome[0]() if _outcome else "nothing was written"


def arrived() -> int | None:
    """The signal that came first, None where none did."""
    return _arrived[0] if _arrived else None


def _arrive(number: int, _frame: FrameType | None) -> None:
    _arrived.append(number)
    _raise(number)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)

"""Work on the items of a batch on several threads: for libraries that let go of Python's lock."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from edgessl import cores
from edgessl.errors import EdgesslError


@functools.cache
def usable_cores() -> int:
    """Cores that this process may use, at least 1."""
    return cores.plan("throughput").streams


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="edgessl-items")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def each(
    work: Callable[[int], None], count: int, workers: int, all_errors: bool = False
) -> list[tuple[int, EdgesslError]]:
    """Call *work* with every number below *count*, once each, on so many threads.

    The caller's thread is one of them, so that nothing waits for a busy pool; the others are
    shared by everyone who asks for as many.

    Args:
        all_errors: go on after an error; otherwise what had not begun stays undone.

    Returns:
        (number, error) of what raised an ``EdgesslError``, in order. The first of them is the
        same whatever the threads do. Any other exception is raised.
    """
    errors: list[tuple[int, EdgesslError]] = []
    numbers = iter(range(count))
    lock = threading.Lock()
    stop = threading.Event()

    def go() -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                work(number)
            except EdgesslError as error:
                errors.append((number, error))
                if not all_errors:
                    stop.set()
            except BaseException:
                stop.set()
                raise

    helpers = min(workers, count) - 1
    futures = [_pool(workers - 1).submit(go) for _ in range(helpers)]
    try:
        go()
    finally:
        stop.set()
        started = [future for future in futures if not future.cancel()]
        wait(started)
    for future in started:
        future.result()
    return sorted(errors, key=lambda found: found[0])

"""Work shared out to threads: everything once, the same first error, no thread left behind."""

from __future__ import annotations

import os
import threading
import time

import pytest

from edgessl.errors import ItemError
from edgessl.runtimes.workers import each


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_every_number_once(threads: int, count: int) -> None:
    done: list[int] = []
    assert each(done.append, count, threads) == []
    assert sorted(done) == list(range(count))


def test_several_threads_work_at_once() -> None:
    meet = threading.Barrier(3, timeout=10)  # broken, and so an error, unless all three come

    def work(number: int) -> None:
        meet.wait()

    each(work, 3, 3)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_first_error_is_the_same_on_any_number_of_threads(threads: int) -> None:
    def work(number: int) -> None:
        time.sleep(0.02 if number == 7 else 0)  # others fail before it
        if number >= 7:
            raise ItemError(f"item {number}", number)

    errors = each(work, 40, threads)
    assert str(errors[0][1]) == "item 7"
    every = each(work, 40, threads, all_errors=True)
    assert [number for number, _ in every] == list(range(7, 40))


@pytest.mark.parametrize("threads", [1, 3])
def test_another_error_is_raised_and_ends_the_work(threads: int) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt
        time.sleep(0.001)
        done.append(number)

    with pytest.raises(KeyboardInterrupt):
        each(work, 10_000, threads, all_errors=True)
    assert len(done) < 9_000


def test_work_may_itself_be_shared_out() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        each(done.append, 3, 2)

    each(work, 20, 2)
    assert sorted(done) == sorted(list(range(3)) * 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    each(lambda number: None, 8, 3)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        each(done.append, 8, 3)
        os._exit(len(done))
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 8 and ended[0] == child

"""The process that is measured: one subject, told over stdin what to do.

    python -m edgessl.gate.measuring.worker

Each line on stdin is a JSON object: ``{"do": NAME, ...}``, a method of ``Worker`` and its
arguments. Each is answered by one line: ``{"ok": ...}`` or ``{"error": CLASS, "message": ...}``.
The process ends when stdin does, whatever it is doing: with whoever started it.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Those whose versions matter, where a subject has loaded them.
LIBRARIES = (
    "numpy tokenizers onnxruntime openvino tensorrt tensorrt_rtx cuda.bindings PIL torch "
    "transformers sentence_transformers fastembed optimum"
).split()


class Worker:
    """What the process can be asked; every method returns what JSON has."""

    def __init__(self) -> None:
        self._call: Callable[[Any], Any] | None = None
        self._session: Any = None  # of a bundle
        self._close: Callable[[], object] = lambda: None
        self._queries: dict[tuple[str, ...], Callable[[], Any]] = {}
        self._once: dict[tuple[str, ...], int] = {}  # queries to see before all is warm
        self._usual_ns: dict[tuple[str, ...], int] = {}

    def open(
        self, subject: str, first: str, settings: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Open a bundle, or call a factory, and get the first vector; what really runs."""
        path, _, factory = subject.rpartition(":")
        if path.endswith(".py"):
            self._call = _made(path, factory)
            self._close = getattr(self._call, "close", self._close)
            facts = {"runtime": subject}
        else:
            import edgessl

            self._session = edgessl.load(subject, **settings, **options)
            self._call, self._close = self._session.embed, self._session.close
            facts = self._session.describe()
            facts.pop("cache", None)  # a path of this machine's
        items = _read(first)
        found = self._call(items)
        if not hasattr(found, "__len__") or len(found) != len(items):
            from edgessl.errors import RecipeError

            raise RecipeError(
                f"{subject} returned {type(found).__name__} for a list of {len(items)} item: it "
                "must return a vector for each."
            )
        return facts

    def tokens(self, texts: list[str]) -> list[int]:
        """How many tokens the graph sees of each text, special ones included."""
        return [len(ids) for ids in self._session.preprocessor.encode(texts)]

    def take(self, cell: list[str], path: str, size: int, start: int, ragged: bool) -> None:
        """Queries of *size* items each from the file at *path*, over and over.

        Args:
            start: which is the first. ragged: the items are of different lengths.
        """
        from itertools import cycle

        items = _read(path)
        queries = [items[at : at + size] for at in range(0, len(items) - size + 1, size)]
        start %= len(queries)
        self._queries[tuple(cell)] = cycle(queries[start:] + queries[:start]).__next__
        self._once[tuple(cell)] = len(queries) if ragged and len(queries) > 1 else 0

    def warm_up(self, cell: list[str]) -> dict[str, Any]:
        from edgessl.gate.measuring import scenarios

        key = tuple(cell)
        found = scenarios.warm_up(self._callable(), self._queries[key], self._once[key])
        self._usual_ns[key] = found["usual_ns"]
        gc.collect()
        gc.freeze()  # what is here stays: collections between blocks are quick
        return found

    def block(self, cell: list[str], span_ns: int) -> dict[str, Any]:
        """One query after another; ``lead``: items of the untimed queries before."""
        from edgessl.gate.measuring import scenarios

        call, take = self._callable(), self._queries[tuple(cell)]
        lead = 0
        gc.disable()
        try:
            if self._usual_ns[tuple(cell)] < scenarios.LEAD_NS:
                lead = scenarios.one_after_another(call, take, scenarios.LEAD_NS).items
            return {**vars(scenarios.one_after_another(call, take, span_ns)), "lead": lead}
        finally:
            gc.enable()

    def serve(
        self, cell: list[str], qps: float, seconds: float, streams: int, seed: list[int]
    ) -> Any:
        import numpy as np

        from edgessl.gate.measuring import scenarios

        due = scenarios.arrivals(qps, seconds, np.random.default_rng(seed))
        gc.disable()
        try:
            found = scenarios.served(self._callable(), self._queries[tuple(cell)], due, streams)
        finally:
            gc.enable()
        return {**vars(found), "lead": 0}

    def peak(self, runtime: str, precision: str) -> float | None:
        """Operations a second of this machine's largest matrix products."""
        from edgessl.gate.measuring import peak

        return peak.measure(runtime, precision)

    def finish(self) -> dict[str, Any]:
        """Peak memory and the libraries that were loaded; closes the subject."""
        found = {
            "memory_mb": peak_memory_mb(),
            "libraries": [name for name in LIBRARIES if name in sys.modules],
        }
        self._close()
        return found

    def _callable(self) -> Callable[[Any], Any]:
        if self._call is None:
            raise RuntimeError("nothing is open")
        return self._call


def _made(path: str, factory: str) -> Callable[[Any], Any]:
    """What FACTORY of the Python file at *path* returns."""
    import importlib.util

    from edgessl.errors import RecipeError

    spec = importlib.util.spec_from_file_location("edgessl_subject", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise RecipeError(f"{path}: no such Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["edgessl_subject"] = module
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    make = getattr(module, factory, None)
    if not callable(make):
        raise RecipeError(f"{path} has no function {factory!r}, which the subject names.")
    made = make()
    if not callable(made):
        raise RecipeError(
            f"{path}:{factory} returned {type(made).__name__}: it must return a function that "
            "takes a list of items."
        )
    found: Callable[[Any], Any] = made
    return found


def _read(path: str) -> Any:
    """What ``workload.write`` wrote: this project's own temporary file."""
    import pickle

    with open(path, "rb") as stream:
        return pickle.load(stream)


def peak_memory_mb(status: str | None = None) -> float | None:
    """Peak resident memory of this process in MB of 10**6 bytes; *status*: of /proc/self/status."""
    from edgessl.machine import read_text

    if status is None:
        status = read_text(Path("/proc/self/status"))
    for line in status.splitlines():
        # not getrusage, which on Linux begins with what the process that started this one had
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def main() -> None:
    if hasattr(os, "setpgid"):
        # Ctrl-C is for the one that measures. In its session still: if it dies while this process
        # is stopped, the kernel continues this one (POSIX, orphaned process groups).
        os.setpgid(0, 0)
    # Libraries print, and some read: the two pipes are for this file alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arrived: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        for line in questions:
            arrived.put(json.loads(line))
        os._exit(0)  # the one that asks is gone

    threading.Thread(target=listen, daemon=True).start()
    worker = Worker()
    while True:
        answers.write(json.dumps(_answer(worker, arrived.get())) + "\n")


def _answer(worker: Worker, asked: dict[str, Any]) -> dict[str, Any]:
    name = asked.pop("do")
    try:
        if name == "stay":  # before any library counts the cores
            os.sched_setaffinity(0, asked["cpus"])
            return {"ok": None}
        return {"ok": getattr(worker, name)(**asked)}
    except Exception as err:
        from edgessl.errors import EdgesslError, first_line

        own = isinstance(err, EdgesslError)
        return {
            "error": type(err).__name__ if own else "",
            "message": str(err) if own else first_line(err),
        }


if __name__ == "__main__":
    main()

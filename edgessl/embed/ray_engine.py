"""``--engine ray``: the blocks of a job embedded by the workers of a Ray cluster, through Ray Data.

A worker is one actor that has the bundle open. It reads the blocks that it is given from the inputs
itself, and sends back their vectors; the process of the command writes the parts, as for a job in
one process. So the job directory, what goes on after a stop, and the vectors are the same, and one
engine goes on with what the other began. Bundle and inputs must be at the same path everywhere; the
output only where the command runs. A worker that dies is started anew, with the blocks it had.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from edgessl.embed import inputs, job
from edgessl.embed.plan import Plan
from edgessl.errors import EdgesslError, RecipeError, Unsupported, first_line, require
from edgessl.target import get

if TYPE_CHECKING:
    from edgessl.embed.job import Embedded
    from edgessl.runtimes.session import Session

_STARTS = 20  # of workers, without one block done in between: what kills each of them ends the job
_SPAN = 8  # blocks that a task has at most: a worker tokenizes the next while it embeds one
_TASKS = 4  # for each worker at least, so that they end together


@dataclass(frozen=True)
class Cluster:
    """``address``: of a Ray cluster; None: the one in ``RAY_ADDRESS`` or that runs on this machine,
    else one for this job alone.

    ``workers``: actors; None: one for each node of the cluster.
    """

    address: str | None = None
    workers: int | None = None


@contextlib.contextmanager
def results(asked: Plan, done: Collection[int], cluster: Cluster) -> Iterator[Iterator[Embedded]]:
    """Embed the blocks that are not *done* on *cluster*: what ``job.embedded`` gives, in order.

    Raises:
        MissingDependency: Ray is not installed.
        RecipeError: no such cluster, or fewer than one worker.
        Unsupported: inputs that workers cannot read: standard input.
        EdgesslError: what a worker raised; workers that keep dying.
    """
    ray = require("ray.data", "ray", "embedding on a Ray cluster") and require("ray", "ray", "")
    if asked.source.is_stdin:
        raise Unsupported("standard input is read by one process: give a file, or --engine local.")
    if cluster.workers is not None and cluster.workers < 1:
        raise RecipeError(f"--workers must be at least 1, not {cluster.workers}.")
    with _connected(ray, cluster.address):
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        workers = cluster.workers or len(nodes)
        gpu = get(asked.manifest.target).needs_gpu or asked.options.get("device") == "gpu"
        share = cpus_each(nodes, workers)
        shared = replace(asked.anywhere(), options=_options(asked, share, nodes, gpu))
        yield _embedded(ray, shared, _spans(asked, done, workers), workers, share, gpu)


def cpus_each(nodes: Sequence[float], workers: int) -> float:
    """The most CPUs that each of so many workers can have, on nodes with so many."""
    whole = [float(cpus) for cpus in range(int(max(nodes)), 0, -1)]
    parts = [1 / count for count in range(2, workers + 1)]
    fitting = (
        share
        for share in [*whole, *parts]
        if sum(int(cpus / share + 1e-9) for cpus in nodes) >= workers
    )
    return next(fitting, 1 / (workers + 1))


def _options(asked: Plan, share: float, nodes: Sequence[float], gpu: bool) -> dict[str, Any]:
    """The session's options where several workers have the cores of one machine."""
    given = any(name in asked.options for name in ("threads", "streams"))
    if gpu or given or share >= min(nodes):
        return asked.options
    return {**asked.options, "threads": 1, "streams": max(1, int(share))}


def _spans(asked: Plan, done: Collection[int], workers: int) -> list[dict[str, int]]:
    """The blocks to be embedded, as tasks: ``first`` block and ``count`` of them."""
    rows = sum(opened.count() for opened in inputs.open_source(asked.source))
    waiting = [n for n in range(-(-rows // asked.block_rows)) if n not in done]
    most = max(1, min(_SPAN, len(waiting) // (workers * _TASKS)))
    spans: list[dict[str, int]] = []
    for number in waiting:
        last = spans[-1] if spans else None
        if last and last["count"] < most and last["first"] + last["count"] == number:
            last["count"] += 1
        else:
            spans.append({"first": number, "count": 1})
    return spans


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Join the cluster, unless this process has, and be as quiet as a command should be."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    if address is not None:
        _check_reachable(address)
    try:
        with _quiet_core():
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as err:  # ConnectionError, ValueError, RuntimeError, by what is wrong
        where = f"Ray at {address} does not take us" if address else "Ray does not start here"
        raise RecipeError(f"{where} ({first_line(err)}). See: ray status") from err
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise RecipeError(f"--ray-address {address!r}: give HOST:PORT, as ray start printed it.")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as err:
        raise RecipeError(
            f"no Ray cluster at {address} ({first_line(err)}). Start one there: ray start --head"
        ) from err


@contextlib.contextmanager
def _quiet_core() -> Iterator[None]:
    """Ray's C++ side writes to stderr by itself; it looks here when it starts."""
    name = "RAY_BACKEND_LOG_LEVEL"
    before = os.environ.setdefault(name, "fatal")
    try:
        yield
    finally:
        if before == "fatal":
            os.environ.pop(name, None)


def _embedded(
    ray: Any, asked: Plan, spans: list[dict[str, int]], workers: int, share: float, gpu: bool
) -> Iterator[Embedded]:
    starts = ray.remote(num_cpus=0)(Starts).remote()
    with _settings(ray.data.DataContext.get_current()):
        tasks = ray.data.from_items(spans, override_num_blocks=len(spans)).map_batches(
            Worker,
            fn_constructor_args=(asked, starts, workers + _STARTS),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=share,
            num_gpus=1 if gpu else None,
        )
        try:
            # none ahead: what is done shall be on the disk
            for found in tasks.iter_batches(batch_size=None, prefetch_batches=0):
                yield from map(pickle.loads, found["block"])
        except ray.exceptions.RayError as err:
            raise _plain(err) from err


@contextlib.contextmanager
def _settings(context: Any) -> Iterator[None]:
    """Results in order (int8's scales are those of the first block), and no chatter."""
    options = context.execution_options
    before = context.enable_progress_bars, options.preserve_order
    context.enable_progress_bars, options.preserve_order = False, True
    try:
        yield
    finally:
        context.enable_progress_bars, options.preserve_order = before


class Starts:
    """An actor that counts how often workers were started since a block was last done."""

    def __init__(self) -> None:
        self.count = 0

    def started(self) -> int:
        self.count += 1
        return self.count

    def done(self) -> None:
        self.count = 0


class Worker:
    """What Ray Data calls on a cluster: one session for all tasks.

    Ray starts a worker that died again, without end; *most* starts in vain are an ``EdgesslError``.
    What is wrong at the start is said at the first task: Ray passes no more than the text of it on.
    """

    def __init__(self, asked: Plan, starts: Any, most: int) -> None:
        import ray

        self.asked, self.starts = asked, starts
        try:
            if ray.get(starts.started.remote()) > most:
                raise EdgesslError(
                    f"workers die: {most} were started, and no block was done. Often they lack "
                    "memory: try fewer (--workers). The same command goes on."
                )
            self.session: Session | EdgesslError = job.open_session(asked)
        except EdgesslError as err:
            self.session = err

    def __call__(self, tasks: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if isinstance(self.session, EdgesslError):
            raise self.session
        source, size = self.asked.source, self.asked.block_rows
        for first, count in zip(tasks["first"].tolist(), tasks["count"].tolist(), strict=True):
            blocks = islice(inputs.blocks(source, size, first), count)
            for embedded in job.embedded(self.session, blocks):
                self.starts.done.remote()
                yield {"block": np.array([pickle.dumps(embedded, protocol=5)], dtype=object)}


def _plain(err: BaseException) -> EdgesslError:
    """What a worker raised, else what Ray says.

    Ray raises a class of its own that derives from the worker's, with a page of text.
    """
    chain: list[BaseException] = [err]
    while (inner := getattr(chain[-1], "cause", None) or chain[-1].__cause__) is not None:
        chain.append(inner)
    for found in reversed(chain):
        if isinstance(found, EdgesslError):
            return type(found)(str(found).partition("\n")[0])  # Ray adds lines of its own
    return EdgesslError(f"Ray cannot go on: {first_line(err)}. The same command goes on.")

"""``--engine ray`` on a Ray of this machine: the same files as the job in one process, whatever
happens to its workers. (Ray warns at import, so it runs in processes of their own.)"""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgessl
from edgessl.embed import job, plan
from edgessl.errors import BundleError, EdgesslError, RecipeError, Unsupported
from tests.builders import random_texts, save_text_model

without_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)
ROWS = 12_000
_JOB = """
import sys
from pathlib import Path
from edgessl.embed import job
from edgessl.embed.ray_engine import Cluster
folder = Path(sys.argv[1])
job.run(folder / "bundle", [folder / "rows.parquet"], sys.argv[2], id_column="id", keep=["n"],
        dtype=sys.argv[3], block_rows=100, cluster=Cluster(workers=2))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and a table of which some rows have no text."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    folder = tmp_path_factory.mktemp("ray")
    edgessl.build(save_text_model(folder / "bert"), "onnx", folder / "bundle")
    texts: list[Any] = (random_texts(400, seed=9) * (ROWS // 400 + 1))[:ROWS]
    for row in (0, 151, 7000):
        texts[row] = None
    ids = [f"row {number}" for number in range(ROWS)]
    table = pyarrow.table({"text": texts, "id": ids, "n": list(range(ROWS))})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=1000)
    return folder


def local(folder: Path, dtype: str) -> Path:
    path = folder / f"local-{dtype}.parquet"
    if not path.exists():
        rows = folder / "rows.parquet"
        options: dict[str, Any] = {"id_column": "id", "keep": ["n"], "dtype": dtype}
        job.run(folder / "bundle", [rows], path, block_rows=100, **options)
    return path


def same(one: Path, other: Path) -> bool:
    rejected = [path.with_name(path.name + ".rejected.jsonl") for path in (one, other)]
    assert len(rejected[0].read_text().splitlines()) == 3
    return one.read_bytes() == other.read_bytes() and (
        rejected[0].read_bytes() == rejected[1].read_bytes()
    )


def start(folder: Path, output: Path, dtype: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", _JOB, str(folder), str(output), dtype]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@without_ray
def test_a_killed_worker_is_replaced_and_nothing_shows(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.parquet"
    with start(folder, output, "int8") as process:
        try:
            while not list((tmp_path / ".vectors.parquet.job").glob("part-*.npz")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            psutil: Any = importlib.import_module("psutil")
            children = psutil.Process(process.pid).children(recursive=True)
            workers = [child for child in children if "MapWorker" in " ".join(child.cmdline())]
            assert len(workers) == 2
            workers[0].send_signal(signal.SIGKILL)
            done = len(list((tmp_path / ".vectors.parquet.job").glob("part-*.npz")))
            assert done < ROWS // 100  # there was something left to do
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert same(local(folder, "int8"), output)


@pytest.mark.slow
@without_ray
def test_the_command_goes_on_with_a_local_job(folder: Path, tmp_path: Path) -> None:
    """What one engine began the other ends, and the file is that of an undisturbed job."""
    output = tmp_path / "vectors.parquet"
    command = [sys.executable, "-m", "edgessl", "embed", str(folder / "bundle")]
    command += [str(folder / "rows.parquet"), "-o", str(output), "--id-column", "id"]
    command += ["--keep", "n", "--json"]
    whole = tmp_path / "whole.parquet"
    local_command = [*command[:7], str(whole), *command[8:]]
    subprocess.run(local_command, check=True, capture_output=True)

    stopped = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".vectors.parquet.job/part-*.npz")) and stopped.poll() is None:
        time.sleep(0.01)
    stopped.kill()
    stopped.wait()
    assert not output.exists()
    ray = [*command, "--engine", "ray", "--workers", "2"]
    result = subprocess.run(ray, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["resumed"] > 0 and found["rejected"] == 3 and found["embedded"] == ROWS - 3
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr
    assert same(whole, output)


def test_no_cluster_where_none_is_asked_for() -> None:
    from edgessl.cli import run

    assert run(["embed", "b", "t.txt", "-o", "v.npy", "--workers", "2"]) == 2
    assert run(["embed", "b", "t.txt", "-o", "v.npy", "--ray-address", "x:1"]) == 2


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [
        ([2.0], 1, 2),
        ([2.0], 2, 1),
        ([2.0], 3, 1 / 2),
        ([2.0], 5, 1 / 3),
        ([8.0, 8.0], 2, 8),
        ([3.0, 3.0], 3, 1),  # two of them would not fit three
        ([16.0, 4.0], 2, 8),
        ([16.0, 4.0], 5, 4),
        ([0.0, 4.0], 2, 2),  # a head node that only directs
    ],
)
def test_cpus_each(nodes: list[float], workers: int, share: float) -> None:
    from edgessl.embed.ray_engine import cpus_each

    found = cpus_each(nodes, workers)
    assert found == pytest.approx(share)
    assert sum(int(cpus / found + 1e-9) for cpus in nodes) >= workers


def asked_of(folder: Path, lines: int, block_rows: int = 10) -> plan.Plan:
    path = folder / "t.txt"
    path.write_text("a\n" * lines)
    states: list[dict[str, Any]] = []
    return plan.make(folder / "bundle", [path], folder / "v.npy", states, block_rows=block_rows)


@pytest.mark.parametrize("done", [set(), {0}, {3, 4, 9}, set(range(13)) - {6}])
def test_spans_hold_every_block_that_is_not_done_once(folder: Path, done: set[int]) -> None:
    from edgessl.embed import ray_engine

    asked = asked_of(folder, lines=128)
    spans = ray_engine._spans(asked, done, workers=1)
    blocks = [s["first"] + k for s in spans for k in range(s["count"])]
    assert blocks == sorted(set(range(13)) - done)
    assert max(span["count"] for span in spans) <= max(1, len(blocks) // 4)


def test_a_worker_embeds_as_the_job_in_one_process(folder: Path) -> None:
    """Without Ray: what a worker sends back for two tasks, unpacked."""
    import pickle

    from edgessl.embed import ray_engine

    asked = asked_of(folder, lines=45)
    worker = object.__new__(ray_engine.Worker)
    session = job.open_session(asked)
    worker.asked, worker.session = asked, session

    class Counted:
        calls = 0

        class done:
            @staticmethod
            def remote() -> None:
                Counted.calls += 1

    worker.starts = Counted
    tasks = {"first": np.array([0, 3]), "count": np.array([3, 2])}
    found = [pickle.loads(row["block"][0]) for row in worker(tasks)]
    wanted = list(job.embedded(session, job.pending(asked, set())))
    session.close()
    assert Counted.calls == len(found) == 5
    for (block, vectors, refused), (same_block, same_vectors, _) in zip(found, wanted, strict=True):
        assert block == same_block and refused == {} and block.items == []
        np.testing.assert_array_equal(vectors, same_vectors)


def test_what_a_worker_raised_is_what_the_user_reads() -> None:
    from edgessl.embed import ray_engine

    class FromRay(RecipeError):  # Ray's own class derives from the error that it passes on
        def __init__(self, cause: BaseException) -> None:
            super().__init__("ray::MapWorker()\n30 lines")
            self.cause = cause

    found = ray_engine._plain(FromRay(FromRay(BundleError("model.onnx: damaged."))))
    assert type(found) is BundleError and str(found) == "model.onnx: damaged."
    found = ray_engine._plain(RuntimeError("lost a node"))
    assert type(found) is EdgesslError and "The same command goes on" in str(found)


@without_ray
def test_standard_input_is_for_one_process(folder: Path) -> None:
    code = """
import sys
from edgessl.cli import run
sys.exit(run(["embed", sys.argv[1], "-", "-o", sys.argv[2], "--engine", "ray"]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder / "bundle")]
    result = subprocess.run(
        [*command, str(folder / "v.npy")], input="a\nb\n", capture_output=True, text=True
    )
    assert result.returncode == Unsupported.exit_code, result.stderr
    assert "standard input is read by one process" in result.stderr

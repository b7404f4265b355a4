"""Killed at any moment, a job goes on to the same bytes: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.embed import dtypes, parts, vectors
from edgessl.embed.parts import Part
from tests.commands import environment
from tests.fake_session import REFUSED, save_bundle, vector

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"text number {number}" for number in range(400)]
# What a job does, with a session that takes argv[1] seconds a block.
JOB = """
import sys
from edgessl import cli
from edgessl.embed import job, plan
from tests.fake_session import FakeSession
job.open_session = lambda asked: FakeSession(float(sys.argv[1]))
plan.BLOCK_ROWS["text"] = 20
sys.exit(cli.run(sys.argv[2:]))
"""
# The same, in forks that end without warning at the n-th change to the disk, until one does not.
CRASHING = """
import os, random, sys
from edgessl.embed import job, plan
from tests.fake_session import FakeSession
job.open_session = lambda asked: FakeSession()
plan.BLOCK_ROWS["text"] = 20
rng = random.Random(int(sys.argv[1]))
output, append = sys.argv[2], len(sys.argv) > 3
left = 0
def counted(name):
    call = getattr(os, name)
    def counting(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        found = call(*arguments, **options)
        left -= 1
        if left == 0:
            os._exit(9)
        return found
    setattr(os, name, counting)
for name in ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir"):
    counted(name)
kills = 0
while True:
    left = rng.randint(1, 60)
    child = os.fork()
    if child == 0:
        job.run("bundle", ["more.txt" if append else "texts.txt"], output, append=append)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        break
    if code != 9:  # the output is there: it was killed with all done
        assert os.path.exists(output), code
        break
    kills += 1
print(kills)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle")
    texts = [*TEXTS[:150], REFUSED, *TEXTS[150:]]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "more.txt").write_text("one\ntwo\nthree\n")
    return tmp_path


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment({"PYTHONPATH": str(ROOT)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(script: str, *arguments: str) -> tuple[int, str, str]:
    process = started(script, *arguments)
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def files(folder: Path, stem: str) -> dict[str, bytes]:
    return {
        path.name.removeprefix(stem): path.read_bytes()
        for path in folder.iterdir()
        if path.name.startswith(stem) and path.is_file()
    }


@pytest.mark.parametrize(
    ("output", "dtype"), [("v.npy", "float32"), ("v.parquet", "int8"), ("v.jsonl", "float16")]
)
def test_kill_9_at_random_moments(output: str, dtype: str, place: Path) -> None:
    command = ("embed", "bundle", "texts.txt", "--dtype", dtype, "-q")
    assert finished(JOB, "0", *command, "-o", f"whole-{output}")[0] == 0
    rng, kills, safe = random.Random(5), 0, 0
    while True:
        process = started(JOB, "0.03", *command, "-o", output)
        folder = place / f".{output}.job"
        before = time.monotonic() + 20
        # until it has begun: else a slow machine would only ever kill the start
        while process.poll() is None and not folder.is_dir() and time.monotonic() < before:
            time.sleep(0.005)
        try:
            process.wait(rng.uniform(0.02, 0.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.communicate()[1] == ""
        if process.returncode == 0 or not folder.is_dir() and (place / output).exists():
            break
        now = sum(entry.rows for entry in parts.listed(folder)) if folder.is_dir() else 0
        assert now >= safe  # what was safe stays
        safe = now

    assert kills >= 2
    assert files(place, "v.") == files(place, "whole-v.")
    ids, read, _ = vectors.read(place / output)
    assert ids.tolist() == [n for n in range(401) if n != 150]
    if dtype == "float32":
        assert np.array_equal(read, np.stack([vector(text) for text in TEXTS]))
    # killed while tidying up, it leaves that to the next command, even one that is refused
    assert "exists; pass --overwrite" in finished(JOB, "0", *command, "-o", output)[2]
    assert not [name for name in os.listdir(place) if name.startswith(".")]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("output", ["v.npy", "v.npz"])
def test_killed_at_any_change_to_the_disk(seed: int, output: str, place: Path) -> None:
    assert finished(JOB, "0", "embed", "bundle", "texts.txt", "-o", f"w{output}", "-q")[0] == 0

    code, kills, err = finished(CRASHING, str(seed), output)

    assert (code, err) == (0, "") or "exists; pass --overwrite" in err, err
    assert int(kills) > 0
    assert files(place, "v.") == files(place, "wv.")
    code, kills, err = finished(CRASHING, str(seed), output, "append")
    assert (code, err) == (0, "")
    ids, _, metadata = vectors.read(place / output)
    assert ids.tolist() == [n for n in range(404) if n != 150]  # added once
    assert [mark["name"] for mark in metadata["inputs"]] == ["texts.txt", "more.txt"]
    hidden = [name for name in os.listdir(place) if name.startswith(".")]
    assert not [name for name in hidden if name.endswith(".job")]


@given(
    counts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=40)
def test_the_books_of_parts(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[tuple[int, int]],
    order: random.Random,
) -> None:
    """Parts in any order are listed by number, with their rows, and read as they were written."""
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    made = []
    for number, (good, bad) in enumerate(counts):
        found = rng.standard_normal((good, 3)).astype(np.float32)
        rejected = [{"row": row, "id": None, "reason": "é\ud800"} for row in range(bad)]
        ids: list[int | str] = [f"ü{row}" if row % 2 else row for row in range(good)]
        kept = [[row, None, "x"] for row in range(good)]
        sample = parts.sample(number, found)
        made.append(Part(number, good + bad, ids, kept, rejected, found, sample))
    shuffled = list(made)
    order.shuffle(shuffled)
    for part in shuffled:
        parts.write(folder, part)

    entries = parts.listed(folder)

    assert [entry.number for entry in entries] == list(range(len(made)))
    for entry, part in zip(entries, made, strict=True):
        assert (entry.rows, entry.rejected) == (part.rows, len(part.rejected))
        read = parts.read(entry)
        assert np.array_equal(read.vectors, part.vectors)
        assert (read.ids, read.kept) == (part.ids, part.kept)
        assert [bad["row"] for bad in read.rejected] == [bad["row"] for bad in part.rejected]
    sampled = parts.sampled(entries, 3)
    everything = np.concatenate([part.vectors for part in made])
    assert len(sampled) == len(everything)  # a small job is measured whole
    assert {*map(tuple, sampled.tolist())} == {*map(tuple, everything.tolist())}


def test_the_sample_of_a_large_job(tmp_path: Path) -> None:
    """As many of each part, however many parts there are in the end."""
    for number in range(30):
        found = np.full((1000, 2), number, np.float32) + np.linspace(0, 0.9, 1000)[:, None]
        part = Part(number, 1000, [], [], [], found, parts.sample(number, found.astype(np.float32)))
        parts.write(tmp_path, part)

    sampled = parts.sampled(parts.listed(tmp_path), 2)

    assert 9_900 <= len(sampled) <= dtypes.SAMPLE
    counts = np.bincount(sampled[:, 0].astype(int), minlength=30)
    assert counts.min() == counts.max() == 333
    inside = sampled[sampled[:, 0].astype(int) == 7][:, 0] - 7
    assert abs(float(inside.mean()) - 0.45) < 0.05  # not the first rows of a part


def test_a_job_that_was_finished_but_for_its_place(place: Path) -> None:
    """Killed when publish.json was written: any next command puts the files in their places."""
    script = JOB.replace("sys.exit(", "import os; parts.publish = lambda folder: os._exit(9)\n"
                         "sys.exit(").replace("import job,", "import job, parts,")  # fmt: skip
    script = script.replace(
        "parts.publish = lambda folder: os._exit(9)",
        "real = parts.publish\n"
        "parts.publish = lambda f: os._exit(9) if (f / 'publish.json').exists() else real(f)",
    )
    command = ("embed", "bundle", "texts.txt", "-o", "v.npz", "--json", "-q")
    code, out, err = finished(script, "0", *command)
    assert (code, out, err) == (9, "", "") and not (place / "v.npz").exists()

    code, out, err = finished(JOB, "0", *command)

    assert (code, err) == (0, "") and json.loads(out)["rows"] == 400
    assert vectors.read(place / "v.npz")[2]["rows"] == 400
    assert not [name for name in os.listdir(place) if name.startswith(".")]

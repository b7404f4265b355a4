"""``edgessl embed`` as a user meets it: what is said, exit codes, signals, a full disk, memory."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgessl
from edgessl import cli, console
from edgessl.embed import vectors
from tests import disks
from tests.builders import random_texts, save_text_model
from tests.commands import environment, screen
from tests.embed.test_kill import JOB, ROOT, finished, started
from tests.fake_session import save_bundle

TEXTS = [f"text number {number}" for number in range(400)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenVINO bundle of a tiny BERT."""
    folder = tmp_path_factory.mktemp("real")
    save_text_model(folder / "bert")
    edgessl.build(folder / "bert", "onnx", folder / "onnx", normalize=True)
    edgessl.build(folder / "onnx", "openvino", folder / "bundle")
    return folder / "bundle"


def test_a_real_bundle(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = random_texts(300, seed=3)
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps({'text': t})}\n" for t in texts))
    output = tmp_path / "v.parquet"

    code = cli.run(["embed", str(real), str(tmp_path / "t.jsonl"), "-o", str(output), "--json"])

    out, err = capsys.readouterr()
    found = json.loads(out)
    assert code == 0 and found["rows"] == 300 and found["dimensions"] == 32
    assert err.splitlines() == [f"opening {real} ...", "embedding ...", "joining the parts ..."]
    with edgessl.load(real) as session:
        wanted = session.embed(texts)
        assert found["variant"] == session.variant
    ids, read, metadata = vectors.read(output)
    assert np.abs(read - wanted).max() < 1e-5 and ids.tolist() == list(range(300))
    assert metadata["target"] == "openvino" and metadata["normalize"] is True
    prompted = ["embed", str(real), str(tmp_path / "t.jsonl"), "-o", str(tmp_path / "p.npz"), "-q"]
    assert cli.run([*prompted, "--prompt", "aa ", "--max-length", "9", "--threads", "1"]) == 0
    with edgessl.load(real, prompt="aa ", max_length=9) as session:
        assert np.abs(vectors.read(tmp_path / "p.npz")[1] - session.embed(texts)).max() < 1e-5
    capsys.readouterr()
    assert cli.run([*prompted[:-3], "-o", str(tmp_path / "q.npz"), "--long", "chnk"]) == 2
    assert "'chunk'" in capsys.readouterr().err
    assert not (tmp_path / ".q.npz.job").exists()


def test_what_a_person_reads(place: Path) -> None:
    command = ("embed", "bundle", "texts.txt", "-o", "v.npz", "--dtype", "int8", "-q")
    code, out, err = finished(JOB, "0", *command)

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "vectors  v.npz  (400 x 12 int8)"
    assert lines[1].startswith("time     ") and lines[1].endswith(" rows/s")
    assert lines[2] == "variant  0123456789abcdef"
    assert lines[3].startswith("recall   0.") and "400 queries among 400" in lines[3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_going_on(number: signal.Signals, place: Path) -> None:
    command = ("embed", "bundle", "texts.txt", "-o", "v.npy")
    process = started(JOB, "0.2", *command)
    assert process.stderr is not None
    while not list(place.glob(".v.npy.job/part-00000002*.npz")):
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=30)

    word, code = {
        signal.SIGINT: ("interrupted", console.INTERRUPTED),
        signal.SIGTERM: ("terminated", console.TERMINATED),
    }[number]
    last = err.splitlines()[-1]
    safe = int(last.removeprefix(f"{word}: ").split()[0])
    assert process.returncode == code
    assert last == f"{word}: {safe} rows are safe in .v.npy.job, and the same command goes on"
    assert safe >= 60 and "Traceback" not in err
    code, out, err = finished(JOB, "0", *command)
    assert code == 0 and err.startswith(f"going on after {safe} rows that are done ...\n")
    assert f"after {safe} rows of an earlier run" in out
    assert vectors.read(place / "v.npy")[2]["rows"] == 400


def test_stopped_before_anything_is_safe(place: Path) -> None:
    process = started(JOB, "9", "embed", "bundle", "texts.txt", "-o", "v.npy")
    assert process.stderr is not None
    while "embedding" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (console.INTERRUPTED, "interrupted: nothing was written\n")
    assert sorted(os.listdir(place)) == ["bundle", "texts.txt"]


def test_standard_input(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", JOB, "0", "embed", "bundle", "-", "-o", "v.npz", "-q", "--json"],
        input=b"one\r\ntwo\n" + b"x\n" * 100 + b"caf\xe9",
        env=environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert (found["rows"], found["rejected"]) == (102, 1)
    assert not (place / ".v.npz.job").exists()


def test_progress_on_a_terminal(place: Path) -> None:
    master, slave = pty.openpty()
    drawn: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:
                return
            drawn.append(piece)

    process = subprocess.Popen(
        [sys.executable, "-c", JOB, "0.1", "embed", "bundle", "texts.txt", "-o", "v.npy"],
        env=environment({"TERM": "xterm", "PYTHONPATH": str(ROOT)}),
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait(30)
    watcher.join()
    os.close(master)

    text = b"".join(drawn).decode()
    assert code == 0
    assert " of 400 rows, " in text and "/s, " in text and " s left" in text
    assert [line.partition(":")[0] for line in screen(text)] == [
        "opening bundle", "embedding", "joining the parts", ""
    ]  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path, 3) as disk:
        yield disk


@pytest.mark.parametrize("output", ["v.npy", "v.parquet", "v.jsonl"])
@pytest.mark.parametrize("rows", [20_000, 100_000])  # full when joining, and before
def test_a_full_disk(rows: int, output: str, place: Path, small_disk: Path) -> None:
    (place / "long.txt").write_text("\n".join(str(number) for number in range(rows)))
    script = JOB.replace('"] = 20', '"] = 2000')
    taken = small_disk / "taken"
    if rows == 20_000:
        taken.write_bytes(b"x" * 1_150_000)
    command = ("embed", "bundle", "long.txt", "-o", str(small_disk / output), "-q")

    code, out, err = finished(script, "0", *command)

    assert (code, out) == (2, ""), err
    assert err.startswith(f"error: no space left on {small_disk} ") and err.count("\n") == 1
    assert f" rows are safe in .{output}.job, and the same command goes on" in err
    assert not (small_disk / output).exists()
    if rows == 20_000:  # room again
        taken.unlink()
        subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
        assert finished(script, "0", *command)[0] == 0
        assert vectors.read(small_disk / output)[2]["rows"] == rows


def test_memory_does_not_grow_with_the_input(place: Path) -> None:
    script = JOB.replace('"] = 20', '"] = 500').replace(
        "import sys", "import sys, resource, numpy\nimport pyarrow.parquet", 1
    )
    # vectors of 2,048 dimensions: 40,000 of them are 330 MB
    script = script.replace(
        "job.open_session = lambda asked: FakeSession(float(sys.argv[1]))",
        "class Wide(FakeSession):\n"
        "    def embed_blocks(self, blocks, refused=None):\n"
        "        for block in blocks:\n"
        "            yield numpy.ones((len(block), 2048), numpy.float32)\n"
        "job.open_session = lambda asked: Wide()",
    ).replace(
        "sys.exit(cli.run(sys.argv[2:]))",
        "from edgessl.embed.plan import Plan\n"
        "Plan.dimensions = property(lambda self: 2048)\n"
        "assert cli.run(sys.argv[2:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
    )
    for rows in (1000, 40_000):
        (place / f"{rows}.txt").write_text("word\n" * rows)

    for output in ("v.npy", "v.npz", "v.parquet"):
        peaks = []
        for rows in (1000, 40_000):
            arguments = ("embed", "bundle", f"{rows}.txt", "-o", f"{rows}-{output}", "-q")
            code, out, err = finished(script, "0", *arguments)
            assert code == 0, err
            peaks.append(int(out.splitlines()[-1]))
            for path in place.glob(f"{rows}-*"):
                path.unlink()
        assert peaks[1] - peaks[0] < 150_000, (output, peaks)  # kB


def test_help_names_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["embed", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in (".parquet, .npz, .npy or .jsonl", "float16", "--restart", "--max-rejected"):
        assert word in text

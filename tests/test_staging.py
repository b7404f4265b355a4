"""A bundle is there whole or not at all: killed writers, full disks, several writers at once."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgessl import staging
from edgessl.errors import EdgesslError, OutputError
from edgessl.staging import check_output, orderly_sigterm, staged

# What the child processes share: fill a directory with four files of one generation.
WRITER = """
import json, os, signal, sys, time
from pathlib import Path
from edgessl import staging
from edgessl.errors import OutputError

def fill(directory, generation):
    names = ["a", "b", "sub/c"]
    (directory / "sub").mkdir()
    for name in names:
        (directory / name).write_text(str(generation) * 5000)
    manifest = {"generation": generation, "files": dict.fromkeys(names)}
    (directory / "manifest.json").write_text(json.dumps(manifest))

def no_exchange(one, other):
    raise OSError(38, "Function not implemented")

output = Path(sys.argv[1])
"""


def fill(directory: Path, generation: str = "old") -> None:
    names = ["a", "b", "sub/c"]
    (directory / "sub").mkdir(parents=True)
    for name in names:
        (directory / name).write_text(generation * 5000)
    manifest = {"generation": generation, "files": dict.fromkeys(names)}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def generation_of(output: Path) -> str:
    """The generation of a directory that ``fill`` filled; fails unless it is whole."""
    manifest = json.loads((output / "manifest.json").read_text())
    generation = str(manifest["generation"])
    for name in manifest["files"]:
        assert (output / name).read_text() == generation * 5000
    return generation


def hidden(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.name.startswith("."))


def start(code: str, output: Path, *more: str) -> subprocess.Popen[str]:
    """Run *code* after ``WRITER`` and wait for its line "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER + code, str(output), *more],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], signum: int) -> int:
    process.send_signal(signum)
    with process:
        return process.wait(timeout=30)


HOLD = """
with staging.staged(output, True) as directory:
    (directory / "a").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_new_directory_is_put_in_place(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "bundle"
    check_output(output, False)
    assert list(tmp_path.iterdir()) == []  # the check undoes what it tried
    with staged(output, False) as directory:
        assert directory.parent == output.parent and directory.name.startswith(".bundle.tmp-")
        fill(directory, "new")
        assert not output.exists()
    assert generation_of(output) == "new"
    assert hidden(output.parent) == []


def test_all_is_on_the_disk_before_it_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int | str] = []
    fsync, rename = os.fsync, os.rename

    def flush(descriptor: int) -> None:
        steps.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def move(source: Path, destination: Path) -> None:
        steps.append("rename")
        rename(source, destination)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", move)
    with staged(tmp_path / "bundle", False) as directory:
        fill(directory)
    inodes = {p.stat().st_ino for p in [tmp_path / "bundle", *(tmp_path / "bundle").rglob("*")]}
    assert set(steps[:-2]) == inodes and len(inodes) == 6
    assert steps[-2:] == ["rename", tmp_path.stat().st_ino]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_are_what_mkdir_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with staged(tmp_path / "bundle", False) as directory:
            fill(directory)
        (tmp_path / "plain").mkdir()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("bundle", "plain")]
    assert modes[0] == modes[1] == 0o777 & ~mask


@pytest.mark.parametrize("exchange", [True, False])
def test_overwrite_replaces_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", no_exchange)
    output = tmp_path / "bundle"
    fill(output)
    (output / "sub").chmod(0o755)
    with staged(output, True) as directory:
        fill(directory, "new")
        assert generation_of(output) == "old"
    assert generation_of(output) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def no_exchange(one: Path, other: Path) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_the_exchange_is_one_step_and_not_the_fallback(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("renameat2 is Linux's")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    staging._exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "file").read_text() == "other"
    assert (tmp_path / "other" / "file").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        staging._exchange(tmp_path / "one", tmp_path / "missing")


def test_through_a_link_the_directory_behind_it_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    with staged(tmp_path / "current", True) as directory:
        fill(directory, "new")
    assert (tmp_path / "current").is_symlink()
    assert generation_of(tmp_path / "v1") == "new"


def test_what_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text('{"name": "a browser extension"}')
    fill(tmp_path / "bundle")
    fill(tmp_path / "annotated")
    (tmp_path / "annotated" / "notes").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path / "empty")
    before = sorted(tmp_path.rglob("*"))
    refused = [
        ("file", True, "not a directory"),
        ("file/bundle", True, "is a file"),
        ("file/deeper/bundle", False, "is a file"),
        ("mine", False, "is not a bundle"),
        ("mine", True, "is not a bundle"),
        ("foreign", True, "did not write .manifest.json"),
        ("bundle", False, "exists; pass --overwrite to replace it"),
        ("annotated", True, "did not write .notes"),
        ("empty", False, "current directory"),
        ("loop", False, "loop"),
        ("x" * 300, False, "name too long"),
        ("x" * 300 + "/bundle", False, "name too long"),
        ("nul\0", False, "not a usable path"),
    ]
    for name, overwrite, message in refused:
        for attempt in (check_output, enter):
            with pytest.raises(OutputError, match=f"(?i){message}") as caught:
                attempt(tmp_path / name, overwrite)
            assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    check_output(tmp_path / "bundle", True)
    monkeypatch.chdir(tmp_path)
    check_output(tmp_path / "empty", False)
    with staged(Path("empty"), False) as directory:
        fill(directory)
    assert generation_of(tmp_path / "empty") == "old"


def enter(output: Path, overwrite: bool) -> None:
    with staged(output, overwrite):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("output", ["/proc/bundle", "/sys/bundle", "/proc/deep/er/bundle"])
def test_a_parent_that_takes_no_directory(output: str) -> None:
    if not Path(output).parents[-2].is_dir():
        pytest.skip("no such file system here")
    with pytest.raises(OutputError, match="cannot write"):
        check_output(Path(output), False)


def test_a_parent_without_write_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            check_output(tmp_path / "bundle", False)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError("a socket")])
@pytest.mark.parametrize("name", ["bundle", "deep/er/bundle"])
def test_an_error_leaves_everything_as_it_was(
    tmp_path: Path, error: BaseException, name: str
) -> None:
    output = tmp_path / name
    if name == "bundle":
        fill(output)
    with pytest.raises(type(error)) as caught:
        with staged(output, True) as directory:
            fill(directory, "new")
            raise error
    assert caught.value is error
    if name == "bundle":
        assert generation_of(output) == "old"
        assert hidden(tmp_path) == []
    else:
        assert list(tmp_path.iterdir()) == []


def test_only_errors_about_the_output_are_translated(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(FileNotFoundError):
        with staged(output, False):
            (tmp_path / "model").read_text()
    with pytest.raises(OutputError, match="Is a directory") as caught:
        with staged(output, False) as directory:
            (directory / "sub").mkdir()
            (directory / "sub").write_text("x")
    assert str(output / "sub") in str(caught.value) and ".tmp-" not in str(caught.value)
    assert isinstance(caught.value.__cause__, IsADirectoryError)
    with pytest.raises(OutputError, match="Read-only file system"):
        with staged(output, False):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(OutputError, match="exists; pass --overwrite"):
        with staged(output, False) as slow:
            fill(slow, "slow")
            with staged(output, False) as fast:
                fill(fast, "fast")
    assert generation_of(output) == "fast"
    assert hidden(tmp_path) == []


def test_another_writers_directory_is_not_swept(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    other = start(HOLD, output)
    try:
        with staged(output, False) as directory:
            fill(directory, "mine")
            assert len(hidden(tmp_path)) == 2
        assert len(hidden(tmp_path)) == 1
        assert (tmp_path / hidden(tmp_path)[0] / "a").read_text() == "half"
    finally:
        end(other, signal.SIGKILL)
    left = hidden(tmp_path)
    assert len(left) == 1 and f"-{other.pid}-" in left[0]
    (tmp_path / ".bundle.tmp-mine").mkdir()  # not edgessl's: no such name
    with staged(output, True) as directory:
        assert hidden(tmp_path) == sorted([directory.name, ".bundle.tmp-mine"])
        fill(directory, "next")
    assert hidden(tmp_path) == [".bundle.tmp-mine"]


def test_a_leftover_whose_pid_lives_again_is_swept(tmp_path: Path) -> None:
    leftover = tmp_path / f".bundle.tmp-{os.getpid()}-0123abcd"
    fill(leftover)
    with staged(tmp_path / "bundle", False) as directory:
        fill(directory)
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_signals_end_a_writer_in_order(tmp_path: Path, signum: int, code: int) -> None:
    output = tmp_path / "bundle"
    fill(output)
    assert end(start(HOLD, output), signum) == code
    assert generation_of(output) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_sigterm_is_given_back() -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(SystemExit) as caught:
        with orderly_sigterm(), orderly_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _frame: seen.append(signum))
    try:
        with orderly_sigterm():  # the program's own handler stays
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == [signal.SIGTERM]


def test_a_thread_can_stage(tmp_path: Path) -> None:
    def work() -> None:
        with staged(tmp_path / "bundle", False) as directory:
            fill(directory, "thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert generation_of(tmp_path / "bundle") == "thread"


KILLED = """
if sys.argv[2] == "rename":
    staging._exchange = no_exchange
for number in range(10**6):
    with staging.staged(output, True) as directory:
        fill(directory, f"{os.getpid()}-{number}")
    if number == 0:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_killed_at_any_moment(tmp_path: Path, how: str) -> None:
    output = tmp_path / "bundle"
    fill(output)
    rng = random.Random(0)
    seen = set()
    for _ in range(12):
        writer = start(KILLED, output, how)
        time.sleep(rng.uniform(0.0, 0.06))
        end(writer, signal.SIGKILL)
        if how == "exchange":
            generation_of(output)  # whole at this very moment
        with pytest.raises(RuntimeError, match="stop"), staged(output, True):
            raise RuntimeError("stop")
        seen.add(generation_of(output))
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert len(seen) == 12  # every writer was at work when it was killed


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    code = """
staging._exchange = no_exchange
rename = os.rename
def deadly(source, target):
    if Path(target) == output and output.exists():
        return rename(source, target)
    rename(source, target)
    if Path(source) == output:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = deadly
print("ready", flush=True)
with staging.staged(output, True) as directory:
    fill(directory, "new")
"""
    output = tmp_path / "bundle"
    fill(output)
    with start(code, output) as writer:
        assert writer.wait(timeout=30) == -signal.SIGKILL
    assert not output.exists()
    with pytest.raises(OutputError, match="exists; pass --overwrite"):
        check_output(output, False)  # the old one is back
    assert generation_of(output) == "old"
    with staged(output, True) as directory:
        fill(directory, "newer")
    assert generation_of(output) == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


RACE = """
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "rename":
    staging._exchange = no_exchange
for number in range(int(sys.argv[3])):
    try:
        with staging.staged(output, sys.argv[4] == "overwrite") as directory:
            fill(directory, f"{os.getpid()}-{number}")
            time.sleep(0.001)
        print("won", flush=True)
    except OutputError as err:
        print(err, flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_many_writers_at_once_with_overwrite(tmp_path: Path, how: str) -> None:
    output = tmp_path / "bundle"
    writers = [start(RACE, output, how, "10", "overwrite") for _ in range(3)]
    results = talk(writers)
    if how == "exchange":
        assert results == ["won"] * 30
    else:  # without an exchange in one step a writer may find half a step of another and give up
        assert results.count("won") > 10 and len(results) == 30
    generation_of(output)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_many_writers_at_once_without_overwrite(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    results = talk([start(RACE, output, "exchange", "1", "no") for _ in range(4)])
    assert results.count("won") == 1
    refused = [line for line in results if line != "won"]
    assert len(refused) == 3 and all("exists; pass --overwrite" in line for line in refused)
    generation_of(output)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def talk(writers: list[subprocess.Popen[str]]) -> list[str]:
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lines: list[str] = []
    for writer in writers:
        lines += writer.communicate(timeout=60)[0].splitlines()
        assert writer.returncode == 0
    return lines


def test_a_file_beyond_the_size_limit(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    fill(output)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match="File too large.*nothing was written") as caught:
            with staged(output, True) as directory:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
                (directory / "model.onnx").write_bytes(bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value, EdgesslError) and str(output) in str(caught.value)
    assert generation_of(output) == "old"
    assert hidden(tmp_path) == []


@contextmanager
def small_disk(where: Path) -> Iterator[None]:
    """1 MiB of tmpfs at *where*, or a skipped test."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)]
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize("writer", ["python", "numpy"])
def test_a_full_disk(tmp_path: Path, writer: str) -> None:
    with small_disk(tmp_path):
        output = tmp_path / "bundle"
        fill(output)
        with pytest.raises(OutputError, match="no space left on") as caught:
            with staged(output, True) as directory:
                if writer == "python":
                    (directory / "model.onnx").write_bytes(bytes(2_000_000))
                else:
                    np.save(directory / "model.npy", np.zeros(2_000_000, np.uint8))
        message = str(caught.value)
        assert message.startswith(f"no space left on {tmp_path} while writing {output} (")
        assert "nothing was written" in message and "1.0 MB free" in message
        assert generation_of(output) == "old"
        assert hidden(tmp_path) == []
        with pytest.raises(OutputError, match="mount point"):
            check_output(tmp_path, True)
        (tmp_path / "ballast").write_bytes(bytes((1 << 20) - 65536))
        with pytest.raises(OutputError, match="no space left on"):
            with staged(output, True) as directory:
                fill(directory, "x" * 10)
        assert generation_of(output) == "old"

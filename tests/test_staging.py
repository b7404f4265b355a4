"""A bundle is there whole or not at all: what is refused, errors, signals."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from edgessl import staging
from edgessl.errors import OutputError
from edgessl.staging import check_output, orderly_sigterm, staged
from tests.writers import HOLD, end, fill, generation_of, hidden, no_exchange, start


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

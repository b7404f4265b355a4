"""Writing a directory so that it is there whole, or not at all.

The new directory grows beside its place under a hidden name, ``.NAME.tmp-PID-RANDOM``, is
flushed to the disk and then renamed, or exchanged with the bundle that it replaces. A lock on
the hidden directory itself (``flock``, which ends with its process, even a killed one) tells a
leftover of a killed process from the work of a living one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from edgessl.bundle import MANIFEST, is_bundle, list_files
from edgessl.errors import OutputError
from edgessl.write_errors import explain, is_about_writing

_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}  # rename(2) onto what is not empty
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_output(output: Path, overwrite: bool) -> None:
    """Find out before any long work whether *output* can be written.

    Tries what ``staged`` will do, missing parents included, and undoes it.

    Raises:
        OutputError: *output* is a file, a bundle (unless *overwrite*), or a directory that holds
            anything edgessl did not write; or it cannot be created there.
    """
    real = _real(output)
    with ExitStack() as undo, _foreign_errors(real):
        _restore(real)
        _check_existing(real, overwrite)
        _fresh(real, undo)


@contextmanager
def staged(output: Path, overwrite: bool) -> Iterator[Path]:
    """A fresh directory to fill, which becomes *output* when the block ends without an error.

    Until then, and after any exception (Ctrl-C and SIGTERM included), *output* is as it was.

    Raises:
        OutputError: as ``check_output``; the disk is full or cannot be written; another process
            wrote *output* in the meantime and *overwrite* is false.
    """
    real = _real(output)
    with orderly_sigterm(), ExitStack() as undo:
        with _foreign_errors(real):
            _restore(real)
            _check_existing(real, overwrite)
            _sweep(real)
            directory = _fresh(real, undo)
        filled = False
        try:
            yield directory
            filled = True
            _flush(directory)
            _put_in_place(directory, real, overwrite)
        except OSError as err:
            if not (filled or is_about_writing(err, directory)):
                raise
            raise OutputError(explain(err, directory, real)) from err


@contextmanager
def orderly_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises ``SystemExit(143)``, so that every ``finally`` runs.

    Does nothing outside the main thread, or where the program has a SIGTERM handler of its own.
    """

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _real(output: Path) -> Path:
    # Through links: a link is kept, and what it points to is replaced.
    try:
        return Path(os.path.realpath(output))
    except (OSError, ValueError) as err:
        raise OutputError(f"{str(output)!r} is not a usable path: {err}.") from err


@contextmanager
def _foreign_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        reason = err.strerror or str(err)
        place = f" ({err.filename})" if err.filename else ""
        raise OutputError(
            f"cannot write {output}: {reason}{place}. Name a directory that can be written."
        ) from err


def _check_existing(output: Path, overwrite: bool) -> None:
    for parent in output.parents:
        if parent.exists() and not parent.is_dir():
            raise OutputError(f"cannot write {output}: {parent} is a file, not a directory.")
    try:
        names = os.listdir(output)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise OutputError(f"{output} exists and is not a directory; name another output.") from None
    if output == Path.cwd() or os.path.ismount(output):
        raise OutputError(
            f"{output} is the current directory or a mount point and cannot be put in place as a "
            f"whole. Name a directory inside it, for example {output / 'bundle'}."
        )
    if not names:
        return
    if not is_bundle(output):
        raise OutputError(
            f"{output} exists and is not a bundle; edgessl does not replace it. Name another "
            "output, or remove it yourself."
        )
    if not overwrite:
        raise OutputError(f"{output} exists; pass --overwrite to replace it.")
    if strangers := _strangers(output):
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise OutputError(
            f"{output} holds files that edgessl did not write ({strangers[0]}{more}); it would "
            "lose them. Move them away, or name another output."
        )


def _strangers(bundle: Path) -> list[str]:
    """Files that the manifest does not list; the manifest itself when it is not edgessl's."""
    try:
        listed = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["files"]
        return [name for name in list_files(bundle) if name not in listed]
    except FileNotFoundError:
        return []  # another writer has just taken it away
    except (ValueError, KeyError, TypeError):
        return [MANIFEST]


def _fresh(output: Path, undo: ExitStack) -> Path:
    """Make and lock the hidden directory; *undo* removes it, and empty parents made for it."""
    for parent in reversed([path for path in output.parents if not path.exists()]):
        parent.mkdir(exist_ok=True)
        undo.callback(_remove_if_empty, parent)
    while True:
        name = f".{output.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        directory = output.parent / name
        # Before it exists, so that no interrupt finds a directory without its removal.
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.mkdir()
        try:
            lock = lock_directory(directory)
        except OSError:
            return directory  # a file system without locks (NFS): nobody will sweep there either
        if lock is not None:
            undo.callback(os.close, lock)
            return directory
        # A sweeping process took it for a leftover before it was locked: make another.


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # it holds the output now: the usual case
        directory.rmdir()


def lock_directory(directory: Path) -> int | None:
    """A descriptor that holds the lock of *directory*; None where another process has it.

    Raises:
        OSError: this file system cannot lock a directory.
    """
    lock = None
    with contextlib.suppress(FileNotFoundError, BlockingIOError), ExitStack() as stack:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and lock another process may have removed the directory.
        if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            stack.pop_all()
            lock = descriptor
    return lock


def _siblings(output: Path, kind: str) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(output.name)}\.{kind}-\d+-[0-9a-f]{{8}}")
    if not output.parent.is_dir():
        return []
    return [path for path in output.parent.iterdir() if pattern.fullmatch(path.name)]


def _sweep(output: Path) -> None:
    """Remove what killed processes left of their work on *output*."""
    for path in _siblings(output, "tmp"):
        try:
            lock = lock_directory(path)
        except OSError:
            continue  # another user's, or no locks here: whether it is alive cannot be known
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _restore(output: Path) -> None:
    """Finish for a process that was killed between the two renames of ``_swap``."""
    for old in _siblings(output, "old"):
        try:
            os.rename(old, output)
        except FileNotFoundError:
            continue  # another process did it
        except OSError as err:
            if err.errno not in _OCCUPIED:
                raise
            if is_bundle(output):
                shutil.rmtree(old, ignore_errors=True)


def _flush(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for path in [*(os.path.join(folder, name) for name in names), folder]:
            if not os.path.islink(path):
                fsync(path)


def fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno != errno.EINVAL:  # a file system that cannot flush a directory
            raise
    finally:
        os.close(descriptor)


def _put_in_place(directory: Path, output: Path, overwrite: bool) -> None:
    # rename(2) itself refuses a place that is not empty, so no other writer's bundle is lost.
    for _ in range(100):  # others may write and remove the same output all the while
        try:
            os.rename(directory, output)
        except OSError as err:
            if err.errno not in _OCCUPIED:
                raise
            _check_existing(output, overwrite)
            if not _swap(directory, output):
                continue
        fsync(str(output.parent))
        return
    raise OutputError(f"cannot write {output}: other processes keep writing there. Try again.")


def _swap(directory: Path, output: Path) -> bool:
    """Exchange the two; the old bundle is then in *directory*, or removed. False: try again."""
    old = output.with_name(f".{output.name}.old-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            _exchange(directory, output)
            return True
        except OSError as err:
            if err.errno not in _NO_EXCHANGE:
                raise
        # Two renames (NFS, an old kernel, not Linux): a process killed between them leaves nothing
        # at *output* and the old bundle, whole, at *old*; the next writer moves it back.
        os.rename(output, old)
    except FileNotFoundError:
        return False  # somebody removed the old one: its place is free
    try:
        os.rename(directory, output)
    except BaseException as err:
        with contextlib.suppress(OSError):  # another writer was faster: its bundle stays
            os.rename(old, output)
        if isinstance(err, OSError) and err.errno in _OCCUPIED:
            return False
        raise
    shutil.rmtree(old, ignore_errors=True)
    return True


def _exchange(one: Path, other: Path) -> None:
    """Exchange two directories in one step: Linux's renameat2(2)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one))
    path = ctypes.c_char_p
    call.argtypes = (ctypes.c_int, path, ctypes.c_int, path, ctypes.c_uint)
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))

"""An ``OSError`` while writing, in words: which disk, what is wrong with it, how much is free."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_FULL = 1 << 20  # bytes; a disk with less than this free counts as full


def is_about_writing(err: OSError, directory: Path) -> bool:
    """Whether *err* comes from a disk, or from a file at or below *directory*."""
    if err.errno in _DISK_ERRNOS:
        return True
    if type(err) is OSError and err.errno is None:
        # numpy's "N requested and M written" on a full disk has no errno
        return _free(directory) < _FULL
    return isinstance(err.filename, str) and Path(err.filename).is_relative_to(directory)


def explain(err: OSError, directory: Path, output: Path, kept: str = "nothing was written") -> str:
    """One line for a person; *directory* holds what was written so far for *output*.

    *kept*: what is left of the work.
    """
    if err.errno not in (errno.ENOSPC, None):
        # not the staging directory's own name: it is gone by the time anyone reads this
        # (of a copy, the copy: the second name)
        named = str(err.filename2 or err.filename or "").replace(str(directory), str(output))
        place = f" ({named})" if named else ""
        return f"cannot write {output}: {err.strerror or err}{place}; {kept}."
    used = _used(directory)
    where, free = directory, _free(directory) + used
    temporary = Path(tempfile.gettempdir())
    if free - used >= _FULL > _free(temporary):
        where, free = temporary, _free(temporary)  # a library's scratch file filled that disk
    return (
        f"no space left on {_mount_point(where)} while writing {output} (needs more than the "
        f"{free / 1e6:.1f} MB free there); {kept}. Make room, or name another output."
    )


@contextmanager
def native_writers(directory: Path) -> Iterator[None]:
    """Inside the block, what C++ libraries say of a full disk becomes an ``OSError``.

    They stop at some failing stream ("iostream error"), or later at the file that it cut short.

    Raises:
        OSError: an error came while the disk of *directory*, or that of temporary files, was
            full, or when a stream failed.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as err:
        stream_failed = "iostream error" in str(err)
        # OpenVINO takes away what it wrote; one file is about as large as all before it.
        needed = max(_used(directory), _FULL) if stream_failed else _FULL
        if _free(directory) < needed or _free(Path(tempfile.gettempdir())) < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory)) from err
        if stream_failed:
            raise OSError(errno.EIO, "a file cannot be written", str(directory)) from err
        raise


def _used(directory: Path) -> int:
    return sum(p.lstat().st_blocks * 512 for p in directory.rglob("*") if not p.is_dir())


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _mount_point(path: Path) -> Path:
    path = Path(os.path.realpath(path))
    return next(p for p in (path, *path.parents) if os.path.ismount(p))

"""Giving pages back: what was mapped still reads the same, and takes less memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from edgessl.runtimes.memory import _clean, trim

MAPS = """\
7f00-7f10 r--p 00000000 fe:00 1                          /lib/there/liba.so
7f10-7f20 r-xp 00001000 fe:00 1                          /lib/there/liba.so
7f20-7f30 rw-p 00002000 fe:00 1                          /lib/there/liba.so
7f30-7f40 rwxp 00002000 fe:00 1                          /lib/there/liba.so
7f40-7f50 r--s 00000000 fe:00 2                          /lib/there/with a space.bin
7f50-7f60 rw-s 00000000 fe:00 2                          /lib/there/with a space.bin
7f60-7f70 r-xp 00001000 fe:00 3                          /lib/thereabouts/libb.so
7f70-7f80 r-xp 00000000 00:00 0                          [vdso]
7f80-7f90 r-xp 00000000 00:00 0
"""


def test_only_what_the_file_has_is_forgotten() -> None:
    assert list(_clean(MAPS, ("/lib/there/",))) == [(0x7F10, 0x7F20), (0x7F40, 0x7F50)]
    assert list(_clean(MAPS, ())) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_mapped_file_reads_the_same_and_leaves_memory(tmp_path: Path) -> None:
    size = 32 << 20
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(range(256)) * (size // 256))
    (tmp_path / "link").symlink_to(tmp_path)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), size, prot=mmap.PROT_READ) as view:
        total = sum(view[::4096])
        before = resident()
        trim(tmp_path / "link")
        assert before - resident() > 0.9 * size
        assert sum(view[::4096]) == total


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_code_still_runs_when_its_pages_are_gone() -> None:
    code = (
        "import numpy, numpy.linalg\nfrom pathlib import Path\n"
        "from edgessl.runtimes.memory import trim\n"
        "x = numpy.random.default_rng(0).normal(size=(50, 50))\n"
        "want = numpy.linalg.inv(x)\n"
        "trim(Path(numpy.__path__[0]), Path(numpy.__path__[0]).parent / 'numpy.libs')\n"
        "assert (numpy.linalg.inv(x) == want).all()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE

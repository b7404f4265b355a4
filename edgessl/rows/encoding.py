"""Text files as UTF-8, and what to say of those that are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgessl.errors import RecipeError
from edgessl.rows.base import Bad


def clean_text(value: object) -> str | Bad:
    """A value as a text that can be encoded, or what is wrong with it."""
    if not isinstance(value, str):
        return Bad("", "null" if value is None else f"{type(value).__name__}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        # surrogateescape puts a byte that is no UTF-8 there
        foreign = 0xDC80 <= ord(value[err.start]) <= 0xDCFF
        return Bad("", "not UTF-8" if foreign else "half a surrogate pair")
    return value


@contextlib.contextmanager
def opened(path: Path, newline: str | None = None, lenient: bool = False) -> Iterator[IO[str]]:
    errors = "surrogateescape" if lenient else "strict"
    try:
        if lenient and _other_encoding(path):
            raise RecipeError(_not_utf8(path))
        with path.open(encoding="utf-8-sig", newline=newline, errors=errors) as stream:
            yield stream
    except UnicodeDecodeError as err:
        raise RecipeError(_not_utf8(path)) from err
    except OSError as err:
        raise RecipeError(f"data {str(path)!r}: {err.strerror or err}.") from err


def _other_encoding(path: Path) -> bool:
    """Whether it begins as UTF-16 does: most of its lines would pass for UTF-8 with NULs."""
    with path.open("rb") as stream:
        return stream.read(2) in (b"\xff\xfe", b"\xfe\xff")


def _not_utf8(path: Path) -> str:
    """Where, counted in bytes from the file's start, and what to do."""
    start, encoding = 0, "ITS-ENCODING"
    with path.open("rb") as stream:
        if _other_encoding(path):
            encoding = "UTF-16"
        for line in stream:  # no UTF-8 character has a newline in it
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as err:
                start += err.start
                break
            start += len(line)
    return (
        f"data {str(path)!r} is not UTF-8 text (byte {start}). Convert it: "
        f"iconv -f {encoding} -t UTF-8 {path.name} > utf8.txt"
    )

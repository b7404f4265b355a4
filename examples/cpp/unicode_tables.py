"""Print the C++ tables that wordpiece.hpp needs, from Python's own Unicode data."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by rule, in wordpiece.hpp


def without_marks(character: str) -> str:
    decomposed = unicodedata.normalize("NFD", character)
    return "".join(part for part in decomposed if unicodedata.category(part) != "Mn")


def dropped(character: str) -> bool:
    """Control and format characters, but the three that are white space."""
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co")


def punctuation(character: str) -> bool:
    symbol = character.isascii() and character.isprintable() and not character.isalnum()
    return unicodedata.category(character)[0] == "P" or (symbol and character != " ")


def ranges(wanted: Callable[[str], bool]) -> Iterator[str]:
    """``{first, last}`` of each run of characters that are *wanted*."""
    first = last = -2
    for point in POINTS:
        if not wanted(chr(point)):
            continue
        if point != last + 1:
            if last >= 0:
                yield f"{{{first:#x}, {last:#x}}}"
            first = point
        last = point
    yield f"{{{first:#x}, {last:#x}}}"


def changes(mapped: Callable[[str], str]) -> Iterator[str]:
    """``{from, {to, ...}}`` of each character that *mapped* changes; zeros fill up."""
    for point in POINTS:
        after = mapped(chr(point))
        if after != chr(point) and point not in HANGUL:
            to = [f"{ord(part):#x}" for part in after]
            yield f"{{{point:#x}, {{{', '.join(to + ['0'] * (4 - len(to)))}}}}}"


def table(declaration: str, rows: Iterator[str]) -> None:
    print(f"constexpr {declaration} = {{\n    {', '.join(rows)}}};")


print("// Made by unicode_tables.py of Unicode", unicodedata.unidata_version)
print("#pragma once\n#include <cstdint>\nnamespace unicode {")
print("struct Range { char32_t first, last; };\nstruct Change { char32_t from, to[4]; };")
table("Range kDropped[]", ranges(dropped))
table("Range kPunctuation[]", ranges(punctuation))
table("Change kWithoutMarks[]", changes(without_marks))
table("Change kLower[]", changes(str.lower))
print("}  // namespace unicode")

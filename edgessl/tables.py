"""Rows as text in columns: for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def plain(head: Row, rows: Sequence[Row], left: int = 1) -> str:
    """Columns two blanks apart; the first *left* of them start at the left, numbers at the right."""
    widths = _widths(head, rows)
    return "\n".join("  ".join(_padded(row, widths, left)).rstrip() for row in (head, *rows))


def markdown(head: Row, rows: Sequence[Row], left: int = 1) -> str:
    """A Markdown table, padded so that it can also be read as it is."""
    widths = _widths(head, rows)
    rule = [
        "-" * width if column < left else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    lines = (_padded(row, widths, left) for row in (head, rule, *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _widths(head: Row, rows: Sequence[Row]) -> list[int]:
    return [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]


def _padded(row: Row, widths: Sequence[int], left: int) -> list[str]:
    return [
        cell.ljust(width) if column < left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]

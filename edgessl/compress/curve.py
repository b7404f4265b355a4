"""A picture of a training: fidelity over time, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 360, 72, 48, 24, 48
_LINE, _GRID, _INK = "#2f6f9f", "#d9dee3", "#20262c"


def svg(title: str, label: str, points: Sequence[tuple[float, float]]) -> str:
    """*points*: ``(minutes, fidelity)``; *label*: what fidelity is."""
    longest = max(minutes for minutes, _ in points) or 1.0
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(minutes: float, value: float) -> tuple[float, float]:
        x = _LEFT + minutes / longest * (right - _LEFT)
        return x, bottom - (value - low) / span * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12" '
        f'fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        _text(12, 22, title),
    ]
    for quarter in range(5):
        x, y = place(longest * quarter / 4, low + span * quarter / 4)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="{_GRID}"/>'
            + _text(12, y + 4, f"{low + span * quarter / 4:.4f}")
            + _text(x - 8, bottom + 20, f"{longest * quarter / 4:.3g}")
        )
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    parts.append(f'<polyline points="{way}" fill="none" stroke="{_LINE}" stroke-width="2"/>')
    parts += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_LINE}"/>'
        for x, y in (place(*point) for point in points)
    ]
    parts.append(_text(_LEFT, _HEIGHT - 10, f"minutes; {label}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'

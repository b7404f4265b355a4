"""A picture of what was removed where: heads and channels by layer, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_LEFT, _TOP, _ROW, _HEADS, _CHANNELS, _GAP = 56, 64, 26, 240, 320, 90
_KEPT, _GONE, _INK = "#2f6f9f", "#d9dee3", "#20262c"


def svg(
    title: str,
    removed_heads: Sequence[Sequence[int]],
    heads: int,
    channels: Sequence[int],
    channels_before: int,
) -> str:
    """One row a layer, the first on top: a square a head (pale: removed), and a bar of channels.

    Args:
        title: what was asked for, and what it cost.
        removed_heads: of each layer, by number. ``heads``: of each, before.
        channels: kept, of each layer, of ``channels_before``.
    """
    width = _LEFT + _HEADS + _GAP + _CHANNELS + _GAP
    height = _TOP + _ROW * len(channels) + 16
    right = _LEFT + _HEADS + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        _text(12, 22, title),
        _text(12, 50, "layer"),
        _text(_LEFT, 50, "attention heads"),
        _text(right, 50, "feed-forward channels"),
    ]
    side = min(_HEADS / heads, _ROW - 6)
    for layer, (gone, kept) in enumerate(zip(removed_heads, channels, strict=True)):
        top = _TOP + _ROW * layer
        parts.append(_text(12, top + 14, str(layer)))
        for head in range(heads):
            color = _GONE if head in gone else _KEPT
            parts.append(_box(_LEFT + head * side, top, side - 2, _ROW - 8, color))
        parts.append(_text(_LEFT + heads * side + 6, top + 14, str(heads - len(gone))))
        share = kept / channels_before
        parts.append(_box(right, top, _CHANNELS, _ROW - 8, _GONE))
        parts.append(_box(right, top, _CHANNELS * share, _ROW - 8, _KEPT))
        parts.append(_text(right + _CHANNELS + 6, top + 14, f"{kept:,} ({share:.0%})"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'
    )

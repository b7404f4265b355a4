"""Axes and marks of a small plot as inline SVG: text stays text, colours come from the page's CSS.

Drawn for a width of 380 units, so that a plot that fills a phone's screen has letters of a
readable size, and the same one on a desktop is not too large.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH = 380
LEFT, RIGHT, TOP, BOTTOM = 56, 368, 16, 46  # the last one from below
_LETTER = 8.3  # width of a digit at the labels' size
SHAPES = ("circle", "square", "triangle", "diamond")

Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    """Maps values between ``low`` and ``high`` to units between ``begin`` and ``end``."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        turn: Callable[[float], float] = math.log10 if self.log else float
        share = (turn(inside) - turn(self.low)) / (turn(self.high) - turn(self.low))
        return round(self.begin + share * (self.end - self.begin), 1)


def axis(
    values: Iterable[float], begin: float, end: float, log: bool = False, spare: float = 0.05
) -> Axis:
    """An axis around finite *values*, with some room at both ends."""
    found = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(found), max(found)) if found else (1.0, 2.0)
    if log:
        room = max((high / low) ** spare, 1.02)
        return Axis(low / room, high * room, begin, end, log)
    room = spare * (high - low) or abs(high) * spare or 1.0
    return Axis(low - room, high + room, begin, end)


def ticks(scale: Axis, most: int = 6) -> list[Tick]:
    """Round values on *scale*, no more than *most*."""
    if scale.log and scale.high / scale.low > 4:
        for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            found = [value for value in found if scale.low <= value <= scale.high]
            if len(found) <= most:
                break
        else:
            found = found[:: math.ceil(len(found) / most)]
        return [(value, f"{value:,.10g}") for value in found]
    raw = (scale.high - scale.low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    digits = max(0, -math.floor(math.log10(step)))
    return [(n * step, f"{n * step:,.{digits}f}") for n in range(first, last + 1)]


def plot(
    x: Axis,
    y: Axis,
    height: int,
    x_name: str,
    marks: Sequence[ET.Element],
    label: str,
    y_ticks: Sequence[Tick] | None = None,
    x_ticks: Sequence[Tick] | None = None,
) -> str:
    """The whole picture; *label* tells what is on it to who does not see it."""
    root = ET.Element("svg", viewBox=f"0 0 {WIDTH} {height}", role="img")
    root.set("aria-label", label)
    bottom = height - BOTTOM
    for value, name in y_ticks if y_ticks is not None else ticks(y):
        at = y(value)
        root.append(line(LEFT, at, RIGHT, at, "grid"))
        root.append(text(LEFT - 6, at + 4, name, "tick", "end"))
    taken = -math.inf
    for value, name in x_ticks if x_ticks is not None else ticks(x):
        at, half = x(value), len(name) * _LETTER / 2
        root.append(line(at, TOP, at, bottom, "grid"))
        inside = min(at, WIDTH - half)
        if inside - half > taken + 4:
            root.append(text(inside, bottom + 17, name, "tick", "middle"))
            taken = inside + half
    root.append(text((LEFT + RIGHT) / 2, height - 8, x_name, "name", "middle"))
    root.extend(marks)
    return ET.tostring(root, encoding="unicode")


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> ET.Element:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return ET.Element("line", {name: f"{at:g}" for name, at in ends.items()} | {"class": kind})


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> ET.Element:
    facts = {"x": f"{x:g}", "y": f"{y:g}", "class": kind, "text-anchor": anchor}
    found = ET.Element("text", facts)
    found.text = words
    return found


def curve(points: Sequence[tuple[float, float]], kind: str) -> ET.Element:
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    return ET.Element("path", {"d": path, "class": kind})


def mark(
    x: float, y: float, shape: int, kind: str, title: str = "", size: float = 4.5
) -> ET.Element:
    """One of ``SHAPES``: subjects differ by shape as well as by colour."""
    name = SHAPES[shape % len(SHAPES)]
    if name == "circle":
        found = ET.Element("circle", {"cx": f"{x:g}", "cy": f"{y:g}", "r": f"{size:g}"})
    else:
        corners = {
            "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
            "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
            "diamond": ((0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)),
        }[name]
        at = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
        found = ET.Element("polygon", points=at)
    found.set("class", kind)
    if title:
        ET.SubElement(found, "title").text = title
    return found


def key(shape: int, kind: str) -> str:
    """The mark of a subject as it stands before its name."""
    root = ET.Element("svg", {"viewBox": "0 0 26 14", "class": "key", "aria-hidden": "true"})
    root.append(line(1, 7, 25, 7, f"stroke {kind}"))
    root.append(mark(13, 7, shape, f"fill {kind}"))
    return ET.tostring(root, encoding="unicode")

"""How much of this machine's matrix multiplication a bulk job uses.

See ``edgessl.gate.measuring.peak`` for how the peak is measured and what a text needs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edgessl
from edgessl import tables
from edgessl.gate.measuring import peak
from examples.figures import report

_PRECISIONS = ("int8", "bf16")


def measure(bundles: Mapping[str, Path], texts: Sequence[str]) -> dict[str, Any]:
    """Operations a second of the machine, and of each bundle on *texts*, in one go; for JSON."""
    found: dict[str, Any] = {"peak": {}, "bulk": {}}
    for precision in _PRECISIONS:
        report.say(f"measuring the {precision} peak")
        found["peak"][precision] = peak.measure("openvino", precision)
    for name, path in bundles.items():
        precision = name.rpartition(" ")[2]
        if precision not in _PRECISIONS:
            continue
        with edgessl.load(path, mode="throughput") as session:
            lengths = [len(ids) for ids in session.preprocessor.encode(texts)]
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            needed = peak.operations(session.manifest.compute, config, lengths)
            assert needed is not None
            work = needed * len(lengths)
            session.embed(texts)
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                session.embed(texts)
                seconds.append(time.perf_counter() - began)
        again = peak.measure("openvino", precision)  # the weather of this minute
        best = max(again, found["peak"][precision])
        rate = work / statistics.median(seconds)
        found["bulk"][name] = {"operations": rate, "peak": best, "share": rate / best}
    return found


def render(found: Mapping[str, Any]) -> str:
    """A table of what ``measure`` returned."""
    rows = [
        [name, f"{run['operations'] / 1e9:.0f}", f"{run['peak'] / 1e9:.0f}", f"{run['share']:.2f}"]
        for name, run in found["bulk"].items()
    ]
    head = ("", "used, G/s", "measured peak, G/s", "share")
    return "### Operations of the texts' own tokens\n\n" + tables.markdown(head, rows)

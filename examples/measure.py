"""Every figure that docs/benchmarks.md prints: ``make bench``.

    python -m examples.measure                        all of it (an idle machine, some two hours)
    python -m examples.measure fidelity --json f.json
    python -m examples.measure int8-cost --long       with 30,000 calibration texts besides
    python -m examples.measure embed --long           a million texts
    python -m examples.measure gate                   how often gates are wrong: 50 minutes
    python -m examples.measure --quick --no-peers     small numbers, to see that it works

Markdown on stdout; ``--json`` keeps the raw samples and the environment.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.figures import (
    app,
    device,
    embedding,
    exports,
    fidelity,
    gates,
    int8,
    int8_cost,
    int8_images,
    patches,
    peers,
    pruning,
    report,
    speed,
)

PARTS = (
    "fidelity",
    "export",
    "device",
    "int8",
    "int8-cost",
    "int8-images",
    "patches",
    "prune",
    "speed",
    "embed",
    "app",
    "gate",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen parts and print their tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    options.add_argument("--quick", action="store_true", help="small numbers: a test, no figures")
    options.add_argument(
        "--long", action="store_true", help="int8-cost: 30,000 texts; embed: 1,000,000"
    )
    options.add_argument("--json", type=Path, help="write raw samples and environment here")
    options.add_argument("--output", type=Path, default=Path("out/measure"), help="for bundles")
    options.add_argument(
        "--peers",
        type=Path,
        default=os.environ.get("EDGESSL_PEERS") or None,
        help="an environment with optimum-intel and sentence-transformers (made when absent)",
    )
    options.add_argument("--no-peers", action="store_true", help="edgessl alone")
    chosen = options.parse_args(arguments)
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        options.error(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    parts = chosen.parts or PARTS
    chosen.output.mkdir(parents=True, exist_ok=True)
    need_peers = not chosen.no_peers and bool(
        set(parts) - {"fidelity", "patches", "prune", "embed", "app", "gate"}
    )
    others = peers.environment(chosen.peers) if need_peers else None

    result: dict[str, Any] = {"environment": report.environment(), "quick": chosen.quick}
    for part in parts:
        found, table = measure(part, chosen.output, others, chosen.quick, chosen.long)
        result[part] = found
        print(f"{table}\n", flush=True)
        if chosen.json:  # after each part: an hour's work is not lost to the last one
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(
    part: str, output: Path, others: Path | None, quick: bool, long: bool
) -> tuple[dict[str, Any], str]:
    """The raw samples of *part*, and its table."""
    if part == "fidelity":
        found = fidelity.measure(output, fidelity.QUICK if quick else fidelity.Sizes())
        return found, fidelity.render(found)
    if part == "int8":
        sizes = int8.QUICK if quick else int8.Sizes()
        found = int8.measure(output, others, sizes)
        return found, int8.render(found)
    if part == "int8-cost":
        cost = int8_cost.QUICK if quick else int8_cost.LONG if long else int8_cost.Sizes()
        found = int8_cost.measure(output, others, cost)
        return found, int8_cost.render(found)
    if part == "int8-images":
        images = int8_images.QUICK if quick else int8_images.Sizes()
        found = int8_images.measure(output, others, images)
        return found, int8_images.render(found)
    if part == "patches":
        found = patches.measure(output, patches.QUICK if quick else patches.Sizes())
        return found, patches.render(found)
    if part == "prune":
        found = pruning.measure(output, pruning.QUICK if quick else pruning.Sizes())
        return found, pruning.render(found)
    if part == "app":
        found = app.measure(output, app.QUICK if quick else app.Sizes())
        return found, app.render(found)
    if part == "gate":
        found = gates.measure(output, gates.QUICK if quick else gates.Sizes())
        return found, gates.render(found)
    if part == "embed":
        many = embedding.QUICK if quick else embedding.LONG if long else embedding.Sizes()
        found = embedding.measure(output, many)
        return found, embedding.render(found)
    if part == "speed":
        found = speed.measure(output, others, speed.QUICK if quick else speed.Sizes())
        return found, speed.render(found)
    few: dict[str, Any] = {"rounds": 1, "warm_up": 0} if quick else {}
    if part == "export":
        if quick:
            few |= {"items": 16, "calibration": 100}
        found = exports.measure(output, others, **few)
        return found, exports.render(found)
    found = device.measure(output, others, **few)
    return found, device.render(found)


if __name__ == "__main__":
    main()

"""Run an example as its reader would, and read what it printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def example(name: str, *arguments: str) -> str:
    """The stdout of ``python -m examples.NAME``."""
    command = [sys.executable, "-m", f"examples.{name}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr
    return result.stdout


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def measured(place: Path, *parts: str) -> tuple[dict[str, Any], str]:
    """What ``measure`` wrote as JSON for *parts* in small, and what it printed."""
    raw = place / "raw.json"
    options = ("--quick", "--no-peers", "--json", str(raw), "--output", str(place / "work"))
    printed = example("measure", *parts, *options)
    return json.loads(raw.read_text(encoding="utf-8")), printed


def tables_of(printed: str) -> list[list[str]]:
    """The lines of each Markdown table, every one as wide as its head."""
    tables = [block.splitlines() for block in printed.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({len(cells(line)) for line in table}) == 1
    return tables

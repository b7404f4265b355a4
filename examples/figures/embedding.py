"""``edgessl embed`` on many short texts: memory over time, and killed twice beside undisturbed."""

from __future__ import annotations

import functools
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgessl import tables
from edgessl.embed import vectors
from examples import data
from examples.figures import int8, report, tasks

_EVERY_S = 0.5


@dataclass(frozen=True)
class Sizes:
    """Texts of 3 to 10 words. ``kills``: after which shares of them the second run is killed."""

    texts: int = 50_000
    kills: tuple[float, ...] = (0.3, 0.7)
    calibration: int = tasks.CALIBRATION_ITEMS


QUICK = Sizes(9_000, (0.4,), 16)
LONG = Sizes(1_000_000)


def measure(directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Embed them once undisturbed and once killed and resumed; for JSON."""
    task = tasks.texts(directory, 1000, sizes.calibration)
    wanted = (("onnx", "fp32"), ("openvino", "int8"))
    files = int8.bundles(task, directory, wanted, sizes.calibration)
    bundle = files["edgessl openvino int8"].path.parent
    texts = _short_texts(directory, sizes.texts)
    whole, killed = (directory / f"{name}.npy" for name in ("whole", "killed"))
    report.say(f"embedding {sizes.texts} texts")
    undisturbed = _run(bundle, texts, whole)
    runs = []
    for share in sizes.kills:
        report.say(f"embedding them again, to be killed at {share:.0%}")
        reached = functools.partial(_reached, int(share * sizes.texts))
        runs.append(_run(bundle, texts, killed, reached))
    report.say("going on to the end")
    runs.append(_run(bundle, texts, killed))
    ids, found, metadata = vectors.read(whole)
    assert len(found) == sizes.texts and np.array_equal(ids, np.arange(sizes.texts))
    assert np.isfinite(found).all()
    names = ("", ".json", ".ids.npy")
    pairs = [(Path(f"{whole}{name}"), Path(f"{killed}{name}")) for name in names]
    same = all(one.read_bytes() == other.read_bytes() for one, other in pairs if one.exists())
    return {
        "texts": sizes.texts,
        "undisturbed": undisturbed,
        "killed": runs,
        "identical": same,
        "recall": metadata["recall"],
    }


def _short_texts(directory: Path, count: int) -> Path:
    """A text a line, 3 to 10 words of the reviews and of Moby Dick, cut again and again."""
    rng = np.random.default_rng(0)
    words = " ".join(data.sentences() + data.moby_dick()).split()
    path = directory / f"short-texts-{count}.txt"
    with path.open("w", encoding="utf-8") as stream:
        written = 0
        while written < count:
            ends = np.cumsum(rng.integers(3, 11, len(words) // 11))[: count - written + 1]
            for start, end in zip(ends[:-1], ends[1:], strict=True):
                stream.write(" ".join(words[start:end]) + "\n")
            written += len(ends) - 1
    return path


def _run(
    bundle: Path, texts: Path, output: Path, stop: Callable[[Path], bool] | None = None
) -> dict[str, Any]:
    """Run the command, watch its memory, and kill it when *stop* says so of its job directory."""
    command = [sys.executable, "-m", "edgessl", "embed", str(bundle), str(texts), "-o", str(output)]
    if stop is None and output.exists():
        command.append("--overwrite")
    job = output.with_name(f".{output.name}.job")
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--json", "-q"], stdout=subprocess.PIPE, text=True)
    psutil: Any = importlib.import_module("psutil")  # it comes without types
    watched = psutil.Process(process.pid)
    memory = []
    while process.poll() is None:
        try:
            memory.append(watched.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            break
        if stop is not None and stop(job):
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(_EVERY_S)
    output_text = process.communicate()[0]
    found = {"seconds": time.perf_counter() - began, "memory_mb": memory}
    if stop is None:
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed ({process.returncode})")
        found["summary"] = json.loads(output_text)
    return found


def _reached(rows: int, job: Path) -> bool:
    """Whether the finished parts of a job have so many rows."""
    return rows <= sum(int(path.stem.split("-")[2]) for path in job.glob("part-*.npz"))


def render(found: dict[str, Any]) -> str:
    """A table of what ``measure`` returned."""
    rows = []
    for name, run in [
        ("undisturbed", found["undisturbed"]),
        *[(f"killed, then {n}" if n else "killed", run) for n, run in enumerate(found["killed"])],
    ]:
        memory = np.array(run["memory_mb"])
        thirds = [part.max() if len(part) else float("nan") for part in np.array_split(memory, 3)]
        rows.append([name, f"{run['seconds']:.0f}", *(f"{value:.0f}" for value in thirds)])
    head = ("", "seconds", "peak MB, first third", "second", "last")
    speed = found["texts"] / found["undisturbed"]["seconds"]
    lines = [
        f"### `edgessl embed`, {found['texts']:,} texts of 3 to 10 words, openvino int8, to .npy",
        tables.markdown(head, rows),
        f"{speed:.0f} texts/s undisturbed, start and join included; the two files are "
        f"{'identical' if found['identical'] else 'DIFFERENT'}.",
    ]
    return "\n\n".join(lines)

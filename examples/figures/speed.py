"""Texts to vectors, end to end, beside the libraries that people use for it.

Every library runs in a process of its own and waits while another works; they are visited in
turn, forwards and backwards. In bulk each may choose its batch size, from those given, by a first
run. The peers' int8 files are of their own making (``peer_files``), calibrated with the same texts.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgessl
from edgessl import tables
from edgessl.gate import latency
from examples import data
from examples.figures import graphs, int8, peak, peer_files, report, tasks
from examples.figures.environments import clean_environment
from examples.figures.peer_files import PeerFiles

WORKER = Path(__file__).with_name("speed_worker.py")
BATCHES = {"edgessl": (0,), "fastembed": (32, 256), "sentence-transformers": (32, 128)}
_PAUSE_S = 0.2  # threads of the one before may still spin
_CALLS = 50  # single texts a visit

REFERENCE = "sentence-transformers torch fp32"
BULK = "edgessl openvino int8"
FLOAT = "edgessl openvino bf16"


@dataclass(frozen=True)
class Sizes:
    """Texts, rounds in bulk, rounds of single texts, calibration texts."""

    texts: int = 2000
    rounds: int = 5
    single_rounds: int = 9
    calibration: int = tasks.CALIBRATION_ITEMS
    bundles: tuple[tuple[str, str], ...] = (
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("openvino", "bf16"),
        ("openvino", "int8"),
    )


QUICK = Sizes(64, 1, 1, 16, (("onnx", "fp32"), ("openvino", "int8")))


class Worker:
    """A library in its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read()

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read().get("seconds")

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended: {self._process.wait()}")
        return json.loads(line)


@contextmanager
def worker(python: Path, library: str, model: Path, texts: Path) -> Iterator[Worker]:
    command = [str(python), str(WORKER), library, str(model), str(texts)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true"),
    )
    with process:
        try:
            yield Worker(process)
        finally:
            process.kill()


def ragged_texts(count: int) -> list[str]:
    """*count* review sentences and sentences of Moby Dick, one to three, in random order."""
    split = (re.split(r"(?<=[.!?])\s+", paragraph) for paragraph in data.moby_dick())
    novel = [text for part in split for text in part if len(text.split()) >= 4]
    chosen = tasks.draw(list(dict.fromkeys(data.sentences())), count // 4)
    chosen += tasks.draw(list(dict.fromkeys(novel)), count - len(chosen))
    return tasks.draw(chosen, count)


def measure(directory: Path, others: Path | None, sizes: Sizes) -> dict[str, Any]:
    """Time everyone, in bulk and text by text; for JSON. *others*: the peers' environment."""
    task = tasks.texts(directory, 1000, sizes.calibration)
    files = int8.bundles(task, directory, sizes.bundles, sizes.calibration)
    own = {name: file.path.parent for name, file in files.items()}
    texts = ragged_texts(sizes.texts)
    path = directory / "speed-texts.json"
    path.write_text(json.dumps(texts), encoding="utf-8")
    here = Path(sys.executable)
    bulk = {name: (here, "edgessl", model) for name, model in own.items()}
    single = {name: (here, "edgessl-single", model) for name, model in own.items()}
    if others is not None:
        with edgessl.load(own["edgessl onnx fp32"]) as like:
            samples = graphs.save_samples(like, task.calibration_items(), directory / "samples.npz")
        made = peer_files.make(others, directory / "peers", task.model, task.calibration, samples)
        model = _peer_model(directory / "peers" / "model", task.model, made)
        theirs = {
            REFERENCE: "st-torch",
            "sentence-transformers onnx fp32": "st-onnx",
            "sentence-transformers onnx int8": "st-onnx-int8",
            "sentence-transformers openvino fp32": "st-openvino",
            "sentence-transformers openvino int8": "st-openvino-int8",
            "fastembed int8": "fastembed-int8",
        }
        jobs = {
            name: (others / "bin" / "python", library, model) for name, library in theirs.items()
        }
        bulk |= jobs
        single |= jobs
    found: dict[str, Any] = {"texts": len(texts)}
    found["bulk"], vectors = _bulk(bulk, path, sizes.rounds, directory)
    short = _of_one_length(texts, own["edgessl onnx fp32"])
    found["single"] = _single(single, path, short, sizes.single_rounds)
    truth = graphs.unit(vectors[REFERENCE if REFERENCE in vectors else "edgessl onnx fp32"])
    found["cosine"] = {
        name: float((graphs.unit(rows) * truth).sum(axis=1).mean())
        for name, rows in vectors.items()
    }
    found["peak"] = peak.measure(own, texts)
    return found


def _peer_model(directory: Path, model: Path, made: PeerFiles) -> Path:
    """The checkpoint with the peers' graphs in it, under the names that they look for."""
    if not directory.exists():
        fresh = directory.with_name(f".{directory.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(model, fresh)
        int8_onnx = made.int8["sentence-transformers int8 (dynamic)"].path
        int8_ir = made.int8["optimum-intel int8 (NNCF on IR)"].path
        for source, name in (
            (made.onnx, "onnx/model.onnx"),
            (int8_onnx, "onnx/model_qint8_avx512_vnni.onnx"),
            (made.ir, "openvino/openvino_model.xml"),
            (made.ir.with_suffix(".bin"), "openvino/openvino_model.bin"),
            (int8_ir, "openvino/openvino_model_qint8_quantized.xml"),
            (int8_ir.with_suffix(".bin"), "openvino/openvino_model_qint8_quantized.bin"),
        ):
            (fresh / name).parent.mkdir(exist_ok=True)
            shutil.copy(source, fresh / name)
        fresh.rename(directory)
    return directory


def _of_one_length(texts: list[str], bundle: Path) -> list[int]:
    """Rows of the texts that have as many tokens as most of the short ones have."""
    with edgessl.load(bundle) as session:
        lengths = [len(ids) for ids in session.preprocessor.encode(texts)]
    counts = np.bincount([length for length in lengths if 10 <= length <= 16])
    return [row for row, length in enumerate(lengths) if length == counts.argmax()]


Jobs = Mapping[str, tuple[Path, str, Path]]


def _bulk(
    jobs: Jobs, texts: Path, rounds: int, directory: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    vectors = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(*job, texts)) for name, job in jobs.items()}
        batches = {}
        for name, opened in workers.items():
            report.say(f"first run of {name}")
            sizes = next(value for key, value in BATCHES.items() if name.startswith(key))
            seconds = {size: opened.ask(do="bulk", batch=size) for size in sizes}
            batches[name] = min(seconds, key=seconds.__getitem__)
            opened.ask(do="vectors", path=str(directory / "vectors.npy"), batch=batches[name])
            vectors[name] = np.load(directory / "vectors.npy")
        runs: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(rounds):
            report.say(f"bulk, round {number + 1} of {rounds}")
            for name in workers if number % 2 == 0 else reversed(workers):
                time.sleep(_PAUSE_S)
                runs[name].append(workers[name].ask(do="bulk", batch=batches[name]))
    return {
        name: {"batch": batches[name], "seconds": seconds} for name, seconds in runs.items()
    }, vectors


def _single(jobs: Jobs, path: Path, short: list[int], rounds: int) -> dict[str, list[list[float]]]:
    """name -> round -> seconds of each call; everyone gets the same texts in the same order."""
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(*job, path)) for name, job in jobs.items()}
        runs: dict[str, list[list[float]]] = {name: [] for name in workers}
        for number in range(rounds):
            report.say(f"single, round {number + 1} of {rounds}")
            rows = rng.choice(short, _CALLS + 1).tolist()
            for name in workers if number % 2 == 0 else reversed(workers):
                time.sleep(_PAUSE_S)
                runs[name].append(workers[name].ask(do="single", rows=rows)[1:])
    return runs


def render(found: dict[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    parts = [f"### {found['texts']} texts in bulk, end to end", _bulk_table(found)]
    parts += ["### One short text at a time, all of one length, end to end"]
    return "\n\n".join([*parts, _single_table(found["single"]), peak.render(found["peak"])])


def _bulk_table(found: dict[str, Any]) -> str:
    rows = []
    for name, run in found["bulk"].items():
        speed = found["texts"] / statistics.median(run["seconds"])
        ratios = [_ratio(found, ours, name) for ours in (BULK, FLOAT)]
        rows.append([name, f"{speed:.0f}", *ratios, f"{found['cosine'][name]:.5f}"])
    head = ("", "texts/s", f"{BULK} is", f"{FLOAT} is", "mean cosine")
    return tables.markdown(head, rows)


def _single_table(single: dict[str, Any]) -> str:
    others = [name for name in single if not name.startswith("edgessl")] or list(single)
    fastest = min(others, key=lambda name: _median(single[name]))
    rows = []
    for name, runs in single.items():
        ratio, (low, high) = latency.ratio(runs, single[fastest])
        median, *tail = np.percentile(np.array(runs) * 1e3, [50, 90, 99])
        times = [f"{value:.2f}" for value in (median, *tail)]
        interval = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        rows.append([name, *times, f"{tail[-1] / median:.1f}", interval])
    head = ("", "median ms", "p90", "p99", "p99 / median", f"of {fastest} (95 %)")
    return tables.markdown(head, rows)


def _ratio(found: dict[str, Any], ours: str, name: str) -> str:
    if name.startswith("edgessl") or ours not in found["bulk"]:
        return ""
    left, right = ([[s] for s in found["bulk"][key]["seconds"]] for key in (name, ours))
    ratio, (low, high) = latency.ratio(left, right)
    return f"{ratio:.2f} x ({low:.2f} to {high:.2f})"


def _median(runs: list[list[float]]) -> float:
    return statistics.median(seconds for calls in runs for seconds in calls)

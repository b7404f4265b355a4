"""edgessl's int8 of all-MiniLM-L6-v2 beside what its users could have instead.

Everyone is calibrated with the same sentences, and every file is opened by the same code with the
same threads and gets the same inputs: only the file differs. The peers' graphs end before pooling;
their time is that of the graph alone, edgessl's includes pooling and normalisation. ONNX Runtime opens
edgessl's with the one fusion off that edgessl's own sessions leave out, the peers' with its defaults.
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgessl
from edgessl import bundle, tables
from edgessl.gate import latency
from edgessl.runtimes.session import Session
from examples.figures import graphs, peer_files, report, tasks
from examples.figures.graphs import File, Graph
from examples.torch_backend import torch_session

# (target, precision); all but the first are built from its ONNX
BUNDLES = (
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
# openvino int8 otherwise built: compared, not timed
VARIANTS: dict[str, dict[str, Any]] = {
    "edgessl openvino int8, any CPU": {"isa": "any"},
    "edgessl openvino int8, built-in texts": {"calibration": None},
    "edgessl openvino int8, 8 texts and built-in": {"few": 8},
    "edgessl openvino int8, --max-drop cosine=0.0004": {"max_drop": "cosine=0.0004"},
}
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
SHAPES = ((1, 8), (1, 16), (1, 32), (1, 128), (8, 32), (32, 64))
IN, OUT = "in domain", "out of domain"


@dataclass(frozen=True)
class Sizes:
    """How much to measure: texts of each domain, calibration texts, rounds and calls of timing
    (a call fewer on large batches), and (batch, tokens) to time."""

    items: int = 1000
    calibration: int = tasks.CALIBRATION_ITEMS
    rounds: int = 15
    calls: int = 10
    shapes: tuple[tuple[int, int], ...] = SHAPES
    bundles: tuple[tuple[str, str], ...] = BUNDLES
    variants: tuple[str, ...] = tuple(VARIANTS)


QUICK = Sizes(32, 16, 2, 2, ((1, 8), (2, 16)), (("onnx", "fp32"), ("onnx", "int8")), ())


def measure(directory: Path, peers: Path | None, sizes: Sizes) -> dict[str, Any]:
    """Build or find every file below *directory*, compare and time them; for JSON.

    *peers* is the folder of the competitors' environment; None leaves them out.
    """
    task = tasks.texts(directory, sizes.items, sizes.calibration)
    files = bundles(task, directory, sizes.bundles, sizes.calibration)
    with edgessl.load(next(iter(files.values())).path.parent) as like:
        if peers is not None:
            samples = graphs.save_samples(like, task.calibration_items(), directory / "samples.npz")
            kept = directory / "peers"
            files |= peer_files.make(peers, kept, task.model, task.calibration, samples).int8
        others = variants(task, directory, sizes.variants)
        opened = {name: graphs.open_graph(file) for name, file in (files | others).items()}
        domains = {IN: list(dict.fromkeys(task.items)), OUT: tasks.foreign_texts(sizes.items)}
        reference = torch_session(task.model, like)
        fidelity = {
            domain: _fidelity(texts, reference, like, opened) for domain, texts in domains.items()
        }
        timed = {name: opened[name] for name in files}
        speed = _speed(domains[OUT], like, timed, sizes)
    return {
        "threads": graphs.THREADS,
        "files": {name: file.to_json() for name, file in (files | others).items()},
        "fidelity": fidelity,
        "speed": speed,
    }


def bundles(
    task: tasks.Task,
    directory: Path,
    wanted: tuple[tuple[str, str], ...],
    samples: int = tasks.CALIBRATION_ITEMS,
) -> dict[str, File]:
    """The graphs of edgessl's bundles, by name."""
    files = {}
    for target, precision in wanted:
        source = exported(task.name, task.model, directory)
        path = built(source, task.name, target, precision, task.calibration, samples)
        file = "model.onnx" if target == "onnx" else "openvino_model.xml"
        hint = bundle.read(path).compatibility.get("inference_precision", "")
        name = f"edgessl {target} {precision}"
        files[name] = File(path / file, RUNTIMES[target], hint, precision)
    return files


@functools.cache
def built(
    source: Path, name: str, target: str, precision: str, calibration: Path, samples: int
) -> Path:
    """A bundle made of the bundle *source*, once a process, beside it."""
    path = source.parent / f"{name}-{target}-{precision}"
    if path == source:
        return path
    report.say(f"building {name}: edgessl {target} {precision}")
    edgessl.build(
        source,
        target,
        path,
        precision=precision,
        calibration=str(calibration) if precision == "int8" else None,
        samples=samples,
        overwrite=True,
        timing=False,  # measured here
        force=True,  # a figure outside its bound is a figure to show
    )
    return path


def variants(task: tasks.Task, directory: Path, wanted: tuple[str, ...]) -> dict[str, File]:
    """The graphs of ``VARIANTS``, by name."""
    source = exported(task.name, task.model, directory)
    files: dict[str, File] = {}
    for name in wanted:
        report.say(f"building {name}")
        options = {"calibration": str(task.calibration), **VARIANTS[name]}
        few = options.pop("few", None)
        if few is not None:
            options["calibration"] = str(directory / f"{few}-texts.txt")
            Path(options["calibration"]).write_text("\n".join(task.calibration_items()[:few]))
        path = directory / "bundles" / f"{task.name}-variant-{len(files)}"
        edgessl.build(
            source, "openvino", path, precision="int8", overwrite=True, timing=False, **options
        )
        files[name] = File(path / "openvino_model.xml", "openvino", "f32", "int8")
    return files


@functools.cache
def exported(name: str, model: Path, directory: Path) -> Path:
    """The fp32 ONNX bundle of *model*, exported from torch once a process."""
    report.say(f"exporting {name}: edgessl onnx fp32")
    path = directory / "bundles" / f"{name}-onnx-fp32"
    return edgessl.build(model, "onnx", path, overwrite=True).path


def _fidelity(
    texts: list[str], reference: Session, like: Session, opened: dict[str, Graph]
) -> dict[str, Any]:
    """name -> cosine of every vector to torch in fp32, and whether each text's nearest other text
    is the same, both sides in the variant's own vectors."""
    truth = graphs.unit(reference.embed(texts))
    neighbours = graphs.nearest(truth)
    found = {}
    for name, graph in opened.items():
        report.say(f"comparing {name}")
        vectors = graphs.unit(graphs.embed(graph, like, texts))
        found[name] = {
            "cosine": (vectors * truth).sum(axis=1).tolist(),
            "same_neighbour": (graphs.nearest(vectors) == neighbours).tolist(),
        }
    return found


def _speed(
    texts: list[str], like: Session, opened: dict[str, Graph], sizes: Sizes
) -> dict[str, dict[str, list[list[float]]]]:
    """``"BATCHxTOKENS"`` -> name -> round -> seconds of each call."""
    found = {}
    long = like.prepare(sorted(texts, key=len)[-max(batch for batch, _ in sizes.shapes) :])
    for batch, tokens in sizes.shapes:
        report.say(f"timing {batch} x {tokens}")
        inputs = {name: array[:batch, :tokens].copy() for name, array in long.items()}
        inputs["input_ids"][:, -1] = long["input_ids"][0, long["attention_mask"][0].sum() - 1]
        assert inputs["input_ids"].shape == (batch, tokens) and inputs["attention_mask"].all()
        calls = sizes.calls if batch == 1 else max(2, sizes.calls // 4)
        found[f"{batch}x{tokens}"] = graphs.time_in_turn(opened, inputs, sizes.rounds, calls)
    return found


def render(found: dict[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    parts = []
    for domain, rows in found["fidelity"].items():
        count = len(next(iter(rows.values()))["cosine"])
        title = f"### all-MiniLM-L6-v2, int8: fidelity to fp32 torch, {count} texts {domain}"
        parts += [title, _fidelity_table(found["files"], rows)]
    title = f"### all-MiniLM-L6-v2: the graph alone, {found['threads']} threads, medians in ms"
    parts += [title, _speed_table(found)]
    parts += ["### all-MiniLM-L6-v2: int8 beside the fastest int8 peer of the same runtime"]
    return "\n\n".join([*parts, ratio_table(found["files"], found["speed"])])


def _fidelity_table(files: dict[str, Any], rows: dict[str, Any]) -> str:
    head = ("", "MB", "cosine mean", "1st percentile", "lowest", "same nearest neighbour")
    cells = []
    for name, file in files.items():
        same = f"{np.mean(rows[name]['same_neighbour']):.1%}"
        cells.append([name, f"{file['bytes'] / 1e6:.1f}", *cosines(rows[name]["cosine"]), same])
    return tables.markdown(head, cells)


def cosines(values: list[float]) -> list[str]:
    """Mean, 1st percentile and lowest, as cells of a table."""
    found = np.array(values)
    return [f"{v:.5f}" for v in (found.mean(), np.percentile(found, 1), found.min())]


def _speed_table(found: dict[str, Any]) -> str:
    rows = [
        [name, *(f"{_median(runs[name]) * 1e3:.2f}" for runs in found["speed"].values())]
        for name in next(iter(found["speed"].values()))
    ]
    return tables.markdown(["batch x tokens", *found["speed"]], rows)


def ratio_table(files: dict[str, Any], speed: dict[str, Any]) -> str:
    """For each int8 file of edgessl's and each shape: the fastest int8 file of another maker (of
    edgessl's own others where there is none) on the same runtime, and how many times faster."""
    rows = []
    for name, file in files.items():
        if file["peer"] or file["precision"] != "int8" or name in VARIANTS:
            continue
        timed = {n: f for n, f in files.items() if n not in VARIANTS and n != name}
        like = {n: f for n, f in timed.items() if f["runtime"] == file["runtime"]}
        others = [n for n, f in like.items() if f["peer"]] or list(like)
        for shape, runs in speed.items() if others else ():
            best = min(others, key=lambda other: _median(runs[other]))
            ratio, (low, high) = latency.ratio(runs[best], runs[name])
            times = [f"{_median(runs[n]) * 1e3:.2f} ms" for n in (best, name)]
            interval = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
            rows.append([name, shape, best, *times, interval])
    head = ("", "shape", "fastest other", "its time", "edgessl's", "times faster (95 %)")
    return tables.markdown(head, rows)


def _median(runs: list[list[float]]) -> float:
    return statistics.median(seconds for calls in runs for seconds in calls)

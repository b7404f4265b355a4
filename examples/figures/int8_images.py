"""int8 of image encoders on OpenVINO: speed, and what a linear probe still sees in the vectors.

The CIFAR-10 MAE of this repository, and an encoder of ViT-B/16's size whose random weights say
nothing about accuracy but take the time of real ones. OpenVINO computes in f32 beside int8.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgessl
from edgessl import tables
from edgessl.gate import latency
from edgessl.runtimes.session import Session
from examples import data
from examples.figures import graphs, int8, peers, process, report, tasks
from examples.figures.environments import OFFLINE, clean_environment
from examples.figures.graphs import File, Graph
from examples.torch_backend import torch_session

BUNDLES = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
BASE = "edgessl openvino fp32"
BATCHES = (1, 8)
C = 0.01  # of the probe: inverse strength of its regularisation


@dataclass(frozen=True)
class Sizes:
    """Images to train and to test the probe on, calibration images of the MAE and of the large
    encoder, rounds and calls of timing, and what the large encoder changes of ViT-B/16."""

    train: int = 10_000
    test: int = 5000
    calibration: int = tasks.CALIBRATION_ITEMS
    large_calibration: int = 32
    rounds: int = 15
    calls: int = 8
    large: tuple[tuple[str, int], ...] = ()
    bundles: tuple[tuple[str, str], ...] = BUNDLES


_TINY = (
    *(("hidden_size", 64), ("intermediate_size", 128), ("num_hidden_layers", 2)),
    *(("num_attention_heads", 2), ("image_size", 32)),
)
QUICK = Sizes(
    *(300, 64, 16, 4, 1, 2),
    large=_TINY,
    bundles=(("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "int8")),
)


def measure(directory: Path, others: Path | None, sizes: Sizes) -> dict[str, Any]:
    """Build both encoders below *directory* and measure them; for JSON.

    *others* is the folder of the competitors' environment; None leaves them out.
    """
    mae = tasks.images(directory, sizes.test, sizes.calibration)
    found: dict[str, Any] = {"threads": graphs.THREADS, "encoders": {}}
    found["encoders"][mae.name] = _measure(mae, directory, others, sizes, sizes.calibration)
    few = tasks.images(directory, sizes.test, sizes.large_calibration)
    model = save_large(directory / "vit-b-16", dict(sizes.large))
    large = tasks.Task("vit-b-16 with random weights", model, few.items, few.calibration)
    count = sizes.large_calibration
    found["encoders"][large.name] = _measure(large, directory, others, sizes, count)
    return found


def save_large(directory: Path, changes: dict[str, Any]) -> Path:
    """A ViT-MAE of ViT-B/16's size with random weights, positions and biases among them."""
    import torch
    from transformers import ViTMAEConfig, ViTMAEModel

    torch.manual_seed(0)
    model = ViTMAEModel(ViTMAEConfig(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() or (parameter == 1).all():
                parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": model.config.image_size, "width": model.config.image_size},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(preprocessor), encoding="utf-8")
    return directory


def _measure(
    task: tasks.Task, directory: Path, others: Path | None, sizes: Sizes, samples: int
) -> dict[str, Any]:
    files = int8.bundles(task, directory, sizes.bundles, samples)
    with edgessl.load(files[BASE].path.parent) as like:
        if others is not None:
            files["NNCF on OpenVINO IR"] = _nncf(task, directory, others, files[BASE], like)
        opened = {
            name: graphs.open_graph(file)
            for name, file in files.items()
            if file.runtime == "openvino"
        }
        speed = {}
        for batch in BATCHES:
            report.say(f"timing {task.name}: {batch} images")
            inputs = like.prepare(list(task.items[:batch]))
            calls = sizes.calls if batch == 1 else max(2, sizes.calls // 4)
            timed = graphs.time_in_turn(opened, inputs, sizes.rounds, calls)
            speed[f"{batch} x {inputs['pixel_values'].shape[-1]} px"] = timed
        found = {"files": {name: files[name].to_json() for name in opened}, "speed": speed}
        if task.model == tasks.MAE:
            found["fidelity"] = _fidelity(task, like, opened, sizes)
    return found


def _nncf(task: tasks.Task, directory: Path, others: Path, fp32: File, like: Session) -> File:
    """Plain NNCF on edgessl's own fp32 IR."""
    report.say(f"quantizing {task.name} with NNCF")
    items = task.calibration_items()
    samples = graphs.save_samples(like, items, directory / "samples-images.npz")
    out = directory / "nncf-images" / f"{fp32.path.parent.name}.xml"
    out.parent.mkdir(exist_ok=True)
    command = peers.command(others, "nncf", fp32.path, samples, out)
    process.run(command, clean_environment(**OFFLINE))
    return File(out, "openvino", "f32", peer=True)


def _fidelity(
    task: tasks.Task, like: Session, opened: dict[str, Graph], sizes: Sizes
) -> dict[str, Any]:
    """name -> cosine of every test image's vector to torch in fp32, and which test images a
    linear probe puts in their class."""
    truth = graphs.unit(torch_session(task.model, like).embed(task.items))
    known = list(data.cifar10("train", sizes.train))
    labels = data.cifar10_labels("train", sizes.train), data.cifar10_labels("test", sizes.test)
    found = {}
    for name, graph in opened.items():
        report.say(f"linear probe: {name}")
        trained, asked = (
            graphs.embed(graph, like, known),
            graphs.embed(graph, like, list(task.items)),
        )
        found[name] = {
            "cosine": (graphs.unit(asked) * truth).sum(axis=1).tolist(),
            "right": probe(trained, labels[0], asked, labels[1]).tolist(),
        }
    return found


def probe(
    trained: graphs.Vectors,
    classes: npt.NDArray[np.int64],
    asked: graphs.Vectors,
    expected: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Logistic regression on standardized vectors: which of *asked* it classifies as *expected*."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(trained.astype(np.float64))
    regression = LogisticRegression(C=C, max_iter=1000)
    regression.fit(scale.transform(trained), classes)
    return np.asarray(regression.predict(scale.transform(asked)) == expected)


def render(found: dict[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    parts = []
    for encoder, facts in found["encoders"].items():
        if "fidelity" in facts:
            parts += [f"### {encoder}: int8 and a linear probe", _fidelity_table(facts)]
        title = f"### {encoder}: the graph alone, {found['threads']} threads, medians"
        parts += [title, _speed_table(facts)]
    return "\n\n".join(parts)


def _fidelity_table(facts: dict[str, Any]) -> str:
    base = np.array(facts["fidelity"][BASE]["right"], float)
    rows = []
    for name, row in facts["fidelity"].items():
        right = np.array(row["right"], float)
        change = (right - base) * 100  # paired: the same images
        error = 1.96 * change.std() / len(change) ** 0.5
        shown = f"{change.mean():+.2f} ± {error:.2f}" if name != BASE else ""
        cells = [name, f"{facts['files'][name]['bytes'] / 1e6:.1f}", *int8.cosines(row["cosine"])]
        rows.append([*cells, f"{right.mean():.2%}", shown])
    head = ("", "MB", "cosine mean", "1st percentile", "lowest", "linear probe", "points to fp32")
    return tables.markdown(head, rows)


def _speed_table(facts: dict[str, Any]) -> str:
    rows = []
    for name in facts["files"]:
        cells = [name]
        for runs in facts["speed"].values():
            ratio, (low, high) = latency.ratio(runs[BASE], runs[name])
            times = statistics.median(seconds for calls in runs[name] for seconds in calls)
            cells.append(f"{times * 1e3:.2f} ms")
            cells.append(f"{ratio:.2f} ({low:.2f} to {high:.2f})" if name != BASE else "")
        rows.append(cells)
    head = [cell for shape in facts["speed"] for cell in (shape, "times fp32's speed (95 %)")]
    return tables.markdown(["", *head], rows)

"""Fewer tokens: what leaving out patches, and merging tokens, gains in speed and costs in accuracy.

Accuracy is that of the repository's CIFAR-10 MAE; speed besides that of a ViT of ViT-B/16's size,
whose random weights say nothing of accuracy and take the time of real ones.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgessl
from edgessl import tables
from edgessl.gate import latency
from edgessl.runtimes import patches
from edgessl.runtimes.options import PATCHES
from edgessl.runtimes.session import Session
from examples import data
from examples.figures import graphs, report, tasks
from examples.figures.int8_images import save_large

EVERY = "every patch"
NEIGHBOURS = 20
RIDGE = 10.0


@dataclass(frozen=True)
class Sizes:
    """Images to train and to test on; shares that are kept; tokens that a layer merges, of the MAE
    and of the large encoder; batches and rounds of timing, and what is changed of ViT-B/16."""

    train: int = 10_000
    test: int = 5000
    keep: tuple[float, ...] = (0.75, 0.5, 0.35, 0.25)
    merge: tuple[int, ...] = (2, 4, 6)
    merge_large: tuple[int, ...] = (8, 16)
    batches: tuple[int, ...] = (1, 32)
    batches_large: tuple[int, ...] = (1, 8)
    rounds: int = 15
    large: tuple[tuple[str, int], ...] = ()
    targets: tuple[tuple[str, str], ...] = (
        ("onnx", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
    )
    targets_large: tuple[tuple[str, str], ...] = (
        ("onnx", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "bf16"),
    )


QUICK = Sizes(
    *(300, 100, (0.5,), (4,), (2,), (1, 8), (1,), 2),
    large=(
        *(("hidden_size", 64), ("intermediate_size", 128), ("num_hidden_layers", 2)),
        *(("num_attention_heads", 2), ("image_size", 32)),
    ),
    targets=(("onnx", "fp32"), ("openvino", "fp32")),
    targets_large=(("openvino", "fp32"),),
)


def measure(directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Build what is needed below *directory* and measure it; for JSON."""
    found: dict[str, Any] = {"threads": graphs.THREADS, "speed": {}}
    calibration = tasks.images(directory, 1).calibration
    mae = _build(tasks.MAE, directory, sizes.targets, sizes.merge, calibration)
    found["accuracy"] = _accuracy(mae, sizes)
    found["choosing"] = _choosing()
    found["speed"]["vit-mae-cifar10"] = _speed(mae, sizes.targets, sizes, sizes.batches)
    model = save_large(directory / "vit-b-16", dict(sizes.large))
    large = _build(model, directory, sizes.targets_large, sizes.merge_large, calibration)
    found["speed"]["ViT-B/16"] = _speed(large, sizes.targets_large, sizes, sizes.batches_large)
    return found


def _build(
    model: Path,
    directory: Path,
    targets: tuple[tuple[str, str], ...],
    merges: tuple[int, ...],
    calibration: Path,
) -> dict[str, Path]:
    """``"onnx fp32"`` and ``"onnx fp32, merging 4"`` -> the bundle's directory."""
    built = {}
    for target, precision in targets:
        for merge in (None, *merges):
            name = f"{target} {precision}" + (f", merging {merge}" if merge else "")
            report.say(f"{model.name}: building {name}")
            path = directory / "fewer" / f"{model.name}-{target}-{precision}-{merge or 0}"
            options: dict[str, Any] = {"merge_tokens": merge} if merge else {}
            if precision == "int8":
                options |= {"calibration": str(calibration), "samples": 64}
            edgessl.build(
                model, target, path, precision=precision, overwrite=True, timing=False, **options
            )
            built[name] = path
    return built


def _accuracy(built: Mapping[str, Path], sizes: Sizes) -> list[dict[str, Any]]:
    """A row for each setting: ``probe`` and ``knn``, which test images are put in their class;
    ``mixed``, by the neighbours among vectors of every patch; ``cosine`` to those."""
    known, asked = data.cifar10("train", sizes.train), data.cifar10("test", sizes.test)
    classes = data.cifar10_labels("train", sizes.train)
    expected = data.cifar10_labels("test", sizes.test)
    fp32 = "openvino fp32"
    settings: list[tuple[str, str, dict[str, Any]]] = [(EVERY, fp32, {})]
    settings += [
        (f"{keep:.0%}, {how}", fp32, {"keep_patches": keep, "patches": how})
        for keep in sizes.keep
        for how in PATCHES
    ]
    settings += [
        (f"merging {merge} a layer", f"{fp32}, merging {merge}", {}) for merge in sizes.merge
    ]
    rows, whole = [], None
    for name, key, options in settings:
        report.say(f"vectors of {sizes.train + sizes.test} images: {name}")
        with edgessl.load(built[key], mode="throughput", **options) as session:
            vectors = graphs.unit(session.embed(known)), graphs.unit(session.embed(asked))
        whole = whole or vectors
        rows.append(
            {
                "name": name,
                "probe": probe(vectors[0], classes, vectors[1], expected).tolist(),
                "knn": _neighbours(vectors[0], classes, vectors[1], expected).tolist(),
                "mixed": _neighbours(whole[0], classes, vectors[1], expected).tolist(),
                "cosine": (whole[1] * vectors[1]).sum(axis=1).tolist(),
            }
        )
    return rows


def probe(
    known: graphs.Vectors,
    classes: npt.NDArray[np.int64],
    asked: graphs.Vectors,
    expected: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """A ridge classifier on standardized vectors: which of *asked* it puts where they belong."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(known)
    ridge = RidgeClassifier(RIDGE).fit(scale.transform(known), classes)
    return np.asarray(ridge.predict(scale.transform(asked)) == expected)


def _neighbours(
    known: graphs.Vectors,
    classes: npt.NDArray[np.int64],
    asked: graphs.Vectors,
    expected: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """The same by the classes of the nearest *known* ones, by cosine."""
    near = np.argpartition(-(asked @ known.T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    votes = np.stack([(classes[near] == c).sum(axis=1) for c in range(classes.max() + 1)], axis=1)
    return np.asarray(votes.argmax(axis=1) == expected)


def _choosing() -> dict[str, float]:
    """Microseconds for the choice of half the patches of one image of 224 pixels, 14 x 14."""
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    found = {}
    for how in PATCHES:
        choose = functools.partial(patches.PatchChoice((14, 14), 98, how), image)
        samples = latency.interleave({how: choose}, 200, warm_up=5)
        found[how] = statistics.median(samples[how]) * 1e6
    return found


def _speed(
    built: Mapping[str, Path],
    targets: tuple[tuple[str, str], ...],
    sizes: Sizes,
    batches: tuple[int, ...],
) -> dict[str, Any]:
    """bundle -> batch -> setting -> round -> seconds of each call, the graph alone."""
    found: dict[str, Any] = {}
    for name in (f"{target} {precision}" for target, precision in targets):
        with ExitStack() as stack:
            opened = {
                key: stack.enter_context(edgessl.load(path, threads=graphs.THREADS))
                for key, path in built.items()
                if key.partition(",")[0] == name
            }
            found[name] = {}
            for batch in batches:
                report.say(f"timing {name}: {batch} images")
                found[name][str(batch)] = _timed(opened, name, batch, sizes)
    return found


def _timed(opened: Mapping[str, Session], name: str, batch: int, sizes: Sizes) -> dict[str, Any]:
    shape = opened[name].manifest.encoder.inputs[0].shape
    pixels = np.random.default_rng(1).normal(size=(batch, *map(int, shape[1:]))).astype(np.float32)
    jobs = {EVERY: _job(opened[name], pixels, None)}
    jobs |= {f"{keep:.0%}": _job(opened[name], pixels, keep) for keep in sizes.keep}
    jobs |= {
        key.partition(", ")[2]: _job(s, pixels, None) for key, s in opened.items() if "," in key
    }
    once = latency.interleave(jobs, 1)
    calls = max(1, min(20, round(0.1 / min(once[EVERY]))))
    flat = latency.interleave(jobs, sizes.rounds, calls, warm_up=0)
    return {
        key: np.reshape(samples, (sizes.rounds, calls)).tolist() for key, samples in flat.items()
    }


def _job(session: Session, pixels: npt.NDArray[np.float32], keep: float | None) -> Any:
    spec = session.manifest.encoder
    inputs = {spec.inputs[0].name: pixels}
    inputs = patches.complete(spec, inputs, patches.choice(spec, keep))
    return lambda: session.run(inputs)


def render(found: dict[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    costs = ", ".join(f"{how} {cost:.0f} µs" for how, cost in found["choosing"].items())
    parts = ["### vit-mae-cifar10: accuracy with fewer tokens", _accuracy_table(found["accuracy"])]
    for encoder, runs in found["speed"].items():
        title = f"### {encoder}: the graph alone, {found['threads']} threads, times the speed"
        parts += [title, _speed_table(runs)]
    return "\n\n".join([*parts, f"Choosing half of 14 x 14 patches, an image: {costs}."])


def _accuracy_table(rows: list[dict[str, Any]]) -> str:
    whole, lines = rows[0], []
    for row in rows:
        cells = [row["name"], f"{np.mean(row['cosine']):.4f}"]
        for key in ("probe", "knn"):
            change = (np.array(row[key], float) - np.array(whole[key], float)) * 100  # paired
            error = 1.96 * change.std() / len(change) ** 0.5
            shown = f"{change.mean():+.1f} ± {error:.1f}" if row is not whole else ""
            cells += [f"{np.mean(row[key]):.1%}", shown]
        lines.append([*cells, f"{np.mean(row['mixed']):.1%}"])
    head = ["", "cosine", "probe", "points", f"kNN {NEIGHBOURS}", "points", "kNN among every patch"]
    return tables.markdown(head, lines)


def _speed_table(runs: dict[str, Any]) -> str:
    columns = [(name, batch) for name, batches in runs.items() for batch in batches]
    rows = []
    for setting in runs[columns[0][0]][columns[0][1]]:
        cells = [setting]
        for name, batch in columns:
            timed = runs[name][batch]
            if setting == EVERY:
                middle = statistics.median(seconds for calls in timed[setting] for seconds in calls)
                cells.append(f"{middle * 1e3:.2f} ms")
                continue
            ratio, (low, high) = latency.ratio(timed[EVERY], timed[setting])
            cells.append(f"{ratio:.2f} ({low:.2f} to {high:.2f})")
        rows.append(cells)
    return tables.markdown(["", *(f"{name}, {batch} at once" for name, batch in columns)], rows)

"""Fewer heads and channels: speed against what is left of the vectors, beside uniform pruning by
magnitude and by chance; whether the promised speed comes true; what a linear probe still sees."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgessl import checkpoint_session, latency_table, parity, tables
from edgessl.encoder import Encoder
from edgessl.encoders import run, structures
from edgessl.encoders.shrink import shrink
from edgessl.pruning import Budget, prune
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from examples import data
from examples.figures import report, tasks
from examples.figures.patches import probe

CURVE = "pruning.svg"
_STEP = 32  # channels: what the search rounds to, too
Kept = Sequence[tuple[Sequence[int], Sequence[int]]]


@dataclass(frozen=True)
class Sizes:
    """Texts to fit to and to judge by; shares of the operations to try; (target, share of its
    latency) to promise; images to fit to, and to train and test the probe on; shares for them."""

    texts: int = 2000
    judged: int = 1000
    shares: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6, 0.5)
    promises: tuple[tuple[str, float], ...] = (
        ("openvino", 0.78),
        ("openvino", 0.65),
        ("onnx", 0.79),
        ("onnx", 0.66),
    )
    targets: tuple[str, ...] = ("openvino", "onnx")
    images: int = 2000
    train: int = 10_000
    test: int = 5000
    image_shares: tuple[float, ...] = (0.75, 0.65, 0.5)


QUICK = Sizes(60, 40, (0.6,), (), (), 60, 300, 100, ())


def measure(directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Prune below *directory* and measure; for JSON. The curve is drawn there, as ``CURVE``."""
    texts = tasks.texts(directory, sizes.judged, sizes.texts)
    corpus = directory / "texts.txt"
    corpus.write_text("\n".join(texts.calibration_items()) + "\n", encoding="utf-8")
    found = {
        "curve": _curve(texts.model, corpus, texts.items, directory, sizes),
        "promises": _promises(texts.model, corpus, texts.items, directory, sizes),
        "probe": _probe(directory, sizes),
    }
    if sizes.targets:
        draw(found["curve"], directory / CURVE)
    return found


def _curve(
    model: Path, corpus: Path, items: list[str], directory: Path, sizes: Sizes
) -> list[dict[str, Any]]:
    """A row for each way and share."""
    whole = load_encoder(Recipe(model=str(model)))
    vectors = checkpoint_session.embed(whole, items)
    most = run.compute(whole)["flops"]
    rows = []
    for share in sizes.shares:
        for way, make in _WAYS.items():
            report.say(f"{way}, {share:g} of the operations")
            started = time.perf_counter()
            small = make(whole, share, str(model), corpus, directory / f"curve-{share:g}")
            taken = time.perf_counter() - started
            speed = {name: latency_table.compare(whole, small, name, "") for name in sizes.targets}
            rows.append(
                {
                    "way": way,
                    "share": share,
                    "seconds": taken,
                    "flops": run.compute(small)["flops"] / most,
                    "latency": speed,
                    **_near(checkpoint_session.embed(small, items), vectors),
                }
            )
    return rows


def _near(vectors: Any, whole: Any) -> dict[str, Any]:
    return {
        "cosine": parity.cosine(vectors, whole).tolist(),
        "rank": parity.rank_correlation(vectors, whole),
    }


def _searched(whole: Encoder, share: float, model: str, corpus: Path, output: Path) -> Encoder:
    if not output.is_dir():
        prune(model, [str(corpus)], output, budget=Budget("flops", share))
    return load_encoder(Recipe(model=str(output)))


def _magnitude(whole: Encoder, share: float, *_: Any) -> Encoder:
    """In each layer alike, those heads and channels whose weights are largest: the norm of what
    reads the stream times that of what writes to it."""
    kept = []
    for layer in structures.of(whole):
        names = layer.names
        value, out = layer.linear(names.value).weight, layer.linear(names.out).weight
        heads = _norms(value, 0, layer.head_dim) * _norms(out, 1, layer.context)
        up, down = layer.linear(names.up[0]).weight, layer.linear(names.down).weight
        channels = _norms(up, 0, 1) * _norms(down, 1, 1)
        kept.append((heads.argsort()[::-1], channels.argsort()[::-1]))
    return _uniform(whole, share, kept)


def _chance(whole: Encoder, share: float, *_: Any) -> Encoder:
    rng = np.random.default_rng(0)
    layers = structures.of(whole)
    kept = [(rng.permutation(layer.heads), rng.permutation(layer.channels)) for layer in layers]
    return _uniform(whole, share, kept)


def _norms(weight: torch.Tensor, axis: int, size: int) -> Any:
    """Of groups of *size* rows (or columns)."""
    squares = weight.detach().pow(2).sum(1 - axis)
    return squares.view(-1, size).sum(1).sqrt().numpy()


def _uniform(whole: Encoder, share: float, orders: Sequence[tuple[Any, Any]]) -> Encoder:
    """The first ones of *orders*, as many of all in each layer, and no more operations in all than
    *share*."""
    most = run.compute(whole)["flops"]
    layers = structures.of(whole)
    steps = range(layers[0].channels // _STEP, 0, -1)
    for step in steps:
        heads = max(1, round(step / steps[0] * layers[0].heads))
        small = replace(whole, module=copy.deepcopy(whole.module))
        for layer, (head_order, channel_order) in zip(structures.of(small), orders, strict=True):
            shrink(layer, sorted(head_order[:heads]), sorted(channel_order[: step * _STEP]))
        if run.compute(small)["flops"] <= share * most:
            return small
    raise SystemExit(f"{share} of the operations cannot be reached")


_WAYS: dict[str, Callable[..., Encoder]] = {
    "edgessl": _searched,
    "magnitude": _magnitude,
    "chance": _chance,
}


def _promises(
    model: Path, corpus: Path, items: list[str], directory: Path, sizes: Sizes
) -> list[dict[str, Any]]:
    vectors = checkpoint_session.embed(load_encoder(Recipe(model=str(model))), items)
    rows = []
    for target, share in sizes.promises:
        report.say(f"{share:g} of the latency on {target}")
        output = directory / f"promised-{target}-{share:g}"
        started = time.perf_counter()
        found = prune(str(model), [str(corpus)], output, budget=Budget("latency", share, target))
        rows.append(
            {
                **asdict(replace(found, path="")),
                "target": target,
                "seconds": time.perf_counter() - started,
                **_near(
                    checkpoint_session.embed(load_encoder(Recipe(model=str(output))), items),
                    vectors,
                ),
            }
        )
    return rows


def _probe(directory: Path, sizes: Sizes) -> list[dict[str, Any]]:
    """The CIFAR-10 MAE: a row for the whole one, and for each share of its latency."""
    known, asked = data.cifar10("train", sizes.train), data.cifar10("test", sizes.test)
    classes = data.cifar10_labels("train", sizes.train)
    expected = data.cifar10_labels("test", sizes.test)
    images = directory / "images.npy"
    np.save(images, data.cifar10("train", sizes.images))
    rows: list[dict[str, Any]] = []
    whole = load_encoder(Recipe(model=str(tasks.MAE)))
    for share in (1.0, *sizes.image_shares):
        report.say(f"vectors of {sizes.train + sizes.test} images: {share:g} of the latency")
        encoder, found = whole, None
        if share < 1:
            output = directory / f"mae-{share:g}"
            budget = Budget("latency", share, "openvino", "8")
            found = prune(str(tasks.MAE), [str(images)], output, budget=budget)
            encoder = load_encoder(Recipe(model=str(output)))
        some, others = (checkpoint_session.embed(encoder, list(part)) for part in (known, asked))
        rows.append(
            {
                "share": share,
                "right": probe(some, classes, others, expected).tolist(),
                "pruned": asdict(replace(found, path="")) if found else None,
            }
        )
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Speed against mean cosine, a line a way, a panel a target; as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "edgessl"
    targets = list(rows[0]["latency"])
    figure, axes = plt.subplots(1, len(targets), figsize=(4.6 * len(targets), 3.6), sharey=True)
    for axis, target in zip(np.atleast_1d(axes), targets, strict=True):
        for way in dict.fromkeys(row["way"] for row in rows):
            mine = [row for row in rows if row["way"] == way]
            speeds = [1.0, *(1 / row["latency"][target][0] for row in mine)]
            cosines = [1.0, *(float(np.mean(row["cosine"])) for row in mine)]
            axis.plot(speeds, cosines, marker="o", markersize=4, label=way)
        axis.set_title(f"all-MiniLM-L6-v2, {target}, 1x32")
        axis.set_xlabel("times the speed of the whole encoder")
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("mean cosine to its vectors")
    np.atleast_1d(axes)[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def render(found: dict[str, Any]) -> str:
    """The tables of what ``measure`` returned."""
    parts = ["### Pruned without training: speed and fidelity", _curve_table(found["curve"])]
    parts += ["### Promised and measured", _promise_table(found["promises"])]
    return "\n\n".join([*parts, "### vit-mae-cifar10, pruned", _probe_table(found["probe"])])


def _speed(latency: Any) -> str:
    middle, (low, high) = latency
    return f"{1 / middle:.2f} ({1 / high:.2f} to {1 / low:.2f})"


def _fidelity(row: dict[str, Any]) -> list[str]:
    cosine = row["cosine"]
    return [f"{np.mean(cosine):.4f}", f"{np.quantile(cosine, 0.01):.4f}", f"{row['rank']:.4f}"]


def _curve_table(rows: Sequence[dict[str, Any]]) -> str:
    targets = list(rows[0]["latency"])
    head = ["", "operations", *targets, "cosine mean", "1st percentile", "rank correlation"]
    lines = [
        [
            row["way"],
            f"{row['flops']:.2f}",
            *(_speed(row["latency"][target]) for target in targets),
            *_fidelity(row),
        ]
        for row in rows
    ]
    return tables.markdown(head, lines)


def _promise_table(rows: Sequence[dict[str, Any]]) -> str:
    head = ["", "promised", "measured", "cosine mean", "1st percentile", "rank correlation"]
    lines = [
        [
            row["budget"],
            f"{1 / row['promised']:.2f}",
            _speed((row["measured"], row["measured_interval"])),
            *_fidelity(row),
            f"{row['seconds']:.0f} s",
        ]
        for row in rows
    ]
    return tables.markdown([*head, "taken"], lines)


def _probe_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    whole = np.array(rows[0]["right"], float)
    for row in rows:
        right, pruned = np.array(row["right"], float), row["pruned"]
        if pruned is None:
            lines.append(["whole", "", "", f"{right.mean():.1%}", ""])
            continue
        change = (right - whole) * 100  # paired
        error = 1.96 * change.std() / len(change) ** 0.5
        lines.append(
            [
                pruned["budget"],
                f"{1 - pruned['bytes_after'] / pruned['bytes_before']:.0%} less",
                _speed((pruned["measured"], pruned["measured_interval"])),
                f"{right.mean():.1%}",
                f"{change.mean():+.1f} ± {error:.1f}",
            ]
        )
    return tables.markdown(["", "size", "speed", "linear probe", "points"], lines)

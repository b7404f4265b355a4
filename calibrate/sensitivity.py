"""Which operators lose what in int8, seen in the final vector; and what to keep in float.

Each operator alone is put into int8, the rest stays in float, and the encoder's vectors are
compared with those of the float graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Report, silent
from edgessl.calibrate import placement, saturation
from edgessl.calibrate.observe import Data, open_session, run
from edgessl.calibrate.placement import Plan
from edgessl.errors import RecipeError, Unsupported, nearest
from edgessl.parity import cosine

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[Any]

ITEMS = {"text": 64, "image": 24, "audio": 8, "video": 4}  # that are compared
EMULATED = {"text": 16, "image": 4, "audio": 1, "video": 1}


@dataclass(frozen=True)
class Effect:
    """Of one operator in int8, or of all of a block: on its own output (``snr_db``, None for a
    block), and on the final vectors (mean and lowest cosine to those of the float graph)."""

    layer: str
    nodes: tuple[str, ...]
    snr_db: float | None
    cosine_mean: float
    cosine_min: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Limit:
    """The most that may be lost of a metric: ``METRICS[metric]`` of the float graph is 1."""

    metric: str
    drop: float

    @staticmethod
    def parse(text: str) -> Limit:
        """``"cosine=0.005"``.

        Raises:
            RecipeError: anything else.
        """
        metric, _, number = text.partition("=")
        if metric not in METRICS:
            raise RecipeError(
                f"--max-drop {text!r}: unknown metric {metric!r}.{nearest(metric, METRICS)} "
                f"Metrics: {', '.join(METRICS)}; as in --max-drop cosine=0.005."
            )
        try:
            drop = float(number)
        except ValueError:
            drop = -1.0
        if not 0 < drop < 1:
            raise RecipeError(
                f"--max-drop {text!r}: the drop should be a number between 0 and 1, as in "
                f"--max-drop {metric}=0.005."
            )
        return Limit(metric, drop)


def _top1(reference: Floats, vectors: Floats) -> float:
    """Share of the items whose nearest other item is the same."""
    found = []
    for rows in (reference, vectors):
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        near = unit @ unit.T
        np.fill_diagonal(near, -np.inf)
        found.append(near.argmax(axis=1))
    return float((found[0] == found[1]).mean())


METRICS: dict[str, Callable[[Floats, Floats], float]] = {
    "cosine": lambda reference, vectors: float(cosine(reference, vectors).mean()),
    "cosine-p1": lambda reference, vectors: float(np.quantile(cosine(reference, vectors), 0.01)),
    "cosine-min": lambda reference, vectors: float(cosine(reference, vectors).min()),
    "top1": _top1,
}


class Trial:
    """Runs a graph with some operators in int8 over a few items, and compares the vectors."""

    def __init__(self, model: onnx.ModelProto, plan: Plan, data: Data) -> None:
        vector = data.spec.vector
        if vector is None:
            raise Unsupported(
                "this encoder puts out no vector (pooling none), so nothing tells what int8 loses."
            )
        self._model, self._plan, self._vector = model, plan, vector
        self._feeds = data.feeds(ITEMS[data.spec.task])
        self.reference = self._run(model)

    def vectors(self, nodes: Collection[str]) -> Floats:
        """The vectors with *nodes* in int8."""
        import onnx

        copied = onnx.ModelProto()
        copied.CopyFrom(self._model)
        placement.place(copied, self._plan, nodes)
        return self._run(copied)

    def compare(self, nodes: Collection[str]) -> dict[str, float]:
        """``cosine_mean`` and ``cosine_min`` of the vectors with *nodes* in int8."""
        near = cosine(self.reference, self.vectors(nodes))
        return {"cosine_mean": float(near.mean()), "cosine_min": float(near.min())}

    def _run(self, model: onnx.ModelProto) -> Floats:
        session = open_session(model, [])
        return np.concatenate([run(session, [self._vector], feed)[0] for feed in self._feeds])


class Emulation:
    """What a processor whose int8 sums saturate would make of a graph: over fewer items still."""

    def __init__(self, model: onnx.ModelProto, data: Data) -> None:
        self._vector = data.spec.vector or data.spec.outputs[0].name
        self._feeds = data.feeds(EMULATED[data.spec.task])
        session = open_session(model, [])
        self._reference = [run(session, [self._vector], feed)[0] for feed in self._feeds]

    def compare(self, quantized: onnx.ModelProto, target: str) -> dict[str, float]:
        """``cosine_mean`` and ``cosine_min`` to the float graph, by *target*'s kernels."""
        outputs = saturation.emulate(quantized, self._feeds, target)
        found = [
            cosine(
                left.reshape(-1, left.shape[-1]), right[self._vector].reshape(-1, left.shape[-1])
            )
            for left, right in zip(self._reference, outputs, strict=True)
        ]
        near = np.concatenate(found)
        return {"cosine_mean": float(near.mean()), "cosine_min": float(near.min())}


def rank(
    model: onnx.ModelProto, plan: Plan, data: Data, report: Report = silent
) -> tuple[list[Effect], list[Effect]]:
    """Effects of single operators and of whole blocks, the worst first."""
    trial = Trial(model, plan, data)
    singles = [((o.node,), o.layer, plan.snr.get(o.node)) for o in plan.operators]
    blocks: dict[str, list[str]] = {}
    for operator in plan.operators:
        blocks.setdefault(block(operator.layer), []).append(operator.node)
    several = [(tuple(nodes), name, None) for name, nodes in blocks.items() if len(nodes) > 1]
    found = []
    for number, (nodes, layer, snr) in enumerate([*singles, *several], 1):
        report(f"measuring sensitivity {number}/{len(singles) + len(several)}")
        found.append(Effect(layer, nodes, snr, **trial.compare(nodes)))
    parts = found[: len(singles)], found[len(singles) :]
    operators, wholes = (sorted(part, key=lambda effect: effect.cosine_mean) for part in parts)
    return operators, wholes


def block(layer: str) -> str:
    """``encoder.layer.3`` of ``encoder.layer.3.output.dense``: up to the first number."""
    parts = layer.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return layer if number is None else ".".join(parts[: number + 1])


def within(
    model: onnx.ModelProto, plan: Plan, data: Data, limit: Limit, report: Report = silent
) -> tuple[set[str], dict[str, Any]]:
    """The operators that may be int8 so that no more than *limit* is lost, and the trade.

    The most sensitive ones stay in float: as few as will do, found by halving.

    Raises:
        Unsupported: even one operator in int8 loses more.
    """
    trial = Trial(model, plan, data)
    metric = METRICS[limit.metric]
    nodes = [operator.node for operator in plan.operators]
    before = metric(trial.reference, trial.vectors(nodes))
    if 1 - before <= limit.drop:
        report(f"{limit.metric} {before:.5f}: nothing has to stay in float")
        return set(nodes), {"trade": _trade(limit, before, before, [])}
    ranked = [effect.nodes[0] for effect in rank(model, plan, data, report)[0]]
    low, high, after = 0, len(ranked), 1.0  # kept: too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        reached = metric(trial.reference, trial.vectors(ranked[middle:]))
        report(f"{middle} of {len(ranked)} operators in float: {limit.metric} {reached:.5f}")
        if 1 - reached <= limit.drop:
            high, after = middle, reached
        else:
            low = middle
    if high == len(ranked):
        raise Unsupported(
            f"--max-drop {limit.metric}={limit.drop:g}: even the least sensitive operator alone in "
            "int8 loses more. Allow more, or use --precision fp16."
        )
    kept = [o.layer for o in plan.operators if o.node in ranked[:high]]
    return set(ranked[high:]), {"trade": _trade(limit, before, after, kept)}


def _trade(limit: Limit, before: float, after: float, kept: Sequence[str]) -> dict[str, Any]:
    return {
        "metric": limit.metric,
        "max_drop": limit.drop,
        "all_int8": before,
        "reached": after,
        "kept_in_float": list(kept),
    }

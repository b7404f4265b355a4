"""How each activation tensor becomes int8: smoothing, shift, and a range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgessl import two_four
from edgessl.calibrate import ranges, smoothing, splitting
from edgessl.calibrate.observe import Observed
from edgessl.calibrate.operators import Graph, Operator
from edgessl.calibrate.ranges import Range

Floats = npt.NDArray[np.float32]

AUTO = "auto"
METHODS = (AUTO, *ranges.METHODS)
# Smoothing and shifting cost an elementwise operator each: they have to be worth it.
_WORTH_SMOOTHING, _WORTH_SHIFT = 0.9, 0.85
_WORTH_SPLITTING = 0.8
# Clipping must not pay with single tokens: a few, such as [SEP], are large, and every other token
# attends to them.
_WORST_ROW = 1.1
_CLIPS = (0.85, 0.7)


@dataclass(frozen=True)
class Quantizer:
    """int8 codes of a tensor: ``clip(round((x / smooth - shift) / scale) + zero_point)``.

    ``smooth`` and ``shift`` are ``(K,)`` float32 or None. uint8 codes, or int8 with zero point 0
    where ``signed``. ``method`` gave the range.
    """

    scale: float
    zero_point: int
    signed: bool
    smooth: Floats | None = None
    shift: Floats | None = None
    method: str = ""

    def apply(self, rows: Floats) -> Floats:
        """*rows* ``(n, K)`` to codes and back to floats."""
        inside = self.inside(rows)
        if self.shift is not None:
            inside = inside + self.shift
        return inside if self.smooth is None else inside * self.smooth

    def inside(self, rows: Floats) -> Floats:
        """What the integer product sees: smoothed, shifted and rounded."""
        low, high = (-127, 127) if self.signed else (-self.zero_point, 255 - self.zero_point)
        rows = smoothed(rows, self.smooth, self.shift)
        rounded: Floats = np.clip(np.rint(rows / self.scale), low, high) * np.float32(self.scale)
        return rounded.astype(np.float32)


def smoothed(rows: Floats, smooth: Floats | None, shift: Floats | None) -> Floats:
    """``rows / smooth - shift``."""
    if smooth is not None:
        rows = rows / smooth
    return rows if shift is None else rows - shift


def quantizer(
    bounds: Range, signed: bool, smooth: Floats | None, shift: Floats | None, method: str
) -> Quantizer:
    """Codes for the values between *bounds*, 0 exactly among them."""
    low, high = bounds
    scale = max(high, -low) / 127 if signed else (high - low) / 255
    scale = max(float(scale), 1e-8)  # a tensor that is always 0
    zero = 0 if signed else min(max(round(-low / scale), 0), 255)
    return Quantizer(scale, zero, signed, smooth, shift, method)


def choose(
    graph: Graph,
    group: Sequence[Operator],
    seen: dict[str, Observed],
    *,
    signed: bool,
    method: str = AUTO,
) -> dict[str, Quantizer]:
    """A quantizer for each activation tensor that the operators of *group* read.

    Where a tensor's largest channels are split, *graph* and *seen* take that up.

    Args:
        method: one of ``ranges.METHODS``, or ``"auto"``: for each tensor the one with which the
            operators that read it err least, behind the layer normalisation where one follows:
            that hides some errors and magnifies others.
    """
    tensors = list(dict.fromkeys(operator.activations for operator in group))
    if any(operator.kind == "Conv" for operator in group):
        return {name: _plain(seen[name], signed, method) for name in tensors}
    readers = {name: [o for o in group if o.activations == name] for name in tensors}
    tasks = {name: _Task(graph, readers[name], seen) for name in tensors}
    smooth, shift = _smoothing(graph, tasks, signed)
    chosen = {name: _best(task, signed, method, smooth, shift) for name, task in tasks.items()}
    if len(tensors) == 1 and method in (AUTO, "minmax"):
        (name,) = tensors
        split = _split(graph, readers[name], seen, tasks[name], chosen[name])
        if split is not None:
            return {name: split}
    return chosen


def _best(
    task: _Task, signed: bool, method: str, smooth: Floats | None, shift: Floats | None
) -> Quantizer:
    """Of the ranges that *method* allows the one with which the operators err least."""
    found = [
        quantizer(bounds, signed, smooth, shift, key)
        for key, bounds in _candidates(task.seen, method, smooth, shift).items()
    ]
    if len(found) == 1:
        return found[0]
    errors = [task.error(one) for one in found]
    safe = errors[0][1] * _WORST_ROW  # minmax is the first
    able = [(whole, at) for at, (whole, worst) in enumerate(errors) if worst <= safe]
    return found[min(able, default=(0.0, 0))[1]]


def _plain(seen: Observed, signed: bool, method: str) -> Quantizer:
    """Of a convolution's input: no smoothing, and the range by the tensor's own error."""
    found = [
        quantizer(bounds, signed, None, None, key)
        for key, bounds in _candidates(seen, method, None, None).items()
    ]
    return min(found, key=lambda one: float(np.square(one.apply(seen.rows) - seen.rows).mean()))


def _split(
    graph: Graph,
    operators: Sequence[Operator],
    seen: dict[str, Observed],
    task: _Task,
    plain: Quantizer,
) -> Quantizer | None:
    """The quantizer of the tensor with its largest channels split, where that errs clearly less
    than *plain*: the graph and the statistics are then those of the split tensor."""
    name, signed = operators[0].activations, plain.signed
    split = splitting.propose(graph, name, seen[name])
    if split is None or split.producer.output not in seen:
        return None
    if signed and any(two_four.holds(graph.weight(operator)) for operator in operators):
        return None  # rows that are copied have no pattern that TensorRT could use
    function = splitting.activation(graph, name, split)
    if not splitting.holds(split, function):
        return None
    wide = splitting.widen(seen[name], seen[split.producer.output].rows, split, function)
    graph.splits[name] = split
    within = _Task(graph, operators, {**seen, name: wide})
    middle: Floats | None = ((wide.low + wide.high) / 2).astype(np.float32) if signed else None
    centre = np.float32(0) if middle is None else middle
    smooth, _, _ = smoothing.factors(
        within.columns, wide.low - centre, wide.high - centre, _power(wide.rows - centre), signed
    )
    smooth = splitting.fit(split, smooth, wide.low, wide.high, signed, middle)
    shift = None if middle is None else middle / smooth
    ends = np.stack([smoothed(end, smooth, shift) for end in (wide.low, wide.high)])
    one = quantizer(ranges.minmax(ends), signed, smooth, shift, "minmax, split")
    # Against the whole tensor: what the copies' sum is off counts, too.
    exact = task.seen.rows @ task.weights
    error, _ = task.judge(one.apply(wide.rows) @ within.weights - exact)
    if error > _WORTH_SPLITTING * task.error(plain)[0]:
        del graph.splits[name]
        return None
    seen[name] = wide
    return one


def _smoothing(
    graph: Graph, tasks: Mapping[str, _Task], signed: bool
) -> tuple[Floats | None, Floats | None]:
    """What all tensors of a group are divided by and moved by, since they share weights."""
    seen = [task.seen for task in tasks.values()]
    low = np.min([one.low for one in seen], axis=0)
    high = np.max([one.high for one in seen], axis=0)
    rows = np.concatenate([one.rows for one in seen])
    weights = np.concatenate([task.columns for task in tasks.values()], axis=1)
    smooth, error, plain = smoothing.factors(weights, low, high, _power(rows), signed)
    kept: Floats | None = smooth
    if error > _WORTH_SMOOTHING * plain:
        kept, error = None, plain
    # Moving costs more where it cannot be part of a normalisation, but symmetric codes need it.
    if len(tasks) == 1 and (signed or _normalized(graph, next(iter(tasks)))):
        middle: Floats = (low + high) / 2
        moved, after, _ = smoothing.factors(
            weights, low - middle, high - middle, _power(rows - middle), signed
        )
        if after < _WORTH_SHIFT * error:
            return moved, middle / moved
    return kept, None


def _power(rows: Floats) -> Floats:
    power: Floats = np.square(rows).mean(axis=0)
    return power


def _normalized(graph: Graph, name: str) -> bool:
    maker = graph.maker.get(name)
    return maker is not None and maker.op_type == "LayerNormalization"


class _Task:
    """The operators that read one tensor, with a sample of it, and how wrong an error is."""

    def __init__(
        self, graph: Graph, operators: Sequence[Operator], seen: Mapping[str, Observed]
    ) -> None:
        self.seen = seen[operators[0].activations]
        self.parts = [_Part.of(graph, o, self.seen.rows, seen) for o in operators]
        self.weights = np.concatenate([graph.weight(o) for o in operators], axis=1)
        # How much an error in each column matters is in the columns' size.
        self.columns = np.concatenate([part.columns for part in self.parts], axis=1)

    def error(self, one: Quantizer) -> tuple[float, float]:
        """Relative error of the operators' outputs, their means being corrected in the biases:
        of all rows, and of the worst row."""
        return self.judge((one.apply(self.seen.rows) - self.seen.rows) @ self.weights)

    def judge(self, product: Floats) -> tuple[float, float]:
        """``error`` of outputs that are off by *product* ``(n, N)``."""
        product = product - product.mean(axis=0)
        widths = np.cumsum([part.columns.shape[1] for part in self.parts])[:-1]
        pieces = np.split(product, widths, axis=1)
        errors = [part.error(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        return sum(whole for whole, _ in errors), max(worst for _, worst in errors)


@dataclass(frozen=True)
class _Part:
    """One operator: its weights by how much they matter, and the normalisation behind it."""

    columns: Floats  # (K, N)
    power: float
    sums: Floats | None = None  # what the normalisation reads, (n, N)
    gamma: Floats | None = None

    @staticmethod
    def of(graph: Graph, operator: Operator, rows: Floats, seen: Mapping[str, Observed]) -> _Part:
        weights = graph.weight(operator)
        output = rows @ weights
        behind = graph.normalization_behind(operator)
        gamma = None if behind is None else graph.array(behind.input[1])
        size = np.abs(gamma) if gamma is not None and gamma.shape == output.shape[1:] else None
        scaled = output if size is None else output * size
        power = max(float(scaled.var(axis=0).mean()), 1e-30)
        columns = (weights if size is None else weights * size) / np.float32(np.sqrt(power))
        plain = _Part(columns, power)
        if behind is None or size is None or behind.input[0] not in seen:
            return plain
        sums = seen[behind.input[0]].rows
        if sums.shape != output.shape:
            return plain
        power = max(float(np.square(_normalize(sums) * size).mean()), 1e-30)
        return replace(plain, power=power, sums=sums, gamma=size)

    def error(self, product: Floats) -> tuple[float, float]:
        """Of all rows, and of the worst of them."""
        if self.sums is not None and self.gamma is not None:
            product = (_normalize(self.sums + product) - _normalize(self.sums)) * self.gamma
        rows = np.square(product).mean(axis=1) / self.power
        return float(rows.mean()), float(rows.max())


def _normalize(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    normal: Floats = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-12)
    return normal


def _candidates(
    seen: Observed, method: str, smooth: Floats | None, shift: Floats | None
) -> dict[str, Range]:
    """Ranges by name, minmax first. That has all rows behind it, the others the sample."""
    values = smoothed(seen.rows, smooth, shift)
    ends = np.stack([smoothed(end, smooth, shift) for end in (seen.low, seen.high)])
    if method != AUTO:
        return {method: ranges.METHODS[method](ends if method == "minmax" else values)}
    low, high = ranges.minmax(ends)
    found = {"minmax": (low, high)}
    found |= {f"{share:.0%} of minmax": (low * share, high * share) for share in _CLIPS}
    others = [name for name in ranges.METHODS if name != "minmax"]
    return found | {name: ranges.METHODS[name](values) for name in others}

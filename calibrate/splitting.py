"""Channels that are now and then far larger than all others, split into several.

Behind GELU and its like a few channels of a few tokens ([SEP], full stops) are ten times what the
rest are. They set the scale for all. Yet beyond a few units such an activation is the identity,
and far below 0 it is 0, so

    act(u) = clip(act(u), c) + clip(act(u - c), c) + ... + act(u - nc)

where the clipping is what the int8 codes do by themselves at the end of their range. The copies are
columns of the operator before (with a smaller bias) and rows of the one behind: no operator more,
one percent more arithmetic, and a range several times smaller. For ReLU the sum is exact; for GELU
it lies up to 0.2 below where u is within 3 of a multiple of c, which only the large values are.
After outlier channel splitting (Zhao et al., ICML 2019), which halves values and needs a copy of
the activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.calibrate.observe import Observed, open_session, run
from edgessl.calibrate.operators import Graph, Operator

Floats = npt.NDArray[np.float32]

COPIES = 16  # kernels like multiples of it
_SMALLEST_CAP = 3.0  # from here on GELU is the identity, and below its negative 0, within 0.005
_TOLERANCE = 0.1  # of the cap: what the copies' sum may be off, which of GELU is 0.07
_ELEMENTWISE = frozenset("Mul Add Sub Div Erf Tanh Relu Gelu Sigmoid Pow".split())


@dataclass(frozen=True)
class Split:
    """``copies`` ``(COPIES,)``: the channel that each one copies; ``offsets``: what is taken from
    its pre-activation; ``caps`` ``(K + COPIES,)``: where each is clipped (infinity: not at all).
    ``mean`` ``(K + COPIES,)``: of the channels themselves, the copies being 0."""

    producer: Operator
    copies: npt.NDArray[np.int64]
    offsets: Floats
    caps: Floats
    mean: npt.NDArray[np.float64]
    path: frozenset[str]  # tensors from the producer's product to the activation, which widen

    def rows(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The consumer's weights ``(K, N)`` with a row for each copy."""
        return np.concatenate([weights, weights[self.copies]])

    def columns(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The producer's weights ``(K, N)``, scales or the like with a column for each copy."""
        return np.concatenate([weights, weights[..., self.copies]], axis=-1)

    def bias(self, values: Floats) -> Floats:
        """The producer's bias ``(N,)`` with the copies'."""
        return np.concatenate([values, values[self.copies] - self.offsets]).astype(np.float32)


def activation_path(graph: Graph, name: str) -> tuple[Operator, frozenset[str]] | None:
    """The operator of which tensor *name* is an elementwise function, and the tensors between."""
    makers = {
        operator.output: operator for operator in graph.operators if operator.kind == "MatMul"
    }
    inside, waiting, found = {name}, [name], set()
    while waiting:
        node = graph.maker.get(waiting.pop())
        if node is None or node.op_type not in _ELEMENTWISE:
            return None
        for value in node.input:
            if value in makers:
                found.add(value)
                continue
            constant = graph.array(value)
            if constant is not None and constant.size != 1:
                return None
            if constant is None and value not in inside:
                inside.add(value)
                waiting.append(value)
        if len(inside) > 12:
            return None
    if len(found) != 1:
        return None
    (output,) = found
    producer = makers[output]
    product = graph.nodes[producer.node].output[0]
    for value in {output, *inside} - {name}:
        if value in graph.outputs or any(r.output[0] not in inside for r in graph.readers[value]):
            return None
    return producer, frozenset({product, output, *inside})


def propose(graph: Graph, name: str, seen: Observed) -> Split | None:
    """A split of the largest channels of tensor *name*, or None where there is nothing to split."""
    found = activation_path(graph, name)
    consumers = [operator for operator in graph.operators if operator.activations == name]
    alone = len(consumers) == len(graph.readers[name]) == 1
    if found is None or name in graph.outputs or not alone:
        return None
    producer, path = found
    shared = graph.shared()
    plain = [producer, *consumers]
    if producer.bias is None or any(o.kind != "MatMul" or shared[o.weight] > 1 for o in plain):
        return None
    parts = np.ones(len(seen.high), np.int64)
    for _ in range(COPIES):
        widths = np.where(seen.high / (parts + 1) >= _SMALLEST_CAP, seen.high / parts, 0)
        largest = int(widths.argmax())
        if widths[largest] == 0:
            break
        parts[largest] += 1
    spare = COPIES - int((parts - 1).sum())
    if spare == COPIES:
        return None
    widths = (seen.high / parts).astype(np.float32)
    # Copies that are left over lie beyond the largest value seen: another text may go there.
    parts[int(np.where(parts > 1, seen.high, 0).argmax())] += spare
    copies = np.repeat(np.arange(len(parts)), parts - 1)
    number = np.concatenate([np.arange(1, n) for n in parts if n > 1])
    caps = np.where(parts > 1, widths, np.inf)
    return Split(
        producer,
        copies,
        (number * widths[copies]).astype(np.float32),
        np.concatenate([caps, widths[copies]]).astype(np.float32),
        np.append(seen.rows.mean(axis=0, dtype=np.float64), np.zeros(COPIES)),
        path,
    )


def widen(
    seen: Observed, before: Floats, split: Split, activation: Callable[[Floats], Floats]
) -> Observed:
    """Statistics of the split tensor; *before* are rows ``(n, K)`` ahead of the activation."""
    copied = activation(before[:, split.copies] - split.offsets)
    rows = np.minimum(np.concatenate([seen.rows, copied], axis=1), split.caps)
    high = np.minimum(np.concatenate([seen.high, copied.max(axis=0)]), split.caps)
    low = np.concatenate([seen.low, np.minimum(copied.min(axis=0), seen.low[split.copies])])
    wide = replace(seen, rows=rows, high=high.astype(np.float32), low=low.astype(np.float32))
    if seen.gram is not None and seen.total is not None:
        # Of the channels that changed the sample has to do, and they are taken as uncorrelated
        # with the others: from two sources the whole need not be positive definite.
        several = seen.counted / len(rows)
        gram = (rows.astype(np.float64).T @ rows) * several
        total = rows.sum(axis=0, dtype=np.float64) * several
        same = np.flatnonzero(np.isinf(split.caps))
        other = np.flatnonzero(np.isfinite(split.caps))
        total[same] = seen.total[same]
        gram[np.ix_(same, same)] = seen.gram[np.ix_(same, same)]
        gram[np.ix_(same, other)] = np.outer(total[same], total[other]) / seen.counted
        gram[np.ix_(other, same)] = gram[np.ix_(same, other)].T
        wide = replace(wide, gram=gram, total=total)
    return wide


def activation(graph: Graph, name: str, split: Split) -> Callable[[Floats], Floats]:
    """The function between the producer's output and tensor *name*, run by onnxruntime."""
    import onnx

    value = split.producer.output
    nodes = [
        n
        for n in graph.model.graph.node
        if set(n.output) & split.path - {value}
        and n.name not in (split.producer.node, split.producer.adder)
    ]
    constants = {i for n in nodes for i in n.input if graph.array(i) is not None}
    helper = onnx.helper
    piece = helper.make_graph(
        nodes,
        "activation",
        [helper.make_tensor_value_info(value, 1, ["n", "k"])],
        [helper.make_tensor_value_info(name, 1, None)],
        [t for t in graph.model.graph.initializer if t.name in constants],
    )
    model = helper.make_model(
        piece, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version
    )
    session = open_session(model, [name])

    def apply(rows: Floats) -> Floats:
        result: Floats = run(session, [name], {value: rows})[0]
        return result

    return apply


def holds(split: Split, function: Callable[[Floats], Floats]) -> bool:
    """Whether the clipped copies add up to *function*: not every elementwise one is as GELU is."""
    for channel in np.unique(split.copies):
        cap = split.caps[channel]
        offsets = np.append(np.float32(0), split.offsets[split.copies == channel])
        reach = np.float32(len(offsets)) * cap
        whole = np.linspace(-reach, reach, 128 * len(offsets), dtype=np.float32)[:, None]
        copies = np.minimum(function(whole - offsets), cap)
        error = np.abs(copies.sum(axis=1) - function(whole)[:, 0]).max()
        if not error <= _TOLERANCE * cap:
            return False
    return True


def fit(
    split: Split, smooth: Floats, low: Floats, high: Floats, signed: bool, middle: Floats | None
) -> Floats:
    """*smooth* with the capped channels' factors such that their caps are the end of the codes."""
    centre = np.float32(0) if middle is None else middle
    ends = (high - centre) / smooth
    top = float(ends.max())
    if signed:
        top = max(top, float(((centre - low) / smooth).max()))
    fitted: Floats = np.where(np.isinf(split.caps), smooth, (split.caps - centre) / top)
    return fitted.astype(np.float32)

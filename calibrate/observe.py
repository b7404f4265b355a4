"""What activations look like: one pass over the calibration data, in memory that does not grow.

Padding enters nothing. A row is one token, patch or pixel with all its channels.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays
from edgessl.errors import Unsupported, first_line, require
from edgessl.spec import EncoderSpec

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]

ROWS = 512  # that are kept of each tensor: a uniform sample, the same rows of all tensors
GRAM_ROWS = 8192  # that enter the products of channels
BATCH_BYTES = 192 << 20  # of activations at once
_BATCH_ITEMS = {"text": 32, "image": 16, "audio": 1, "video": 1}
_SAVE_EVERY = 10.0  # seconds
_DIGEST = 32  # bytes of SHA-256, behind what is saved


@dataclass
class Observed:
    """One tensor's statistics, by channel (K of them).

    ``low``, ``high``: over all rows. ``rows``: ``(<= ROWS, K)``. ``gram``: ``(K, K)`` float64 sum
    of ``x.T @ x`` and ``total`` ``(K,)`` sum over ``counted`` rows, where asked for.
    """

    low: Floats
    high: Floats
    rows: Floats
    keys: npt.NDArray[np.float64]  # of the sample: the smallest of all rows' random numbers
    gram: npt.NDArray[np.float64] | None = None
    total: npt.NDArray[np.float64] | None = None
    counted: int = 0


@dataclass
class Statistics:
    """Of all tensors, after ``batches`` of the data."""

    tensors: dict[str, Observed] = field(default_factory=dict)
    batches: int = 0

    def save(self, path: Path, key: str) -> None:
        """Write *path* whole or not at all."""
        arrays: dict[str, Any] = {"key": np.array(key), "batches": np.array(self.batches)}
        for number, (name, seen) in enumerate(self.tensors.items()):
            arrays[f"{number}/name"] = np.array(name)
            for part, value in vars(seen).items():
                if value is not None:
                    arrays[f"{number}/{part}"] = np.asarray(value)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("w+b") as stream:
            np.savez(stream, **arrays)
            stream.write(_sha256(stream, stream.tell()))
        fresh.replace(path)

    @staticmethod
    def resume(path: Path, key: str) -> Statistics:
        """What ``save`` wrote for the same *key*, or nothing yet."""
        try:
            stream = path.open("rb")
        except OSError:
            return Statistics()
        parts: dict[str, dict[str, Any]] = {}
        with stream:
            size = stream.seek(0, os.SEEK_END) - _DIGEST
            if size < 0 or _sha256(stream, size) != stream.read():
                return Statistics()  # damaged: begin again
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                if str(arrays["key"]) != key:
                    return Statistics()
                for entry in arrays.files:
                    if "/" in entry:
                        number, _, part = entry.partition("/")
                        parts.setdefault(number, {})[part] = arrays[entry]
                done = int(arrays["batches"])
        found = Statistics(batches=done)
        for values in parts.values():
            name = str(values.pop("name"))
            values["counted"] = int(values["counted"])
            found.tensors[name] = Observed(**values)
        return found


def _sha256(stream: BinaryIO, size: int) -> bytes:
    """Of the first *size* bytes; leaves the stream behind them."""
    digest = hashlib.sha256()
    stream.seek(0)
    while size:
        part = stream.read(min(size, 1 << 20))
        digest.update(part)
        size -= len(part)
    return digest.digest()


@dataclass(frozen=True)
class Data:
    """Calibration items and how they become a graph's inputs."""

    items: Sequence[Any]
    prepare: Callable[[list[Any]], Arrays]
    spec: EncoderSpec

    def batches(self, size: int) -> list[list[Any]]:
        """The items, texts from long to short, in batches of *size*."""
        items = list(self.items)
        if self.spec.task == "text":
            items.sort(key=len, reverse=True)
        return [items[i : i + size] for i in range(0, len(items), size)]

    def feeds(self, limit: int) -> list[Arrays]:
        """Inputs of at most *limit* of the items, evenly drawn, in small batches."""
        step = max(1, len(self.items) // limit)
        some = Data(list(self.items)[::step][:limit], self.prepare, self.spec)
        return [self.prepare(batch) for batch in some.batches(_BATCH_ITEMS[self.spec.task])]


def observe(
    model: onnx.ModelProto,
    data: Data,
    tensors: Mapping[str, str],
    *,
    layers: dict[str, str],
    resume: tuple[Path, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Statistics:
    """Run *model* over *data* and gather statistics of *tensors*.

    Args:
        tensors: name -> ``"rows"``; ``"gram"`` for the products of its channels besides; or
            ``"planes"`` where the channels come second: the input of a convolution.
        layers: names for messages.
        resume: a file to save to and to go on from, and what it must have been made from; the
            caller's to remove.
        progress: takes items done and all items.

    Raises:
        Unsupported: activations are not finite, or onnxruntime cannot run the graph.
    """
    session = open_session(model, list(tensors))
    size = _batch_items(session, data, list(tensors))
    batches = data.batches(size)
    seen = Statistics.resume(*resume) if resume else Statistics()
    share = -(-GRAM_ROWS // len(batches))
    saved, pause = time.monotonic(), _SAVE_EVERY
    done = min(seen.batches * size, len(data.items))
    for number in range(seen.batches, len(batches)):
        feed = data.prepare(batches[number])
        for name, values in zip(tensors, run(session, list(tensors), feed), strict=True):
            planes = tensors[name] == "planes"
            rows = real_rows(np.moveaxis(values, 1, -1) if planes else values, feed, data.spec)
            if not np.isfinite(rows).all():
                raise Unsupported(
                    f"activations of {layers.get(name, name)} are not finite on calibration item "
                    f"{str(batches[number][0])[:60]!r} or one of the {len(batches[number])} beside "
                    "it: the encoder itself overflows there. Look at the checkpoint and that input."
                )
            _add(seen, name, rows, tensors[name] == "gram", share, number)
        seen.batches = number + 1
        done += len(batches[number])
        progress(done, len(data.items))
        begun = time.monotonic()
        if resume and begun - saved > pause:
            seen.save(*resume)
            saved = time.monotonic()
            pause = _SAVE_EVERY + 9 * (saved - begun)  # of a large encoder they are a gigabyte
    return seen


def open_session(model: onnx.ModelProto, outputs: Sequence[str]) -> Any:
    """An onnxruntime session that also puts out *outputs*, float tensors of the graph."""
    onnx, ort = require("onnx", "compress", "int8"), require("onnxruntime", "onnx", "int8")
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    known = {value.name for value in wider.graph.output}
    for name in dict.fromkeys(outputs):
        if name not in known:
            wider.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    try:
        return ort.InferenceSession(
            wider.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as err:  # its exception types live in a private module
        raise Unsupported(f"ONNX Runtime cannot open this encoder: {first_line(err)}") from err


def run(session: Any, outputs: Sequence[str], feed: Arrays) -> list[Any]:
    """*outputs* of an onnxruntime session."""
    try:
        return list(session.run(list(outputs), feed))
    except Exception as err:  # its exception types live in a private module
        raise Unsupported(f"ONNX Runtime cannot run this encoder: {first_line(err)}") from err


def real_rows(values: npt.NDArray[Any], feed: Arrays, spec: EncoderSpec) -> Floats:
    """Rows ``(n, K)`` of an activation tensor, without those of padding tokens."""
    if values.ndim == 3:
        real = spec.real_tokens(feed, values.shape[1])
        if real is not None and real.shape == values.shape[:2]:
            return values[real]
    rows: Floats = values.reshape(-1, values.shape[-1])
    return rows


def _add(
    seen: Statistics, name: str, rows: Floats, wants_gram: bool, share: int, number: int
) -> None:
    # The same rows of every tensor with as many of them.
    random = np.random.default_rng((number, len(rows)))
    keys = random.random(len(rows))
    low, high = rows.min(axis=0), rows.max(axis=0)
    old = seen.tensors.get(name)
    if old is None:
        width = rows.shape[1]
        old = Observed(low, high, rows[:0], keys[:0])
        if wants_gram:
            old.gram, old.total = np.zeros((width, width)), np.zeros(width)
        seen.tensors[name] = old
    old.low, old.high = np.minimum(old.low, low), np.maximum(old.high, high)
    first = np.argpartition(keys, ROWS)[:ROWS] if len(keys) > ROWS else np.arange(len(keys))
    all_keys = np.concatenate([old.keys, keys[first]])
    order = np.argsort(all_keys, kind="stable")[:ROWS]
    old.keys, old.rows = all_keys[order], np.concatenate([old.rows, rows[first]])[order]
    if old.gram is not None and old.total is not None:
        some = rows if len(rows) <= share else rows[random.choice(len(rows), share, replace=False)]
        old.gram += some.T @ some
        old.total += some.sum(axis=0)
        old.counted += len(some)


def _batch_items(session: Any, data: Data, tensors: list[str]) -> int:
    """Items of a batch whose activations stay within ``BATCH_BYTES``, by those of the longest."""
    first = data.batches(1)[0]
    size = sum(int(v.nbytes) for v in run(session, tensors, data.prepare(first)))
    return max(1, min(_BATCH_ITEMS[data.spec.task], BATCH_BYTES // max(size, 1)))

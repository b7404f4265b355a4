"""Does the bundle say what the encoder said? Golden inputs, fp32 outputs, and the comparison.

The golden inputs and the torch fp32 outputs travel with the bundle (``reference.npz``), so that
the same question can be asked again on a device that has no torch and no data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays
from edgessl.errors import BundleError
from edgessl.spec import FEATURES_NAME, AudioSpec, EncoderSpec, ImageSpec, VideoSpec

_KINDS = {1: "audio", 3: "image", 4: "video"}  # dimensions of an item

Run = Callable[[Arrays], Arrays]
Prepare = Callable[[list[Any]], Arrays]

# precision -> (lowest mean cosine, lowest cosine of any vector) to the fp32 encoder
BOUNDS = {
    "fp32": (0.999999, 0.99999),
    "fp16": (0.9999, 0.999),
    "bf16": (0.999, 0.99),
    "int8": (0.98, 0.93),
    # For small encoders, which have little to spare; larger ones stay far above.
    "int8-dynamic": (0.98, 0.93),
    "int8-weight-only": (0.998, 0.99),
    "int4-weight-only": (0.95, 0.80),
}

# Where tokens are merged, rounding may change which: a few vectors then move further.
_MERGED = {"fp32": (0.99999, 0.999), "fp16": (0.999, 0.99), "bf16": (0.998, 0.98)}

_TEXTS: tuple[tuple[str, ...], ...] = (
    ("A quick brown fox jumps over the lazy dog.",),
    ("",),
    (
        "Where is the nearest train station?",
        "The committee postponed its decision on the new budget until the figures from all "
        "three departments had been checked by an independent auditor.",
        "Refund, please!",
        "Naïve café owners in Zürich rarely say “no” to €5 tips 🙂",
    ),
    (
        "Water boils at 100 degrees Celsius at sea level, and at about 93 degrees in Denver.",
        "def mean(values): return sum(values) / len(values)",
        "我们明天早上九点在图书馆门口见面。",
        "Die Lieferung kam zwei Tage zu spät, aber der Kundendienst war freundlich.",
        "ok",
        "This phone's battery lasts two full days, the screen is bright enough to read in the "
        "sun, and it survived a fall down the stairs; only the camera is a disappointment.",
        "¿Cuánto cuesta un billete de ida y vuelta a Sevilla?",
        "She sold her car because parking in the city had become more expensive than taxis.",
    ),
    ("Long documents are cut at the encoder's longest input, wherever that falls. " * 60,),
)


@dataclass(frozen=True)
class Batch:
    """Raw golden items, the graph's inputs made from them, and the encoder's fp32 outputs."""

    items: list[Any]  # str; uint8 (H, W, 3) or (frames, H, W, 3); int16 (samples,)
    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Parity:
    """How far a bundle's outputs are from the reference; ``rows`` vectors were compared."""

    cosine_mean: float
    cosine_min: float
    max_abs_diff: float
    rows: int
    bound: tuple[float, float]

    @property
    def within(self) -> bool:
        return self.cosine_mean >= self.bound[0] and self.cosine_min >= self.bound[1]

    def __str__(self) -> str:
        return (
            f"cosine {self.cosine_mean:.6f} mean, {self.cosine_min:.6f} lowest "
            f"(bound {self.bound[0]:g} / {self.bound[1]:g}), "
            f"largest difference {self.max_abs_diff:.2e}, {self.rows} vectors"
        )


def golden_items(spec: EncoderSpec) -> list[list[Any]]:
    """Batches of what the encoder takes, of several lengths, sizes and batch sizes.

    Texts; uint8 RGB images or clips of such frames; int16 waveforms.
    """
    prepared = spec.preprocessing
    if isinstance(prepared, ImageSpec):
        images = _images(prepared)
        return [images[:1], images[1:4], images[4:]]
    if isinstance(prepared, AudioSpec):
        waveforms = _waveforms(prepared)
        return [waveforms[:1], waveforms[1:4], waveforms[4:]]
    if isinstance(prepared, VideoSpec):
        clips = _clips(prepared)
        return [clips[:1], clips[1:]]
    return [list(batch) for batch in _TEXTS]


def make_reference(spec: EncoderSpec, prepare: Prepare, encoder: Run) -> list[Batch]:
    """Run the golden items through *encoder* (fp32)."""
    batches = []
    for items in golden_items(spec):
        inputs = prepare(items)
        batches.append(Batch(items, inputs, encoder(inputs)))
    return batches


def compare(reference: Sequence[Batch], run: Run, precision: str, spec: EncoderSpec) -> Parity:
    """Run the reference's inputs through *run* and compare what comes out, row by row.

    A row is a pooled vector, and a real token's features where the encoder puts those out.
    Outputs that are not finite count as cosine -1.
    """
    cosines, largest = [], 0.0
    for batch in reference:
        actual = run(batch.inputs)
        for name, expected in batch.outputs.items():
            features = name == FEATURES_NAME
            real = spec.real_tokens(batch.inputs, expected.shape[1]) if features else None
            rows = slice(None) if real is None else real
            want = expected[rows].reshape(-1, expected.shape[-1]).astype(np.float64)
            got = actual[name][rows].reshape(-1, expected.shape[-1]).astype(np.float64)
            cosines.append(cosine(want, got))
            difference = np.abs(want - got).max(initial=0.0)
            largest = max(largest, float(difference) if np.isfinite(difference) else np.inf)
    rowwise = np.concatenate(cosines)
    bounds = {**BOUNDS, **_MERGED} if spec.merged else BOUNDS
    return Parity(
        float(rowwise.mean()), float(rowwise.min()), largest, len(rowwise), bounds[precision]
    )


def cosine(
    left: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Cosine of each row of *left* with the same row of *right*, both ``(n, dim)``."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: npt.NDArray[np.float64] = np.einsum("ij,ij->i", a, b) / norms
    return np.where(np.isfinite(values), values, -1.0)


def rank_correlation(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Spearman's, of the cosines of all pairs of rows of *left* with those of *right*, both
    ``(n, dim)``; ties, which vectors hardly have, are told apart by their place."""
    pairs = np.triu_indices(len(left), 1)
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right))
    ranks = [(rows @ rows.T)[pairs].argsort().argsort() for rows in units]
    return float(np.corrcoef(*ranks)[0, 1])


def save(reference: Sequence[Batch], path: Path) -> None:
    """Write ``reference.npz``: ``N/text`` or ``N/KIND/K``, ``N/in/NAME``, ``N/out/NAME``.

    KIND is ``image``, ``audio`` or ``video``.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, batch in enumerate(reference):
        if isinstance(batch.items[0], str):
            arrays[f"{number}/text"] = np.array(batch.items)
        else:
            arrays |= {f"{number}/{_KINDS[a.ndim]}/{k}": a for k, a in enumerate(batch.items)}
        arrays |= {f"{number}/in/{name}": array for name, array in batch.inputs.items()}
        arrays |= {f"{number}/out/{name}": array for name, array in batch.outputs.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> list[Batch]:
    """Read ``reference.npz``.

    Raises:
        BundleError: the file is missing or damaged.
    """
    batches: dict[int, Batch] = {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            for key in arrays.files:
                number, kind, *rest = key.split("/")
                batch = batches.setdefault(int(number), Batch([], {}, {}))
                if kind == "text":
                    batch.items.extend(str(text) for text in arrays[key])
                elif kind in _KINDS.values():
                    batch.items.append(arrays[key])
                else:
                    {"in": batch.inputs, "out": batch.outputs}[kind][rest[0]] = arrays[key]
    except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
        raise BundleError(f"{path}: damaged or missing ({err}). Export the bundle again.") from err
    return [batches[number] for number in sorted(batches)]


def _images(spec: ImageSpec) -> list[npt.NDArray[np.uint8]]:
    """Eight pictures with edges, gradients, texture and several sizes; the same every time."""
    rng = np.random.default_rng(20)
    shapes = [(spec.height, spec.width)] * 5 + [
        (spec.height * 2, spec.width + 7),
        (max(spec.height // 2, 1), spec.width),
        (spec.height + 3, spec.width * 3),
    ]
    return [_image(rng, height, width) for height, width in shapes]


def _image(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A few overlapping soft discs on a gradient, with a little noise."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    tilt = rng.uniform(-1, 1, (2, 3))
    picture = rng.uniform(60, 180, 3) + 80 * (y[..., None] * tilt[0] + x[..., None] * tilt[1])
    for _ in range(4):
        centre_y, centre_x, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.1, 0.4)
        distance = np.hypot(y - centre_y, x - centre_x)
        alpha = 1 / (1 + np.exp((distance - radius) * rng.uniform(20, 200)))
        picture += alpha[..., None] * (rng.uniform(0, 255, 3) - picture)
    picture += rng.normal(0, 6, picture.shape)
    pixels: npt.NDArray[np.uint8] = picture.clip(0, 255).astype(np.uint8)
    return pixels


def _waveforms(spec: AudioSpec) -> list[npt.NDArray[np.int16]]:
    """Tones, chirps and bursts of noise of several lengths; the same every time."""
    rng = np.random.default_rng(21)
    rate, longest = spec.sampling_rate, spec.max_samples
    waveforms = []
    for seconds in (0.6, 0.9, 0.3, 0.05, 0.5, 0.7, 0.02):
        length = min(max(int(seconds * rate), spec.shortest), longest)
        t = np.arange(length) / rate
        wave = np.zeros(length)
        for _ in range(3):
            pitch, glide = rng.uniform(80, rate / 8), rng.uniform(-1, 1)
            loud = rng.uniform(0.05, 0.3) * (1 + np.sin(2 * np.pi * rng.uniform(1, 8) * t))
            wave += loud * np.sin(2 * np.pi * pitch * t * (1 + glide * t))
        for start in rng.integers(0, length, 2):
            burst = wave[start : start + rate // 20]
            burst += rng.normal(0, 0.2, len(burst))
        wave += rng.normal(0, 0.01, length)
        waveforms.append((wave.clip(-1, 1) * 32767).astype(np.int16))
    return waveforms


def _clips(spec: VideoSpec) -> list[npt.NDArray[np.uint8]]:
    """Soft discs that move, in clips of several lengths and sizes; the same every time."""
    rng = np.random.default_rng(22)
    height, width, frames = spec.height, spec.width, spec.frames
    shapes = [
        (frames, height, width),
        (max(frames // 2, 1), height, width * 3 // 2),
        (frames * 2 + 1, max(height // 2, 1), max(width // 2, 1)),
    ]
    clips = []
    for count, rows, columns in shapes:
        y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
        start, step = rng.uniform(0, 1, (4, 2)), rng.uniform(-1, 1, (4, 2))
        radius, colour = rng.uniform(0.1, 0.4, 4), rng.uniform(0, 255, (4, 3))
        clip = np.empty((count, rows, columns, 3), np.uint8)
        for number in range(count):
            picture = np.full((rows, columns, 3), 110.0) + 60 * (x - y)[..., None]
            for disc in range(4):
                centre = start[disc] + step[disc] * number / count
                distance = np.hypot(y - centre[0], x - centre[1])
                alpha = 1 / (1 + np.exp((distance - radius[disc]) * 40))
                picture += alpha[..., None] * (colour[disc] - picture)
            clip[number] = picture.clip(0, 255)
        clips.append(clip)
    return clips

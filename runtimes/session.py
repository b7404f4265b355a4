"""The noun ``Session``: an opened bundle. Texts or images in, numpy vectors out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import bundle
from edgessl.backend import Arrays, Backend, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import BundleError, RecipeError, Unsupported
from edgessl.runtimes.image import ImagePreprocessor
from edgessl.runtimes.text import TextPreprocessor
from edgessl.spec import FEATURES_NAME, EncoderSpec, TextSpec
from edgessl.target import get, resolve

BATCH_ITEMS = 32
BATCH_TOKENS = 4096  # padding included: long texts go in smaller batches

Vectors = npt.NDArray[np.float32]


def load(
    path: str | os.PathLike[str], *, device: str | None = None, threads: int | None = None
) -> Session:
    """Open a bundle on this device, with no torch and no transformers.

    Args:
        path: the bundle's directory.
        device: ``"cpu"``, ``"gpu"`` or ``"npu"``; None takes the target's default. What was
            asked for is what runs, or it is an error.
        threads: threads inside one inference; None leaves it to the runtime library.

    Raises:
        RecipeError: a device that this target does not know, or *threads* below 1.
        BundleError: not a bundle, or a damaged one (sizes are checked here; ``edgessl verify``
            checks every byte).
        DeviceMismatch: a sound bundle that this device cannot run.
        MissingDependency: the target's runtime library is not installed.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"threads must be at least 1, not {threads}.")
    directory = Path(path)
    manifest = bundle.read(directory)
    for name, entry in manifest.files.items():
        file = directory / name
        if not file.is_file() or file.stat().st_size != entry.size:
            raise BundleError(
                f"{file}: missing or of the wrong size. See what else is wrong with: "
                f"edgessl verify {path}"
            )
    backend: Backend = resolve(get(manifest.target).opener)(
        directory, manifest, RuntimeOptions(device, threads)
    )
    return Session(manifest, backend, _preprocessor(directory, manifest.encoder))


def open_preprocessor(directory: Path, spec: EncoderSpec) -> Callable[[Sequence[Any]], Arrays]:
    """What turns a list of texts or images into one batch of the graph's inputs."""
    prepare = _preprocessor(directory, spec)
    if isinstance(prepare, TextPreprocessor):
        return prepare
    return lambda items: {"pixel_values": prepare(items)}


def _preprocessor(directory: Path, spec: EncoderSpec) -> TextPreprocessor | ImagePreprocessor:
    if isinstance(spec.preprocessing, TextSpec):
        return TextPreprocessor.open(directory, spec.preprocessing)
    return ImagePreprocessor.open(directory, spec.preprocessing)


class Session:
    """An opened bundle. Safe to use from many threads; ``with`` closes it."""

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        preprocessor: TextPreprocessor | ImagePreprocessor,
    ) -> None:
        self.manifest = manifest
        self.preprocessor = preprocessor
        self._backend = backend

    @property
    def variant(self) -> str:
        """Name of the vector space: vectors of different variants do not compare."""
        return self.manifest.variant

    def embed(self, items: Sequence[Any] | npt.NDArray[np.generic]) -> Vectors:
        """Embed texts or images.

        Args:
            items: for a text bundle, strings. For an image bundle, paths, bytes, PIL images or
                uint8 arrays ``(H, W, 3)``, or one array ``(n, H, W, 3)``.

        Returns:
            ``(n, dim)`` float32, row i for item i.

        Raises:
            RecipeError: an item that is not a text or an image; says which.
            Unsupported: the bundle was exported with pooling ``none``.
        """
        name = self.manifest.encoder.vector
        if name is None:
            raise Unsupported(
                "this bundle has no pooling, so it gives features, not vectors: use "
                "session.features(items), or export with --pooling cls|mean|max."
            )
        _check_list(items)
        (width,) = (s.shape[1] for s in self.manifest.encoder.outputs if s.name == name)
        vectors = np.empty((len(items), int(width)), np.float32)
        for rows, _, outputs in self._batches(items):
            vectors[rows] = outputs[name]
        return vectors

    def features(self, items: Sequence[Any] | npt.NDArray[np.generic]) -> list[Vectors]:
        """Token or patch features of each item, padding removed: a list of ``(tokens, dim)``.

        Raises:
            Unsupported: the bundle was exported without ``--features``.
        """
        if not self.manifest.encoder.has_features:
            raise Unsupported("this bundle has no features: export with --features.")
        _check_list(items)
        features: list[Vectors] = [np.empty((0, 0), np.float32)] * len(items)
        for rows, inputs, outputs in self._batches(items):
            hidden = outputs[FEATURES_NAME]
            mask = inputs.get("attention_mask")
            for position, row in enumerate(rows):
                item = hidden[position]
                features[row] = item if mask is None else item[mask[position].astype(bool)]
        return features

    def prepare(self, items: Sequence[Any]) -> Arrays:
        """One batch of the graph's inputs from texts or images, as ``run`` takes them."""
        prepare = self.preprocessor
        if isinstance(prepare, TextPreprocessor):
            return prepare(items)
        return {"pixel_values": prepare(items)}

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Run the graph on ready inputs, one batch: names, dtypes and shapes as the manifest says.

        Raises:
            RecipeError: a missing or unknown input, one of the wrong dtype or shape, inputs of
                different sizes, or texts longer than the bundle takes.
        """
        specs = {spec.name: spec for spec in self.manifest.encoder.inputs}
        if set(inputs) != set(specs):
            raise RecipeError(f"inputs are {sorted(inputs)}, this bundle takes {sorted(specs)}.")
        sizes: dict[str, int] = {}
        for name, array in inputs.items():
            spec = specs[name]
            fits = array.ndim == len(spec.shape) and all(
                isinstance(want, str) or want == got
                for want, got in zip(spec.shape, array.shape, strict=True)
            )
            if array.dtype != spec.dtype or not fits:
                raise RecipeError(
                    f"{name} is {array.dtype} {array.shape}, "
                    f"this bundle takes {spec.dtype} {spec.shape}."
                )
            for axis, size in zip(spec.shape, array.shape, strict=True):
                if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
                    raise RecipeError(
                        f"the inputs differ in their {axis}: {name} has {size}, "
                        f"another input {sizes[axis]}."
                    )
        prepared = self.manifest.encoder.preprocessing
        # Beyond its position table a graph fails or, on some runtimes, says nonsense in silence.
        if isinstance(prepared, TextSpec) and sizes.get("sequence", 0) > prepared.max_length:
            raise RecipeError(
                f"the inputs have {sizes['sequence']} tokens a text, this bundle takes at most "
                f"{prepared.max_length}."
            )
        return self._backend.run(inputs)

    def describe(self) -> dict[str, Any]:
        """What really runs: runtime, version, device, threads."""
        return self._backend.describe()

    def close(self) -> None:
        """Give back what the runtime holds; the session cannot be used afterwards."""
        self._backend.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _batches(self, items: Sequence[Any] | npt.NDArray[np.generic]) -> Any:
        """Yield (rows, inputs, outputs) until every item has been through the graph."""
        prepare = self.preprocessor
        if isinstance(prepare, TextPreprocessor):
            encodings = prepare.encode(list(items))
            for rows in token_batches(prepare.lengths(encodings).tolist()):
                inputs = prepare.batch([encodings[row] for row in rows])
                yield rows, inputs, self._backend.run(inputs)
            return
        for start in range(0, len(items), BATCH_ITEMS):
            rows = list(range(start, min(start + BATCH_ITEMS, len(items))))
            images = {"pixel_values": prepare(items[start : start + BATCH_ITEMS], first=start)}
            yield rows, images, self._backend.run(images)


def _check_list(items: object) -> None:
    listed = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if not listed or isinstance(items, (str, bytes, Mapping)):
        raise RecipeError("a session takes a list: embed([item]), not embed(item).")


def token_batches(
    lengths: Sequence[int], items: int = BATCH_ITEMS, tokens: int = BATCH_TOKENS
) -> list[list[int]]:
    """Deal rows into batches of similar length, the longest first.

    No batch has more than *items* rows or, once padded, more than *tokens* tokens (a single row
    may). Every row is in exactly one batch.
    """
    batches: list[list[int]] = []
    widest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        full = not batches or len(batches[-1]) == items
        if full or (len(batches[-1]) + 1) * widest > tokens:
            batches.append([])
            widest = max(lengths[row], 1)
        batches[-1].append(row)
    return batches

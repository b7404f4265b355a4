"""The noun ``Session``: an opened bundle. Texts, images, audio or videos in, numpy vectors out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import bundle
from edgessl.backend import Arrays, Backend, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import BundleError, RecipeError, Unsupported
from edgessl.runtimes.audio import AudioPreprocessor
from edgessl.runtimes.batches import (
    BATCH_CLIPS,
    BATCH_SAMPLES,
    BATCH_TOKENS,
    READ_AHEAD,
    ByLength,
    Feeder,
    InOrder,
)
from edgessl.runtimes.image import ImagePreprocessor
from edgessl.runtimes.text import TextPreprocessor
from edgessl.runtimes.video import VideoPreprocessor
from edgessl.spec import FEATURES_NAME, AudioSpec, Axis, EncoderSpec, TextSpec, VideoSpec
from edgessl.target import get, resolve

# What the dynamic axes count, for messages.
_COUNTED = {"sequence": "tokens a text", "samples": "samples a recording"}

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
    return Session(manifest, backend, open_preprocessor(directory, manifest.encoder))


def open_preprocessor(directory: Path, spec: EncoderSpec) -> Feeder:
    """What turns a list of texts, images, waveforms or clips into batches of the graph's inputs."""
    prepared, name = spec.preprocessing, spec.inputs[0].name
    if isinstance(prepared, TextSpec):
        return ByLength(TextPreprocessor.open(directory, prepared), BATCH_TOKENS)
    if isinstance(prepared, AudioSpec):
        opened = AudioPreprocessor.open(directory, prepared)
        return ByLength(opened, BATCH_SAMPLES, ahead=READ_AHEAD)
    if isinstance(prepared, VideoSpec):
        return InOrder(VideoPreprocessor.open(directory, prepared), name, BATCH_CLIPS)
    return InOrder(ImagePreprocessor.open(directory, prepared), name)


class Session:
    """An opened bundle. Safe to use from many threads; ``with`` closes it."""

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        preprocessor: Feeder,
    ) -> None:
        self.manifest = manifest
        self.preprocessor = preprocessor
        self._backend = backend

    @property
    def variant(self) -> str:
        """Name of the vector space: vectors of different variants do not compare."""
        return self.manifest.variant

    def embed(self, items: Sequence[Any] | npt.NDArray[np.generic]) -> Vectors:
        """Embed texts, images, audio or videos.

        Args:
            items: for a text bundle, strings. For an image bundle, paths, bytes, PIL images or
                uint8 arrays ``(H, W, 3)``, or one array ``(n, H, W, 3)``. For audio, mono
                waveforms (float, int16 or int32 arrays at the bundle's sampling rate), or WAV
                files as paths or bytes. For videos, uint8 arrays ``(frames, H, W, 3)``, lists of
                frames, or folders of image files.

        Returns:
            ``(n, dim)`` float32, row i for item i.

        Raises:
            RecipeError: an item that is not what the bundle takes; says which.
            Unsupported: the bundle was exported with pooling ``none``.
        """
        name = self.manifest.encoder.vector
        if name is None:
            raise Unsupported(
                "this bundle has no pooling, so it gives features, not vectors: use "
                "session.features(items), or export with --pooling cls|mean|max."
            )
        _check_list(items)
        vectors = np.empty((len(items), self.manifest.encoder.dimensions or 0), np.float32)
        for rows, _, outputs in self._batches(items):
            vectors[rows] = outputs[name]
        return vectors

    def features(self, items: Sequence[Any] | npt.NDArray[np.generic]) -> list[Vectors]:
        """Token, patch or frame features of each item, without padding: a list of
        ``(tokens, dim)``.

        Raises:
            Unsupported: the bundle was exported without ``--features``.
        """
        if not self.manifest.encoder.has_features:
            raise Unsupported("this bundle has no features: export with --features.")
        _check_list(items)
        features: list[Vectors] = [np.empty((0, 0), np.float32)] * len(items)
        for rows, inputs, outputs in self._batches(items):
            hidden = outputs[FEATURES_NAME]
            real = self.manifest.encoder.real_tokens(inputs, hidden.shape[1])
            for position, row in enumerate(rows):
                item = hidden[position]
                features[row] = item if real is None else item[real[position]]
        return features

    def prepare(self, items: Sequence[Any]) -> Arrays:
        """One batch of the graph's inputs from items as ``embed`` takes them, for ``run``."""
        return self.preprocessor(items)

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
        for name, limits in self.manifest.encoder.axes.items():
            if name in _COUNTED and name in sizes:
                _check_size(sizes[name], limits, _COUNTED[name])
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
        for rows, inputs in self.preprocessor.batches(items):  # type: ignore[arg-type]
            yield rows, inputs, self._backend.run(inputs)


def _check_size(size: int, axis: Axis, unit: str) -> None:
    # Beyond its position table a graph fails or, on some runtimes, says nonsense in silence.
    if size > axis.largest or (size < axis.smallest and axis.smallest > 1):
        limit = f"most {axis.largest}" if size > axis.largest else f"least {axis.smallest}"
        raise RecipeError(f"the inputs have {size} {unit}, this bundle takes at {limit}.")


def _check_list(items: object) -> None:
    listed = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if not listed or isinstance(items, (str, bytes, Mapping)):
        raise RecipeError("a session takes a list: embed([item]), not embed(item).")

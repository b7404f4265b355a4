"""The noun ``Session``: an opened bundle. Texts, images, audio or videos in, numpy vectors out."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import bundle
from edgessl.backend import Arrays, Backend, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import BundleError, RecipeError, Refused, Unsupported
from edgessl.runtimes import patches
from edgessl.runtimes.batches import (
    BATCH_CLIPS,
    BATCH_SAMPLES,
    BATCH_TOKENS,
    BATCH_TOKENS_ELSEWHERE,
    RECORDINGS_AHEAD,
    TEXTS_AHEAD,
    ByLength,
    Feeder,
    InOrder,
    Items,
    Vectors,
    one_batch,
)
from edgessl.runtimes.flow import Batch, Threads, through, windows
from edgessl.runtimes.options import InputOptions
from edgessl.spec import FEATURES_NAME, AudioSpec, Axis, EncoderSpec, TextSpec, VideoSpec
from edgessl.target import get, resolve

# What the dynamic axes count, for messages.
_COUNTED = {"sequence": "tokens a text", "samples": "samples a recording"}


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    mode: str = "latency",
    threads: int | None = None,
    streams: int | None = None,
    cache: bool = True,
    **options: Any,
) -> Session:
    """Open a bundle on this device, with no torch and no transformers.

    Args:
        path: the bundle's directory.
        device: ``"cpu"``, ``"gpu"`` or ``"npu"``; None takes the target's default. What was
            asked for is what runs, or it is an error.
        mode: ``"latency"`` for one item as soon as possible, ``"throughput"`` for many in all:
            several inferences at once, the next batches made ready meanwhile.
        threads: threads inside one inference. streams: inferences at once. None: what suits the
            mode and the cores that this process may use.
        cache: keep what the runtime makes of the bundle on disk, so that the next process opens
            it sooner; see docs/runtime.md.
        **options: fields of ``edgessl.runtimes.options.InputOptions``, for every call.

    Raises:
        RecipeError: a device that this target does not know, an unknown mode, a number below 1,
            or an option that the bundle lacks.
        BundleError: not a bundle, or a damaged one (sizes are checked here; ``edgessl verify``
            checks every byte).
        DeviceMismatch: a sound bundle that this device cannot run.
        MissingDependency: the target's runtime library is not installed.
    """
    chosen = RuntimeOptions(device, mode, threads, streams, cache)
    directory = Path(path)
    manifest = bundle.read(directory)
    for name, entry in manifest.files.items():
        file = directory / name
        if not file.is_file() or file.stat().st_size != entry.size:
            raise BundleError(
                f"{file}: missing or of the wrong size. See what else is wrong with: "
                f"edgessl verify {path}"
            )
    feeder = open_preprocessor(directory, manifest.encoder)
    target = get(manifest.target)
    if manifest.encoder.task == "text" and (target.needs_gpu or device not in (None, "cpu")):
        options.setdefault("batch_tokens", BATCH_TOKENS_ELSEWHERE)
    inputs = InputOptions().changed(manifest.encoder.task, options)
    feeder = feeder.using(inputs)  # before the backend: opening that may take minutes
    backend: Backend = resolve(target.opener)(directory, manifest, chosen)
    return Session(manifest, backend, feeder, inputs)


def open_preprocessor(directory: Path, spec: EncoderSpec) -> Feeder:
    """What turns a list of texts, images, waveforms or clips into batches of the graph's inputs."""
    # Each kind imports what the others do not need: Pillow is a tenth of opening a text bundle.
    prepared, name = spec.preprocessing, spec.inputs[0].name
    if isinstance(prepared, TextSpec):
        from edgessl.runtimes.text import TextPreprocessor

        text = TextPreprocessor.open(directory, prepared)
        return ByLength(text, BATCH_TOKENS, TEXTS_AHEAD, spec.normalize)
    if isinstance(prepared, AudioSpec):
        from edgessl.runtimes.audio import AudioPreprocessor

        audio = AudioPreprocessor.open(directory, prepared)
        return ByLength(audio, BATCH_SAMPLES, RECORDINGS_AHEAD)
    if isinstance(prepared, VideoSpec):
        from edgessl.runtimes.video import VideoPreprocessor

        return InOrder(VideoPreprocessor.open(directory, prepared), name, BATCH_CLIPS)
    from edgessl.runtimes.image import ImagePreprocessor

    return InOrder(ImagePreprocessor.open(directory, prepared), name, spec=spec)


class Session:
    """An opened bundle. Safe to use from many threads; ``with`` closes it."""

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        preprocessor: Feeder,
        options: InputOptions | None = None,
        threads: Threads | None = None,
    ) -> None:
        self.manifest = manifest
        self.preprocessor = preprocessor
        self.options = options or InputOptions()
        self._backend = backend
        self._threads = threads or Threads(backend.streams)

    @property
    def variant(self) -> str:
        """Name of the vector space: vectors of different variants do not compare."""
        return self.manifest.variant

    def using(self, **options: Any) -> Session:
        """This session with other input options; the opened graph is shared.

        Args:
            **options: fields of ``edgessl.runtimes.options.InputOptions``.

        Raises:
            RecipeError: an unknown option, or one that this bundle lacks.
        """
        chosen = self.options.changed(self.manifest.encoder.task, options)
        feeder = self.preprocessor.using(chosen)
        return Session(self.manifest, self._backend, feeder, chosen, self._threads)

    def embed(self, items: Items, **options: Any) -> Vectors:
        """Embed texts, images, audio or videos.

        Args:
            items: for a text bundle, strings. For an image bundle, paths, bytes, PIL images or
                arrays (docs/inputs.md), or one array ``(n, H, W, 3)``. For audio, mono
                waveforms (float, int16 or int32 arrays at the bundle's sampling rate), or WAV
                files as paths or bytes. For videos, uint8 arrays ``(frames, H, W, 3)``, lists of
                frames, or folders of image files.
            **options: as for ``using``, for this call.

        Returns:
            ``(n, dim)`` float32, row i for item i.

        Raises:
            RecipeError: an item that is not what the bundle takes; says which.
            Unsupported: the bundle was exported with pooling ``none``.
        """
        if options:
            return self.using(**options).embed(items)
        name = self._vector()
        _check_list(items)
        if len(items) == 1:  # no windows, no rows, no threads: an app's single item
            encoded = self.preprocessor.encode(items)
            if self.preprocessor.count(encoded) == 1:
                inputs = self.preprocessor.batch(encoded, (0,))
                found: Vectors = self._backend.run(inputs)[name]
                return found.astype(np.float32, copy=False)
        return next(iter(self._blocks(name, [items], None)))

    def embed_blocks(
        self, blocks: Iterable[Items], refused: Refused | None = None
    ) -> Iterator[Vectors]:
        """Embed a stream of lists of any length, with the memory of a few of them.

        Blocks are taken from *blocks* ahead of what is given back, so that the graph never waits.

        Args:
            blocks: lists as ``embed`` takes them, of some thousand texts or some hundred images.
            refused: is called with the index, counted over all blocks, and the error of each item
                that cannot be read; its vector is NaN. None: the error is raised.

        Yields:
            ``(n, dim)`` float32 for each block, in their order.

        Raises:
            RecipeError, Unsupported: as ``embed``.
        """
        return self._blocks(self._vector(), blocks, refused)

    async def aembed(self, items: Items, **options: Any) -> Vectors:
        """``embed`` for an event loop: runs on a thread of the session's own, as many at once as
        the backend has streams."""
        import asyncio  # a tenth of what opening a bundle imports

        call = functools.partial(self.embed, items, **options)
        return await asyncio.wrap_future(self._threads.submit("call", call))

    def features(self, items: Items) -> list[Vectors]:
        """Token, patch or frame features of each item, without padding: a list of
        ``(tokens, dim)``.

        Raises:
            Unsupported: the bundle was exported without ``--features``.
        """
        if not self.manifest.encoder.has_features:
            raise Unsupported("this bundle has no features: export with --features.")
        if self.options.long == "chunk":
            raise RecipeError("features are of whole texts: long='chunk' is for vectors.")
        _check_list(items)
        features: list[Vectors] = [np.empty((0, 0), np.float32)] * len(items)
        for batch in self._through([items], None):
            if not batch.rows:
                continue
            hidden = batch.outputs[FEATURES_NAME]
            real = self.manifest.encoder.real_tokens(batch.inputs, hidden.shape[1])
            for position, row in enumerate(batch.rows):
                item = hidden[position]
                place = batch.encoded.window.start + row
                features[place] = item if real is None else item[real[position]]
        return features

    def prepare(self, items: Items) -> Arrays:
        """One batch of the graph's inputs from items as ``embed`` takes them, for ``run``."""
        return one_batch(self.preprocessor, items)

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Run the graph on ready inputs, one batch: names, dtypes and shapes as the manifest says.
        ``patch_indices`` may be left out: then every patch is looked at.

        Raises:
            RecipeError: a missing or unknown input, one of the wrong dtype or shape, inputs of
                different sizes, or texts longer than the bundle takes.
        """
        specs = {spec.name: spec for spec in self.manifest.encoder.inputs}
        inputs = patches.complete(self.manifest.encoder, inputs)
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
        patches.check(self.manifest.encoder, inputs)
        return self._backend.run(inputs)

    def describe(self) -> dict[str, Any]:
        """What really runs: runtime, version, device, threads."""
        return self._backend.describe()

    def close(self) -> None:
        """Give back what the runtime holds; the session, and those made from it with ``using``,
        cannot be used afterwards."""
        self._threads.close()
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

    def _vector(self) -> str:
        name = self.manifest.encoder.vector
        if name is None:
            raise Unsupported(
                "this bundle has no pooling, so it gives features, not vectors: use "
                "session.features(items), or export with --pooling cls|mean|max."
            )
        return name

    def _through(self, blocks: Iterable[Items], refused: Refused | None) -> Iterator[Batch]:
        parts = windows(map(_check_list, blocks), self.preprocessor.ahead)
        return through(self.preprocessor, self._backend, self._threads, parts, refused)

    def _blocks(
        self, name: str, blocks: Iterable[Items], refused: Refused | None
    ) -> Iterator[Vectors]:
        width = self.manifest.encoder.dimensions or 0
        block: Vectors | None = None  # by item
        rows: Vectors | None = None  # by what the graph sees of a window
        for batch in self._through(blocks, refused):
            encoded, window = batch.encoded, batch.encoded.window
            if rows is None:
                rows = np.empty((self.preprocessor.count(encoded.items), width), np.float32)
            if batch.rows:
                rows[batch.rows] = batch.outputs[name]
            if not batch.last:
                continue
            if block is None:
                block = np.full((window.size, width), np.nan, np.float32)
            block[encoded.places] = self.preprocessor.join(encoded.items, rows)
            rows = None
            if window.last:
                yield block
                block = None


def _check_size(size: int, axis: Axis, unit: str) -> None:
    # Beyond its position table a graph fails or, on some runtimes, says nonsense in silence.
    if size > axis.largest or (size < axis.smallest and axis.smallest > 1):
        limit = f"most {axis.largest}" if size > axis.largest else f"least {axis.smallest}"
        raise RecipeError(f"the inputs have {size} {unit}, this bundle takes at {limit}.")


def _check_list(items: Any) -> Any:
    listed = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if not listed or isinstance(items, (str, bytes, Mapping)):
        raise RecipeError("a session takes a list: embed([item]), not embed(item).")
    return items

"""Waveforms to ``input_values``, exactly as transformers' Wav2Vec2FeatureExtractor does it."""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import audio_config
from edgessl.audio_config import AudioConfig
from edgessl.errors import BundleError, ItemError, RecipeError, Refused, refuse
from edgessl.spec import AudioSpec

Waveform = npt.NDArray[np.float32]

_FULL_SCALE = {1: 2.0**7, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}  # bytes a sample -> what 1.0 is
_CONVERT = "ffmpeg -i INPUT -ac 1 -ar {rate} -c:a pcm_s16le OUTPUT.wav"


@dataclass(frozen=True)
class AudioPreprocessor:
    """A bundle's feature extractor. Nothing changes after ``open``: threads may share it."""

    spec: AudioSpec
    config: AudioConfig

    @staticmethod
    def open(directory: Path, spec: AudioSpec) -> AudioPreprocessor:
        """Read ``preprocessor_config.json`` from *directory*.

        Raises:
            BundleError: the file is missing or damaged, or has another sampling rate than *spec*.
            Unsupported: it asks for something that edgessl does not do to a waveform; names it.
        """
        path = directory / audio_config.PREPROCESSOR_CONFIG
        config = audio_config.read(path)
        if config.sampling_rate != spec.sampling_rate:
            raise BundleError(
                f"{path} says {config.sampling_rate} Hz, but the manifest {spec.sampling_rate} Hz. "
                "Export the bundle again."
            )
        return AudioPreprocessor(spec, config)

    def __call__(self, items: Sequence[Any] | npt.NDArray[np.generic]) -> dict[str, Any]:
        """``batch(encode(items))``."""
        return self.batch(self.encode(items))

    def encode(
        self,
        items: Sequence[Any] | npt.NDArray[np.generic],
        first: int = 0,
        refused: Refused | None = None,
    ) -> list[Waveform]:
        """The waveform of each item: float32, ``(samples,)``, cut, normalised, not padded.

        Args:
            items: mono waveforms at the bundle's sampling rate: 1-D float arrays (-1 to 1), or
                int16 or int32 arrays (scaled to that); or WAV files with PCM of 8 to 32 bits, as
                paths or bytes, of which the channels are averaged. What is longer than
                ``max_samples`` is cut there.
            first: index that error messages give to the first item.
            refused: is told the index and the error of each item that cannot be used, which is
                then left out; None: the error is raised.

        Raises:
            ItemError: an item is no waveform or WAV file, has another sampling rate, is too
                short for the model or holds NaN; names its index and path.
        """
        listed = hasattr(items, "__len__") and hasattr(items, "__getitem__")
        if not listed or isinstance(items, (str, bytes, bytearray, memoryview)):
            raise RecipeError(
                f"expected a list of waveforms, got {type(items).__name__}. Pass a list: [item]."
            )
        if isinstance(items, np.ndarray) and items.ndim != 2:
            raise RecipeError(
                f"one array of waveforms must be (n, samples), not {items.shape}. "
                "Pass a single waveform in a list: [waveform]."
            )
        found = []
        for index, item in enumerate(items, first):
            try:
                found.append(self._encode(item, _name(item, index)))
            except RecipeError as err:
                refuse(ItemError(str(err), index), refused, err)
        return found

    def batch(self, encodings: Sequence[Waveform]) -> dict[str, Any]:
        """``input_values`` float32 and ``attention_mask`` int64, both ``(batch, longest)``.

        Shorter waveforms are padded on the right. An empty list gives arrays of shape ``(0, 0)``.
        """
        lengths = self.lengths(encodings)
        real = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
        values = np.full(real.shape, self.config.padding, dtype=np.float32)
        if len(encodings):
            values[real] = np.concatenate(encodings)
        return {"input_values": values, "attention_mask": real.astype(np.int64)}

    @staticmethod
    def lengths(encodings: Sequence[Waveform]) -> npt.NDArray[np.int64]:
        """Samples in each waveform: int64, ``(batch,)``."""
        return np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))

    def _encode(self, item: object, name: str) -> Waveform:
        if isinstance(item, np.ndarray):
            waveform = _from_array(item, name)
        elif isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)):
            waveform = _from_wav(item, name, self.spec.sampling_rate)
        else:
            raise RecipeError(
                f"{name} is of type {type(item).__name__}. Pass a 1-D array, or a WAV file as a "
                "path or bytes."
            )
        waveform = waveform[: self.spec.max_samples]
        if len(waveform) < self.spec.shortest:
            raise RecipeError(
                f"{name} has {len(waveform)} samples; this model needs at least "
                f"{self.spec.shortest} ({1000 * self.spec.shortest / self.spec.sampling_rate:g} "
                f"ms at {self.spec.sampling_rate} Hz)."
            )
        if not np.isfinite(waveform).all():
            raise RecipeError(f"{name} has samples that are NaN or infinite.")
        if self.config.normalize:
            return np.asarray(
                (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7), dtype=np.float32
            )
        if np.abs(waveform).max() > 100:
            raise RecipeError(
                f"{name} has samples up to {np.abs(waveform).max():g}, not -1 to 1. Pass integers "
                "as int16 or int32, or divide them by their full scale (32768 for 16 bits)."
            )
        return waveform


def _name(item: object, index: int) -> str:
    path = item if isinstance(item, (str, os.PathLike)) else None
    return f"waveform {index} ({os.fspath(path)!r})" if path else f"waveform {index}"


def _from_array(array: npt.NDArray[Any], name: str) -> Waveform:
    if array.ndim != 1:
        raise RecipeError(
            f"{name} has shape {array.shape}; it should be mono, (samples,). Average its channels: "
            "waveform.mean(axis=...)."
        )
    if array.dtype in (np.int16, np.int32):
        scaled: Waveform = (array / _FULL_SCALE[array.dtype.itemsize]).astype(np.float32)
        return scaled
    if not np.issubdtype(array.dtype, np.floating):
        raise RecipeError(
            f"{name} is a {array.dtype} array. Pass floats (-1 to 1), int16 or int32."
        )
    return array.astype(np.float32)


def _from_wav(item: Any, name: str, rate: int) -> Waveform:
    """A WAV file's samples, its channels averaged."""
    convert = f"Convert it: {_CONVERT.format(rate=rate)}"
    source = os.fspath(item) if isinstance(item, (str, os.PathLike)) else io.BytesIO(item)
    try:
        with wave.open(source, "rb") as file:
            found, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            declared = file.getnframes() * channels * width
            content = file.readframes(file.getnframes())
    except OSError as err:
        raise RecipeError(f"{name} cannot be read: {err.strerror or err}.") from err
    except (wave.Error, EOFError, ValueError, RuntimeError, ArithmeticError) as err:
        raise RecipeError(
            f"{name} is not a WAV file of plain PCM ({str(err) or 'it ends early'}). {convert}"
        ) from err
    if found != rate:
        raise RecipeError(f"{name} has {found} Hz, this bundle takes {rate} Hz. {convert}")
    if len(content) < declared or width not in _FULL_SCALE:
        raise RecipeError(f"{name} is truncated or damaged: {len(content)} of {declared} bytes.")
    samples = _integers(content, width).reshape(-1, channels)
    mono: Waveform = (samples.mean(axis=1) / _FULL_SCALE[width]).astype(np.float32)
    return mono


def _integers(content: bytes, width: int) -> npt.NDArray[Any]:
    """Little-endian samples of *width* bytes; those of one byte are unsigned."""
    if width == 1:
        return np.frombuffer(content, np.uint8).astype(np.int16) - 128
    if width != 3:
        return np.frombuffer(content, f"<i{width}")
    high = np.zeros((len(content) // 3, 4), np.uint8)
    high[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return high.view("<i4")[:, 0] >> 8

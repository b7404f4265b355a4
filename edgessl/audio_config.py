"""preprocessor_config.json of an audio encoder (transformers' Wav2Vec2FeatureExtractor) as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgessl import assets
from edgessl.errors import Unsupported

PREPROCESSOR_CONFIG = "preprocessor_config.json"

_EXTRACTOR = "Wav2Vec2FeatureExtractor"
_READ = frozenset(
    "feature_extractor_type feature_size sampling_rate padding_value do_normalize "
    "padding_side return_attention_mask".split()
)
_HARMLESS = frozenset(
    "processor_class _processor_class return_tensors transformers_version".split()
)


@dataclass(frozen=True)
class AudioConfig:
    """What happens to a mono waveform.

    Attributes:
        sampling_rate: in Hz; a waveform of another rate has to be resampled first.
        normalize: each waveform gets mean 0 and variance 1.
        padding: value of the samples that follow a shorter waveform in a batch.
    """

    sampling_rate: int
    normalize: bool
    padding: float


def read(path: Path) -> AudioConfig:
    """Read the file *path*; a missing key takes the library's default.

    Raises:
        BundleError: the file is missing or damaged, or a value makes no sense.
        Unsupported: a feature extractor, or a key, that does something else to the waveform.
    """
    config = assets.read_object(path)
    kind = config.get("feature_extractor_type", _EXTRACTOR)
    if kind != _EXTRACTOR:
        raise Unsupported(
            f"{path}: feature_extractor_type {kind!r} is not supported. Supported: {_EXTRACTOR}."
        )
    for key, value in config.items():
        if key not in _READ and key not in _HARMLESS and value is not None and value is not False:
            raise Unsupported(
                f"{path}: {key} = {value!r} is not supported: edgessl normalizes and pads. "
                "Remove the key if the model does without it, then export again."
            )
    if config.get("feature_size", 1) != 1:
        raise Unsupported(
            f"{path}: feature_size {config['feature_size']} is not supported: edgessl gives the "
            "model one value a sample."
        )
    if config.get("padding_side", "right") != "right":
        raise Unsupported(f"{path}: padding_side is not 'right', which is all that edgessl does.")
    rate, padding = config.get("sampling_rate", 16000), config.get("padding_value", 0.0)
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
        raise assets.damaged(path, f"sampling_rate is {rate!r}, expected a whole number of Hz")
    if isinstance(padding, bool) or not isinstance(padding, (int, float)):
        raise assets.damaged(path, f"padding_value is {padding!r}, expected a number")
    return AudioConfig(rate, bool(config.get("do_normalize", True)), float(padding))

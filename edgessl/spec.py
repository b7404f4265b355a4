"""What goes into an encoder and what comes out: plain data, the same words in every room."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Task = Literal["text", "image", "audio", "video"]
TASKS: tuple[Task, ...] = ("text", "image", "audio", "video")
POOLINGS = ("cls", "mean", "max", "weightedmean", "lasttoken", "pooler", "none")

VECTOR_NAMES: dict[str, str] = {
    "text": "sentence_embedding",
    "image": "image_embedding",
    "audio": "audio_embedding",
    "video": "video_embedding",
}
FEATURES_NAME = "last_hidden_state"
PATCH_INDICES = "patch_indices"  # input: int64, which patches of each image are looked at
PROBABILITIES = "probabilities"  # of a fine-tuned classifier: its "pooling" and its output


@dataclass(frozen=True)
class Axis:
    """Sizes of a dynamic axis.

    Inputs have ``smallest`` to ``largest``; engines are tuned for ``usual``, the exporter is shown
    ``example``, and floating-point operations are counted at ``counted``.
    """

    smallest: int
    largest: int
    usual: int
    example: int
    counted: int


_BATCH = Axis(smallest=1, largest=32, usual=8, example=2, counted=1)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: ``shape`` holds sizes, and names for the dynamic axes."""

    name: str
    dtype: str  # numpy's name: int64, float32
    shape: tuple[int | str, ...]

    @staticmethod
    def from_json(data: dict[str, Any]) -> TensorSpec:
        return TensorSpec(data["name"], data["dtype"], tuple(data["shape"]))


@dataclass(frozen=True)
class TextSpec:
    """How a string becomes ``input_ids`` beside what the tokenizer files say.

    ``max_length`` counts tokens, special ones included; longer texts are cut there.
    ``prompt`` goes before every text, and ``lowercase`` follows it, as sentence-transformers 5
    does them. ``prompts``: those that the model names, for a call to choose from.
    ``include_prompt``: the pooling counts a prompt's tokens; where it does not, there is none.
    """

    max_length: int
    lowercase: bool = False
    prompt: str = ""
    pad_to: int | None = None  # tokens that every text is padded to, where the model wants that
    prompts: dict[str, str] = field(default_factory=dict)
    include_prompt: bool = True

    @property
    def axes(self) -> dict[str, Axis]:
        longest = self.max_length
        return {"sequence": Axis(1, longest, min(64, longest), 8, min(128, longest))}


@dataclass(frozen=True)
class ImageSpec:
    """Size of ``pixel_values`` in pixels; resizing and scaling are in preprocessor_config.json.

    ``grid``: rows and columns of the patches that the input ``patch_indices`` chooses from, counted
    row by row; None where the encoder has no such input and looks at them all.
    """

    height: int
    width: int
    channels: int = 3
    grid: tuple[int, int] | None = None

    @property
    def axes(self) -> dict[str, Axis]:
        if self.grid is None:
            return {}
        patches = math.prod(self.grid)
        return {"kept": Axis(1, patches, patches, example=max(2, patches // 2), counted=patches)}


@dataclass(frozen=True)
class AudioSpec:
    """How long ``input_values`` may be, in samples of a mono waveform.

    ``sampling_rate`` in Hz; whether loudness is normalised is in preprocessor_config.json.
    Longer recordings are cut at ``max_samples``. ``convolutions``: (kernel, stride) of each layer
    of the feature encoder, none of which pads: they decide how many frames come out.
    """

    sampling_rate: int
    max_samples: int
    convolutions: tuple[tuple[int, int], ...]

    def frames(self, samples: Any) -> Any:
        """Frames that so many samples give: a whole number, or an integer array or tensor."""
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return samples

    @property
    def shortest(self) -> int:
        """Samples that one frame sees, and the fewest that the encoder can take."""
        field_of_view = 1
        for kernel, stride in reversed(self.convolutions):
            field_of_view = (field_of_view - 1) * stride + kernel
        return field_of_view

    @property
    def axes(self) -> dict[str, Axis]:
        hop = math.prod(stride for _, stride in self.convolutions)
        return {
            "samples": Axis(
                smallest=self.shortest,
                largest=self.max_samples,
                usual=min(5 * self.sampling_rate, self.max_samples),
                example=self.shortest + 9 * hop,
                counted=min(self.sampling_rate, self.max_samples),
            )
        }


@dataclass(frozen=True)
class VideoSpec:
    """Frames of a clip and their size in pixels; resizing and scaling as for images."""

    frames: int
    height: int
    width: int
    channels: int = 3

    @property
    def axes(self) -> dict[str, Axis]:
        return {"batch": replace(_BATCH, largest=8, usual=1)}


Preprocessing = TextSpec | ImageSpec | AudioSpec | VideoSpec
_SPECS: dict[str, Callable[..., Preprocessing]] = {
    "text": TextSpec,
    "image": ImageSpec,
    "audio": AudioSpec,
    "video": VideoSpec,
}


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from."""

    source: str  # a directory name or a hub id
    revision: str | None = None  # the hub's commit
    weights_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # package -> version that built it
    assumptions: tuple[
        str, ...
    ] = ()  # what the checkpoint does not say and edgessl took for granted
    passes: tuple[dict[str, Any], ...] = ()  # that made the checkpoint smaller, as it says itself


@dataclass(frozen=True)
class EncoderSpec:
    """All that a runtime has to know of an encoder, and nothing that needs torch.

    ``merged``: tokens that each layer merges (``edgessl.encoders.merging``); 0: none.
    """

    task: Task
    family: str
    pooling: str
    normalize: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    merged: int = 0

    @property
    def axes(self) -> dict[str, Axis]:
        """The dynamic axes of the inputs by name."""
        return {"batch": _BATCH, **self.preprocessing.axes}

    def shapes(self, size: Callable[[Axis], int]) -> dict[str, tuple[int, ...]]:
        """The shape of every input, with *size* of each dynamic axis."""
        axes = self.axes
        return {
            spec.name: tuple(size(axes[n]) if isinstance(n, str) else n for n in spec.shape)
            for spec in self.inputs
        }

    @property
    def vector(self) -> str | None:
        """Name of the output vector, or None where pooling is ``none``."""
        name = PROBABILITIES if self.pooling == PROBABILITIES else VECTOR_NAMES[self.task]
        return name if any(spec.name == name for spec in self.outputs) else None

    @property
    def dimensions(self) -> int | None:
        """Width of the output vector, or None where there is none."""
        widths = [spec.shape[-1] for spec in self.outputs if spec.name == self.vector]
        return int(widths[0]) if widths else None

    @property
    def has_features(self) -> bool:
        return any(spec.name == FEATURES_NAME for spec in self.outputs)

    def real_tokens(
        self, inputs: Mapping[str, npt.NDArray[Any]], tokens: int
    ) -> npt.NDArray[np.bool_] | None:
        """Which of so many features are no padding: ``(batch, tokens)``; None: every one."""
        mask = inputs.get("attention_mask")
        if mask is None:
            return None
        if isinstance(self.preprocessing, AudioSpec):
            import numpy as np

            frames = self.preprocessing.frames(mask.sum(axis=1))
            real: npt.NDArray[np.bool_] = np.arange(tokens) < frames[:, None]
            return real
        return mask.astype(bool)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> EncoderSpec:
        return EncoderSpec(
            task=data["task"],
            family=data["family"],
            pooling=data["pooling"],
            normalize=data["normalize"],
            inputs=tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
            preprocessing=_SPECS[data["task"]](
                **{name: _tuples(value) for name, value in data["preprocessing"].items()}
            ),
            merged=data.get("merged", 0),
        )


def _tuples(value: Any) -> Any:
    """JSON has lists where a spec has tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

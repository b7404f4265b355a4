"""What goes into an encoder and what comes out: plain data, the same words in every room."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Task = Literal["text", "image"]
TASKS: tuple[Task, ...] = ("text", "image")
POOLINGS = ("cls", "mean", "max", "weightedmean", "lasttoken", "pooler", "none")

VECTOR_NAMES: dict[str, str] = {"text": "sentence_embedding", "image": "image_embedding"}
FEATURES_NAME = "last_hidden_state"


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
    does them.
    """

    max_length: int
    lowercase: bool = False
    prompt: str = ""


@dataclass(frozen=True)
class ImageSpec:
    """Size of ``pixel_values`` in pixels; resizing and scaling are in preprocessor_config.json."""

    height: int
    width: int
    channels: int = 3


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


@dataclass(frozen=True)
class EncoderSpec:
    """All that a runtime has to know of an encoder, and nothing that needs torch."""

    task: Task
    family: str
    pooling: str
    normalize: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: TextSpec | ImageSpec

    @property
    def vector(self) -> str | None:
        """Name of the output vector, or None where pooling is ``none``."""
        name = VECTOR_NAMES[self.task]
        return name if any(spec.name == name for spec in self.outputs) else None

    @property
    def has_features(self) -> bool:
        return any(spec.name == FEATURES_NAME for spec in self.outputs)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> EncoderSpec:
        kind = {"text": TextSpec, "image": ImageSpec}[data["task"]]
        return EncoderSpec(
            task=data["task"],
            family=data["family"],
            pooling=data["pooling"],
            normalize=data["normalize"],
            inputs=tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
            preprocessing=kind(**data["preprocessing"]),
        )

"""How a user may bend what a checkpoint says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.errors import RecipeError, nearest
from edgessl.spec import FEATURES_NAME, POOLINGS, VECTOR_NAMES, Task, TensorSpec


@dataclass(frozen=True)
class LoadOptions:
    """None leaves it to the checkpoint.

    ``pooling``: ``cls``, ``mean``, ``max``, ``pooler`` (the model's own) or ``none`` (features
    only).
    ``features``: also put out ``last_hidden_state``. ``max_length``: tokens, texts only.
    ``image_size``: height and width in pixels, images only.
    """

    pooling: str | None = None
    normalize: bool | None = None
    features: bool = False
    max_length: int | None = None
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise RecipeError(
                f"unknown pooling {self.pooling!r}.{nearest(self.pooling, POOLINGS)} "
                f"Poolings: {', '.join(POOLINGS)}."
            )


def output_specs(
    task: Task, pooling: str, features: bool, width: int, tokens: int | str
) -> tuple[TensorSpec, ...]:
    """The graph's outputs: the vector unless pooling is ``none``, then the features if wanted."""
    outputs: tuple[TensorSpec, ...] = ()
    if pooling != "none":
        outputs += (TensorSpec(VECTOR_NAMES[task], "float32", ("batch", width)),)
    if features or pooling == "none":
        outputs += (TensorSpec(FEATURES_NAME, "float32", ("batch", tokens, width)),)
    return outputs

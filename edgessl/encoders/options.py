"""How a user may bend what a checkpoint says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.errors import RecipeError, nearest
from edgessl.spec import (
    FEATURES_NAME,
    POOLINGS,
    PROBABILITIES,
    VECTOR_NAMES,
    Task,
    TensorSpec,
)

_ONLY: dict[str, Task] = {
    "max_length": "text",
    "prompt": "text",
    "image_size": "image",
    "patch_dropping": "image",
    "merge_tokens": "image",
    "max_seconds": "audio",
}


@dataclass(frozen=True)
class LoadOptions:
    """None leaves it to the checkpoint.

    ``pooling``: ``cls``, ``mean``, ``max``, ``pooler`` (the model's own) or ``none`` (features
    only).
    ``features``: also put out ``last_hidden_state``. ``max_length``: tokens, texts only.
    ``image_size``: height and width in pixels, images only. ``prompt``: the name of one of the
    checkpoint's prompts, texts only. ``dimensions``: keep the first so many of the vector, before
    normalisation (Matryoshka, Kusupati et al., 2022). ``tower``: ``image`` or ``text``, of a
    checkpoint that has both. ``probabilities``: of a fine-tuned classifier, instead of a vector.
    ``max_seconds``: where audio is cut. ``patch_dropping``: an input that says which patches are
    looked at (MAE). ``merge_tokens``: how many tokens each layer merges (vision transformers).
    """

    pooling: str | None = None
    normalize: bool | None = None
    features: bool = False
    max_length: int | None = None
    image_size: tuple[int, int] | None = None
    prompt: str | None = None
    dimensions: int | None = None
    tower: str | None = None
    probabilities: bool = False
    max_seconds: int | None = None
    patch_dropping: bool | None = None
    merge_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise RecipeError(
                f"unknown pooling {self.pooling!r}.{nearest(self.pooling, POOLINGS)} "
                f"Poolings: {', '.join(POOLINGS)}."
            )
        if self.probabilities and (self.pooling or self.features or self.dimensions):
            raise RecipeError(
                "--probabilities puts out the classifier's answer: without --pooling, --features "
                "and --dimensions."
            )
        if self.merge_tokens is not None and self.merge_tokens < 1:
            raise RecipeError(f"--merge-tokens must be at least 1, not {self.merge_tokens}.")
        if self.tower not in (None, "image", "text"):
            raise RecipeError(f"--tower {self.tower}: it is image or text.")

    def require_task(self, task: Task) -> None:
        """Refuse what only encoders of another task have.

        Raises:
            RecipeError: names the option and both tasks.
        """
        article = "a" if task in ("text", "video") else "an"
        for name, other in _ONLY.items():
            if other != task and getattr(self, name) is not None:
                raise RecipeError(
                    f"--{name.replace('_', '-')} is for {other} encoders; this is {article} {task} "
                    "encoder."
                )
        if self.probabilities and task in ("audio", "video"):
            raise RecipeError(f"--probabilities: not for {task} encoders, which give a vector.")


def output_specs(
    task: Task,
    pooling: str,
    options: LoadOptions,
    shapes: Sequence[Sequence[int]],
    tokens: str | None = None,
) -> tuple[TensorSpec, ...]:
    """The graph's outputs: the vector unless pooling is ``none``, then the features if wanted.

    Args:
        shapes: of the module's outputs for one example.
        tokens: name of the features' token axis; None where its size is fixed.

    Raises:
        RecipeError: more dimensions were asked for than the vector has.
    """
    outputs: tuple[TensorSpec, ...] = ()
    if pooling == PROBABILITIES:
        return (TensorSpec(PROBABILITIES, "float32", ("batch", shapes[0][1])),)
    if pooling != "none":
        width = shapes[0][1]
        if options.dimensions is not None and not 1 <= options.dimensions <= width:
            raise RecipeError(f"--dimensions {options.dimensions}: this vector has {width}.")
        outputs += (TensorSpec(VECTOR_NAMES[task], "float32", ("batch", width)),)
    elif options.dimensions is not None:
        raise RecipeError("--dimensions needs a vector, and --pooling none gives none.")
    if options.features or pooling == "none":
        _, length, width = shapes[-1]
        outputs += (TensorSpec(FEATURES_NAME, "float32", ("batch", tokens or length, width)),)
    return outputs

"""Image encoders of transformers: vision transformers, and convolutional networks alike.

What differs between the families is data (``edgessl.encoders.families``): how many tokens come
before the patches, and which vector is the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch

from edgessl import image_config
from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint, merging
from edgessl.encoders.attention import unmask
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head, HeadPlan, own_vector, probabilities, require_classifier
from edgessl.encoders.merging import Merging
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.errors import CheckpointError, EdgesslError, RecipeError, Unsupported, first_line
from edgessl.spec import (
    PATCH_INDICES,
    PROBABILITIES,
    EncoderSpec,
    ImageSpec,
    Provenance,
    TensorSpec,
)

Size = tuple[int, int]


class ImageEncoder(torch.nn.Module):
    """``pixel_values`` -> vector and/or features: class and register tokens first, then the
    patches row by row; for convolutional networks the cells of the last feature map.

    ``chooser``: the argument of the backbone that takes ``patch_indices``, int64 ``(batch, kept)``;
    the patches then come in that order.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        head: Head,
        options: dict[str, Any],
        chooser: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.options = options
        self.chooser = chooser
        self.merging: Merging | None = None

    def forward(
        self, pixel_values: torch.Tensor, patch_indices: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        dtype = next(self.backbone.parameters()).dtype
        chosen = {} if self.chooser is None else {self.chooser: patch_indices}
        result = self.backbone(pixel_values=pixel_values.to(dtype), **chosen, **self.options)
        if self.head.plan.pooling == PROBABILITIES:
            return (probabilities(result.logits, self.backbone.config),)
        hidden = result.last_hidden_state
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        pooled = own_vector(result) if self.head.plan.pooling == "pooler" else None
        sizes = None if self.merging is None else self.merging.sizes
        outputs: tuple[torch.Tensor, ...] = self.head(hidden, pooled=pooled, sizes=sizes)
        return outputs


def load(
    directory: Path,
    config: dict[str, Any],
    family: Family,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    """Load an image encoder from a Hugging Face directory.

    Raises:
        CheckpointError: weights or preprocessor_config.json are missing or damaged.
        RecipeError: an option that only texts have, or an image size that the model cannot take.
        Unsupported: a pooling that this family does not have.
    """
    import transformers

    return load_as(getattr(transformers, family.reads), directory, family, options, source)


def load_as(
    auto_class: Any,
    directory: Path,
    family: Family,
    options: LoadOptions,
    source: Provenance,
    prepare: Callable[[Any], None] | None = None,
    chooser: str | None = None,
) -> Encoder:
    """``load`` with the class that reads the checkpoint, and what is done to the model first.

    *chooser*: the argument of the model, once prepared, that takes the indices of the patches to
    look at; None where it has none.
    """
    for flag, value in (("--max-length", options.max_length), ("--prompt", options.prompt)):
        if value is not None:
            raise RecipeError(f"{flag} is for text encoders; this is an image encoder.")
    pooling = options.pooling or family.pooling
    if options.probabilities:
        from transformers import AutoModelForImageClassification

        pooling, auto_class = PROBABILITIES, AutoModelForImageClassification
    if pooling in ("weightedmean", "lasttoken"):
        raise Unsupported(f"--pooling {pooling} is for text encoders; this is an image encoder.")
    if pooling == "cls" and family.prefix == 0:
        raise Unsupported(f"{family.model_type} has no class token: use --pooling mean or pooler.")
    merging.check(options, family, pooling, chooser is not None)
    weights = checkpoint.find_weights(directory)
    checkpoint.check_weights(weights)
    # A missing pooler would be random; it is only allowed to be missing where it is not used.
    spare = () if pooling in ("pooler", PROBABILITIES) else (r"(^|\.)pooler\.",)
    backbone: Any = checkpoint.load_module(auto_class, directory, weights, allowed_missing=spare)
    if options.probabilities:
        require_classifier(backbone.config, source.source)
    unmask(backbone)
    if prepare is not None:
        prepare(backbone)
    preprocessor, size = _preprocessor(directory, backbone.config, options.image_size)
    channels = int(getattr(backbone.config, "num_channels", 3))
    prefix = family.prefix + int(getattr(backbone.config, "num_register_tokens", 0) or 0)
    plan = HeadPlan(
        pooling,
        bool(options.normalize),
        options.features,
        prefix=prefix,
        dimensions=options.dimensions,
    )
    wanted = options.patch_dropping is not False and options.merge_tokens is None
    dropping = chooser is not None and wanted
    module = ImageEncoder(backbone, Head(plan), {}, chooser if dropping else None)
    grid = _grid(backbone.config, size) if dropping else None
    if grid == (1, 1):
        grid = None  # the only patch, which no image can do without
    example = torch.zeros(1, channels, *size)
    module.options = _position_options(backbone, size)
    shapes = _bake(module, example, directory.name, size)
    if options.merge_tokens is not None:
        rows, columns = _grid(backbone.config, size)
        patches = rows * columns
        module.merging = merging.install(backbone, options.merge_tokens, patches, prefix)
    spec = EncoderSpec(
        task="image",
        family=family.model_type,
        pooling=pooling,
        normalize=bool(options.normalize) and pooling not in ("none", PROBABILITIES),
        inputs=(
            TensorSpec("pixel_values", "float32", ("batch", channels, *size)),
            *([TensorSpec(PATCH_INDICES, "int64", ("batch", "kept"))] if grid else []),
        ),
        outputs=output_specs("image", pooling, options, shapes, "tokens" if grid else None),
        preprocessing=ImageSpec(*size, channels, grid),
        merged=options.merge_tokens or 0,
    )
    return Encoder(
        module=module.eval(),
        spec=spec,
        provenance=replace(source, weights_sha256=checkpoint.sha256(weights)),
        assets={
            image_config.PREPROCESSOR_CONFIG: preprocessor,
            "config.json": (directory / "config.json").read_bytes(),
        },
    )


def _grid(config: Any, size: Size) -> Size:
    """Rows and columns of patches."""
    patch = _pair(config.patch_size)
    return size[0] // patch[0], size[1] // patch[1]


def _position_options(backbone: Any, size: Size) -> dict[str, Any]:
    """The argument by which a family interpolates its positions to another image size."""
    own = getattr(backbone.config, "image_size", None)
    if own is None or _pair(own) == size:
        return {}
    import inspect

    named = inspect.signature(type(backbone).forward).parameters
    return {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in named else {}


def _bake(module: ImageEncoder, example: torch.Tensor, name: str, size: Size) -> list[torch.Size]:
    """Run once; positions that the family's own code interpolates become constants.

    They depend on the image size alone. Left in the graph they would be a bicubic Resize, which
    not every target computes alike.

    Returns the shapes of the module's outputs.
    """
    computed: dict[Any, torch.Tensor] = {}

    def recorder(owner: Any, original: Any) -> Any:
        def record(*args: Any, **kwargs: Any) -> torch.Tensor:
            computed[owner] = original(*args, **kwargs)
            return computed[owner]

        return record

    for part in module.backbone.modules():
        if callable(original := getattr(part, "interpolate_pos_encoding", None)):
            part.interpolate_pos_encoding = recorder(part, original)
    try:
        with torch.no_grad():
            outputs = module(example)
    except (RuntimeError, ValueError, AssertionError) as err:
        raise RecipeError(
            f"{name} cannot take images of {size[0]} x {size[1]} (height x width): {first_line(err)}"
        ) from err
    for part, positions in computed.items():
        part.register_buffer("baked_positions", positions.detach().clone(), persistent=False)
        # A bound method, not a closure: it follows the module when it is copied for fp16.
        part.interpolate_pos_encoding = MethodType(_baked_positions, part)
    return [output.shape for output in outputs]


def _baked_positions(part: Any, *_args: Any, **_kwargs: Any) -> torch.Tensor:
    positions: torch.Tensor = part.baked_positions
    return positions


def _preprocessor(directory: Path, model: Any, asked: Size | None) -> tuple[bytes, Size]:
    """preprocessor_config.json, for the image size that was asked for, and that size.

    Without one asked for it is the size that the processor makes: models such as DINOv2 were
    pretrained at one size and are used at another.
    """
    path = directory / image_config.PREPROCESSOR_CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = image_config.read(path)
    except Unsupported:
        raise
    except (OSError, ValueError, EdgesslError) as err:
        raise CheckpointError(
            f"{directory.name}: {image_config.PREPROCESSOR_CONFIG} cannot be read ({err}). It says "
            "how images are resized and scaled. Save it beside the weights with the model's image "
            "processor: processor.save_pretrained(DIRECTORY)."
        ) from err
    own = getattr(model, "image_size", None)
    size = asked or config.output or (None if own is None else _pair(own))
    if size is None:
        raise RecipeError(
            f"{directory.name}: its processor keeps each image's own size; choose one with "
            "--image-size."
        )
    if size == config.output:
        return path.read_bytes(), size
    return json.dumps(_resized(content, config, size), indent=2).encode(), size


def _resized(
    content: dict[str, Any], config: image_config.ImageConfig, size: Size
) -> dict[str, Any]:
    """The processor's config with another output size; a crop keeps its share of the image."""
    height, width = size
    changed = {**content, "do_resize": True}
    if "ConvNext" in str(content.get("image_processor_type")) and height == width:
        return {**changed, "size": {"shortest_edge": height}}  # crops by its own rule
    if config.crop is None:
        return {**changed, "size": {"height": height, "width": width}}
    changed |= {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    if isinstance(config.size, int):
        edge = round(config.size * min(size) / min(config.crop))
        return {**changed, "size": {"shortest_edge": edge}}
    resized = config.size or config.crop
    return {
        **changed,
        "size": {
            "height": round(resized[0] * height / config.crop[0]),
            "width": round(resized[1] * width / config.crop[1]),
        },
    }


def _pair(size: int | list[int] | tuple[int, ...]) -> Size:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

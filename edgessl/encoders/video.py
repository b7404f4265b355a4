"""VideoMAE and V-JEPA 2: the frames of a clip in, one vector out.

Both are encoders of every patch here: nothing is masked, and the decoder of the one and the
predictor of the other, which only pretraining needs, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgessl import image_config
from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head, HeadPlan
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.errors import BundleError, CheckpointError, Unsupported
from edgessl.spec import EncoderSpec, Provenance, TensorSpec, VideoSpec

POOLINGS = ("mean", "max", "none")


class VideoEncoder(torch.nn.Module):
    """``(batch, frames, channels, height, width)`` -> vector and/or features: the patches of the
    first frames row by row, then those of the next (a patch is several frames deep)."""

    def __init__(self, backbone: torch.nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dtype = next(self.backbone.parameters()).dtype
        hidden = self.backbone(pixels.to(dtype)).last_hidden_state
        outputs: tuple[torch.Tensor, ...] = self.head(hidden)
        return outputs


class VideoMae(VideoEncoder):
    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.encode(pixel_values)


class VJepa2(VideoEncoder):
    def forward(self, pixel_values_videos: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.encode(pixel_values_videos)


@dataclass(frozen=True)
class _Kind:
    """How a family spells things."""

    module: type[VideoEncoder]
    reads: str  # class of transformers
    encoder: Callable[[Any], Any]  # the part of it that is the encoder
    input: str
    frames: str  # names in config.json
    size: str
    channels: str
    unused: tuple[str, ...] = ()  # patterns of weights that the encoder does without


_KINDS = {
    "videomae": _Kind(
        VideoMae,
        "VideoMAEModel",
        lambda model: model,
        "pixel_values",
        "num_frames",
        "image_size",
        "num_channels",
    ),
    "vjepa2": _Kind(
        VJepa2,
        "VJEPA2Model",
        lambda model: model.encoder,
        "pixel_values_videos",
        "frames_per_clip",
        "crop_size",
        "in_chans",
        (r"^predictor\.",),
    ),
}


def load(
    directory: Path,
    config: dict[str, Any],
    family: Family,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    """Load a video encoder from a Hugging Face directory.

    Raises:
        CheckpointError: weights or the preprocessor's config are missing or damaged, or the
            latter makes frames of another size than the model takes.
        Unsupported: a pooling that videos have not.
    """
    import transformers

    pooling = options.pooling or family.pooling
    if pooling not in POOLINGS:
        raise Unsupported(
            f"--pooling {pooling}: {family.model_type} has patches and nothing else. Poolings: "
            f"{', '.join(POOLINGS)}."
        )
    kind = _KINDS[family.model_type]
    weights = checkpoint.find_weights(directory)
    checkpoint.check_weights(weights)
    model: Any = checkpoint.load_module(
        getattr(transformers, kind.reads), directory, weights, allowed_missing=kind.unused
    )
    spec = _spec(model.config, kind)
    preprocessor = _preprocessor(directory, (spec.height, spec.width))
    plan = HeadPlan(
        pooling, bool(options.normalize), options.features, prefix=0, dimensions=options.dimensions
    )
    module = kind.module(kind.encoder(model), Head(plan)).eval()
    shape = (spec.frames, spec.channels, spec.height, spec.width)
    with torch.no_grad():
        shapes = [output.shape for output in module(torch.zeros(1, *shape))]
    return Encoder(
        module=module,
        spec=EncoderSpec(
            task="video",
            family=family.model_type,
            pooling=pooling,
            normalize=bool(options.normalize) and pooling != "none",
            inputs=(TensorSpec(kind.input, "float32", ("batch", *shape)),),
            outputs=output_specs("video", pooling, options, shapes),
            preprocessing=spec,
        ),
        provenance=replace(source, weights_sha256=checkpoint.sha256(weights)),
        assets={
            preprocessor.name: preprocessor.read_bytes(),
            "config.json": (directory / "config.json").read_bytes(),
        },
    )


def _spec(config: Any, kind: _Kind) -> VideoSpec:
    size = getattr(config, kind.size)
    height, width = (size, size) if isinstance(size, int) else size
    return VideoSpec(getattr(config, kind.frames), height, width, getattr(config, kind.channels))


def _preprocessor(directory: Path, size: tuple[int, int]) -> Path:
    path = image_config.video_config(directory)
    try:
        made = image_config.read(path).output
    except BundleError as err:  # it is no bundle yet: the checkpoint's file is what is wrong
        raise CheckpointError(
            f"{directory.name}: {path.name} cannot be read ({err}). It says how frames are resized "
            "and scaled. Save it beside the weights with the model's video or image processor: "
            "processor.save_pretrained(DIRECTORY)."
        ) from err
    if made not in (None, size):
        raise CheckpointError(
            f"{directory.name}: {path.name} makes frames of {made[0]} x {made[1]}, the model takes "
            f"{size[0]} x {size[1]} (height x width): set its size and crop_size to that."
        )
    return path

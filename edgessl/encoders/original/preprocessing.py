"""What is done to images before a network that comes without a word about it."""

from __future__ import annotations

from typing import Any

from edgessl.encoders.original.origins import BICUBIC, Origin

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP = 0.875  # 224 of 256


def processor(
    crop: tuple[int, int],
    size: dict[str, int],
    resample: int,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> dict[str, Any]:
    """preprocessor_config.json: resize to *size*, cut *crop* (height, width) out of the middle."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": resample,
        "do_center_crop": True,
        "crop_size": {"height": crop[0], "width": crop[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def usual(image_size: tuple[int, int], origin: Origin) -> tuple[dict[str, Any], str]:
    """How *origin*'s authors prepare ImageNet for evaluation, and the line that says so."""
    height, width = (origin.crop.get(side, side) for side in image_size)
    edge = int(min(height, width) / CROP)
    how = "bicubic" if origin.resample == BICUBIC else "bilinear"
    line = (
        f"images: shorter side to {edge} ({how}), the middle {height} x {width} of it, ImageNet "
        "mean and std: the file does not say"
    )
    size = {"shortest_edge": edge}
    if height != width:
        size = {"height": height, "width": width}
        line = line.replace(f"shorter side to {edge} ({how}), the middle", f"resized ({how}) to")
        line = line.replace(f"{width} of it", str(width))
    return processor((height, width), size, origin.resample), line

"""preprocessor_config.json of images and videos, in old and new spellings, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgessl import assets
from edgessl.errors import Unsupported

PREPROCESSOR_CONFIG = "preprocessor_config.json"
VIDEO_PREPROCESSOR_CONFIG = "video_preprocessor_config.json"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

_BILINEAR, _BICUBIC = 2, 3  # PIL.Image.Resampling
_STANDARD = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class ImageConfig:
    """What happens to an RGB image, in this order. Sizes are ``(height, width)`` in pixels.

    Attributes:
        size: resized to; an int is the length of the shorter edge; None: not resized.
        resample: one of ``PIL.Image.Resampling``.
        crop: cut out of the middle, with black around an image that is smaller; None: not cut.
        scale: pixel values 0..255 are multiplied by it; None: not scaled.
        mean, std: of each channel, applied after scaling; None: not normalised.
    """

    size: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    scale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def output(self) -> tuple[int, int] | None:
        """Size of every result, or None where it depends on the image."""
        return self.crop or (self.size if isinstance(self.size, tuple) else None)


@dataclass(frozen=True)
class _Defaults:
    """What a transformers image processor does where its config is silent."""

    size: dict[str, int] = field(default_factory=lambda: {"height": 224, "width": 224})
    resample: int = _BICUBIC
    do_center_crop: bool = False
    crop_size: int | None = 224
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] = _STANDARD
    square: bool = True  # what a bare integer size means: a square, or the shorter edge


# The processors of transformers whose pixels are resize, crop, scale, normalise and nothing else.
_SHORTEST = {"shortest_edge": 224}
_PROCESSORS = {
    "ViTImageProcessor": _Defaults(resample=_BILINEAR, crop_size=None),
    "DeiTImageProcessor": _Defaults(size={"height": 256, "width": 256}, do_center_crop=True),
    "BeitImageProcessor": _Defaults(),
    "BitImageProcessor": _Defaults(_SHORTEST, do_center_crop=True, mean_std=_CLIP, square=False),
    "CLIPImageProcessor": _Defaults(_SHORTEST, do_center_crop=True, mean_std=_CLIP, square=False),
    "SiglipImageProcessor": _Defaults(crop_size=None, square=False),
    "ConvNextImageProcessor": _Defaults({"shortest_edge": 384}, crop_size=None, square=False),
    # It resizes scaled floats where Pillow resizes bytes: up to half a grey level apart.
    "DINOv3ViTImageProcessor": _Defaults(
        resample=_BILINEAR, crop_size=None, mean_std=_IMAGENET, square=True
    ),
    "VideoMAEImageProcessor": _Defaults(_SHORTEST, _BILINEAR, do_center_crop=True, square=False),
    "VideoMAEVideoProcessor": _Defaults(_SHORTEST, _BILINEAR, do_center_crop=True, square=False),
    # It resizes with torchvision where edgessl does with Pillow: about one grey level apart.
    "VJEPA2VideoProcessor": _Defaults(
        resample=_BILINEAR, do_center_crop=True, crop_size=256, mean_std=_IMAGENET
    ),
}

_READ = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize "
    "image_mean image_std default_to_square image_processor_type feature_extractor_type "
    "video_processor_type".split()
)
# Keys that cannot change the pixels of an RGB image; what is not known to be so is refused.
_HARMLESS = frozenset(
    "do_convert_rgb do_reduce_labels reduce_labels processor_class _processor_class pad_size "
    "_valid_processor_keys _valid_kwargs_names input_data_format device return_tensors "
    "disable_grouping image_seq_length transformers_version _name_or_path "
    "do_sample_frames num_frames fps".split()  # edgessl samples as many as the model takes
)


def video_config(directory: Path) -> Path:
    """The file that says how frames are prepared: a video processor's, else an image processor's."""
    path = directory / VIDEO_PREPROCESSOR_CONFIG
    return path if path.is_file() else directory / PREPROCESSOR_CONFIG


def read(path: Path) -> ImageConfig:
    """Read the file *path*; a missing key takes its processor's default, null switches it off.

    Raises:
        BundleError: the file is missing or damaged, or a value makes no sense.
        Unsupported: a key or a processor that does something else to the pixels; names it.
    """
    config = assets.read_object(path)
    defaults = _defaults(path, config)
    convnext = defaults is _PROCESSORS["ConvNextImageProcessor"]
    _refuse_unknown(path, config, _READ | {"crop_pct"} if convnext else _READ)
    resample = config.get("resample", defaults.resample)
    if resample not in range(6):
        raise assets.damaged(path, f"resample is {resample!r}, expected 0 to 5")
    size = _size(path, config, defaults) if config.get("do_resize", True) else None
    crop = None
    if config.get("do_center_crop", defaults.do_center_crop):
        crop = _crop(path, config, defaults)
    if convnext and isinstance(size, int):
        size, crop = _convnext(size, _number(path, "crop_pct", config.get("crop_pct", 224 / 256)))
    if defaults is _PROCESSORS["VJEPA2VideoProcessor"] and crop and size:
        size = int(crop[0] * 256 / 224)  # whatever the file says: so does the library
    default_mean, default_std = defaults.mean_std
    normalize = config.get("do_normalize", True)
    return ImageConfig(
        size=size,
        resample=int(resample),
        crop=crop,
        scale=(
            _number(path, "rescale_factor", config.get("rescale_factor", 1 / 255))
            if config.get("do_rescale", True)
            else None
        ),
        mean=_channels(path, "image_mean", config, default_mean) if normalize else None,
        std=_channels(path, "image_std", config, default_std) if normalize else None,
    )


def _defaults(path: Path, config: dict[str, Any]) -> _Defaults:
    kind = str(
        config.get("image_processor_type")
        or config.get("video_processor_type")
        or config.get("feature_extractor_type")  # before transformers 4.26
        or "ViTImageProcessor"
    )
    name = (
        kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    )
    if name not in _PROCESSORS:
        raise Unsupported(
            f"{path}: image_processor_type {kind!r} is not supported. "
            f"Supported: {', '.join(_PROCESSORS)}."
        )
    return _PROCESSORS[name]


def _refuse_unknown(path: Path, config: dict[str, Any], read: frozenset[str]) -> None:
    for key, value in config.items():
        channels_first = key == "data_format" and value == "channels_first"
        off = value is None or value is False
        if key in read or key in _HARMLESS or off or channels_first:
            continue
        raise Unsupported(
            f"{path}: {key} = {value!r} is not supported: edgessl resizes, center-crops, rescales "
            "and normalizes. Remove the key if the model does without it, then export again."
        )


def _convnext(edge: int, crop_pct: float) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    """ConvNeXt's own rule: enlarge and crop below 384 pixels, squeeze into a square from there on."""
    if edge < 384:
        return int(edge / crop_pct), (edge, edge)
    return (edge, edge), None


def _size(path: Path, config: dict[str, Any], defaults: _Defaults) -> tuple[int, int] | int:
    square = bool(config.get("default_to_square", defaults.square))
    sides = _sides(path, "size", config.get("size", defaults.size), square)
    if set(sides) == {"height", "width"}:
        return sides["height"], sides["width"]
    if set(sides) == {"shortest_edge"}:
        return sides["shortest_edge"]
    raise Unsupported(
        f"{path}: size with {', '.join(sorted(sides))} is not supported: "
        "use height and width, or shortest_edge."
    )


def _crop(path: Path, config: dict[str, Any], defaults: _Defaults) -> tuple[int, int]:
    sides = _sides(path, "crop_size", config.get("crop_size", defaults.crop_size), square=True)
    if set(sides) != {"height", "width"}:
        raise assets.damaged(path, "crop_size needs height and width")
    return sides["height"], sides["width"]


def _sides(path: Path, key: str, value: object, square: bool) -> dict[str, int]:
    """A size in any of its spellings: 224, [224, 224], {"height": 224, "width": 224}, ..."""
    if isinstance(value, dict):
        sides = {str(name): side for name, side in value.items() if side is not None}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        sides = {"height": value[0], "width": value[1]}
    elif square:
        sides = {"height": value, "width": value}
    else:
        sides = {"shortest_edge": value}
    for side in sides.values():
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise assets.damaged(path, f"{key} is {value!r}, expected whole numbers of pixels")
    return sides


def _channels(
    path: Path, key: str, config: dict[str, Any], default: tuple[float, ...]
) -> tuple[float, ...]:
    value = config.get(key, default)
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3:
        raise assets.damaged(path, f"{key} has {len(values)} values, expected 3")
    numbers = tuple(_number(path, key, number) for number in values)
    if key == "image_std" and 0 in numbers:
        raise assets.damaged(path, "image_std is 0")
    return numbers


def _number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
        raise assets.damaged(path, f"{key} is {value!r}, expected a number")
    return float(value)

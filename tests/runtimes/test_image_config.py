"""preprocessor_config.json: defaults of each processor, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from edgessl.errors import BundleError, EdgesslError, ItemError, Unsupported
from edgessl.runtimes.image import ImagePreprocessor
from edgessl.spec import ImageSpec
from tests.pictures import (
    CROP,
    PICTURES,
    assert_same,
    expected,
    noise,
    open_224,
)


@pytest.mark.parametrize(
    ("config", "processor"),
    [
        ({}, ViTImageProcessorPil),
        ({"size": 224}, ViTImageProcessorPil),
        (
            {"size": [224, 224], "do_normalize": None, "crop_pct": None},
            ViTImageProcessorPil,
        ),
        ({"size": 224, "feature_extractor_type": "ViTFeatureExtractor"}, ViTImageProcessorPil),
        ({"image_processor_type": "ViTImageProcessorFast", "size": 224}, ViTImageProcessorPil),
        (
            {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224},
            DeiTImageProcessorPil,
        ),
        ({"image_processor_type": "DeiTImageProcessor"}, DeiTImageProcessorPil),
        ({"image_processor_type": "BeitImageProcessor"}, BeitImageProcessorPil),
        ({"image_processor_type": "BitImageProcessor"}, BitImageProcessorPil),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}},
            BitImageProcessorPil,
        ),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224}, CLIPImageProcessorPil),
        ({"image_processor_type": "SiglipImageProcessor"}, SiglipImageProcessorPil),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
            ConvNextImageProcessorPil,
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_pct": 0.95},
            ConvNextImageProcessorPil,
        ),
    ],
)
def test_defaults_of_each_processor(
    tmp_path: Path, config: dict[str, Any], processor: type[PilBackend]
) -> None:
    ours = open_224(tmp_path, config)
    for name in ("photo", "cifar", "wide"):
        image = Image.fromarray(PICTURES[name])
        assert_same(ours([image]), expected(tmp_path, [image], processor))


@pytest.mark.parametrize(
    "processor", [ViTImageProcessorPil, BitImageProcessorPil, CLIPImageProcessorPil]
)
def test_what_transformers_saves_is_read(tmp_path: Path, processor: type[PilBackend]) -> None:
    processor().save_pretrained(tmp_path)
    ours = ImagePreprocessor.open(tmp_path, ImageSpec(224, 224))
    image = Image.fromarray(PICTURES["photo"])
    assert_same(ours([image]), expected(tmp_path, [image], processor))


def test_convnext_squeezes_large_sizes(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ConvNextImageProcessor", "size": 384})
    )
    ours = ImagePreprocessor.open(tmp_path, ImageSpec(384, 384))
    image = Image.fromarray(PICTURES["photo"])
    assert_same(ours([image]), expected(tmp_path, [image], ConvNextImageProcessorPil))


def test_config_that_leaves_another_size(tmp_path: Path) -> None:
    ours = open_224(tmp_path, {"size": {"shortest_edge": 224}})
    assert ours([noise(300, 300)]).shape == (1, 3, 224, 224)
    with pytest.raises(ItemError, match="image 1 is 224 x 448 after .* takes 224 x 224"):
        ours([noise(300, 300), noise(100, 200)])


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"size": 256}, BundleError, "images of 256 x 256, but the manifest says 224 x 224"),
        ({**CROP, "crop_size": 192}, BundleError, "images of 192 x 192"),
        ({"do_center_crop": True}, BundleError, "crop_size"),
        ({"crop_size": {"shortest_edge": 9}, "do_center_crop": True}, BundleError, "crop_size"),
        ({"size": "224"}, BundleError, "size is '224'"),
        ({"size": {"height": 224.5, "width": 224}}, BundleError, "whole numbers"),
        ({"size": {"height": 0, "width": 224}}, BundleError, "whole numbers"),
        ({"resample": 6}, BundleError, "resample is 6"),
        ({"resample": "bicubic"}, BundleError, "resample is 'bicubic'"),
        ({"rescale_factor": "1/255"}, BundleError, "rescale_factor is '1/255'"),
        ({"image_mean": [0.5]}, BundleError, "image_mean has 1 values, expected 3"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, BundleError, "image_mean is nan"),
        ({"image_mean": None}, BundleError, "image_mean is None"),
        ({"resample": None}, BundleError, "resample is None"),
        ({"size": None}, BundleError, "size is None"),
        ({"image_std": [1, 0, 1]}, BundleError, "image_std is 0"),
        ({"crop_pct": 0.875}, Unsupported, "crop_pct = 0.875"),
        ({"do_pad": True, "pad_size": 224}, Unsupported, "do_pad = True"),
        ({"rescale_offset": True}, Unsupported, "rescale_offset"),
        ({"do_flip_channel_order": True}, Unsupported, "do_flip_channel_order"),
        ({"data_format": "channels_last"}, Unsupported, "data_format"),
        ({"size": {"longest_edge": 224}}, Unsupported, "longest_edge"),
        ({"size": {"shortest_edge": 9, "longest_edge": 19}}, Unsupported, "longest_edge"),
        ({"image_processor_type": "LevitImageProcessor"}, Unsupported, "'LevitImage"),
    ],
)
def test_config_that_cannot_be_followed(
    tmp_path: Path, config: dict[str, Any], error: type[EdgesslError], says: str
) -> None:
    with pytest.raises(error, match=rf"preprocessor_config\.json.*{says}"):
        open_224(tmp_path, config)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"preprocessor_config\.json: damaged"):
        ImagePreprocessor.open(tmp_path, ImageSpec(224, 224))


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"preprocessor_config\.json is missing"):
        ImagePreprocessor.open(tmp_path, ImageSpec(224, 224))


def test_only_rgb(mae: Path) -> None:
    with pytest.raises(Unsupported, match="1 channels"):
        ImagePreprocessor.open(mae, ImageSpec(32, 32, channels=1))

"""The encoder families: a row each. Adding one is a row here and, where it is new, a file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgessl.spec import Task


@dataclass(frozen=True)
class Family:
    """A family is what a Hugging Face ``model_type`` says a checkpoint is.

    ``loader`` names a function ``(directory, config, family, options, source) -> Encoder``.
    ``pooling`` is what makes the vector where neither the user nor the checkpoint says:
    ``pooler`` is the model's own pooled output.
    ``position_offset``: how many rows of a text encoder's position table no token can use
    (RoBERTa counts positions from ``pad_token_id + 1``).
    ``reads``: the class of transformers that loads it. ``mask``: ``additive`` where the model takes
    a ready additive mask as it is, ``plain`` where its own mask-building is needed (sliding
    windows, causal text towers, products of masks), ``none`` where it was trained to see padding,
    every text padded to ``pad_to`` tokens.
    ``prefix``: how many tokens an image encoder has before its patches, registers not counted.
    ``merges``: its tokens can be merged (``edgessl.encoders.merging``).
    """

    model_type: str
    task: Task
    loader: str
    pooling: str = "mean"
    position_offset: int = 0
    prefix: int = 1
    reads: str = "AutoModel"
    mask: str = "additive"
    pad_to: int | None = None
    merges: bool = False


_TEXT = "edgessl.encoders.text:load"
_IMAGE = "edgessl.encoders.vision:load"
_AUDIO = "edgessl.encoders.audio:load"
_VIDEO = "edgessl.encoders.video:load"

FAMILIES: dict[str, Family] = {
    row.model_type: row
    for row in (
        Family("bert", "text", _TEXT),
        Family("roberta", "text", _TEXT, position_offset=2),
        Family("xlm-roberta", "text", _TEXT, position_offset=2),
        Family("camembert", "text", _TEXT, position_offset=2),
        Family("distilbert", "text", _TEXT),
        Family("mpnet", "text", _TEXT, position_offset=2),
        Family("electra", "text", _TEXT),
        Family("albert", "text", _TEXT),
        Family("deberta-v2", "text", _TEXT, mask="plain"),
        Family("modernbert", "text", _TEXT, mask="plain"),
        Family("nomic_bert", "text", _TEXT),
        Family("eurobert", "text", _TEXT),
        Family("t5", "text", _TEXT, reads="T5EncoderModel"),
        Family("mt5", "text", _TEXT, reads="MT5EncoderModel"),
        Family("clip_text_model", "text", _TEXT, "pooler", reads="CLIPTextModel", mask="plain"),
        Family(
            "siglip_text_model",
            "text",
            _TEXT,
            "pooler",
            reads="SiglipTextModel",
            mask="none",
            pad_to=64,
        ),
        Family("vit_mae", "image", "edgessl.encoders.vit_mae:load", merges=True),
        Family("vit", "image", _IMAGE, "cls", merges=True),
        Family("deit", "image", _IMAGE, "cls", prefix=2, merges=True),
        Family("beit", "image", _IMAGE, "pooler"),
        Family("data2vec-vision", "image", _IMAGE, "mean"),
        Family("dinov2", "image", _IMAGE, "cls", merges=True),
        Family("dinov2_with_registers", "image", _IMAGE, "cls", merges=True),
        Family("dinov3_vit", "image", _IMAGE, "cls"),
        Family("dinov3_convnext", "image", _IMAGE, "pooler"),
        Family("ijepa", "image", _IMAGE, "mean", prefix=0, merges=True),
        Family("vit_msn", "image", _IMAGE, "cls", merges=True),
        Family("clip_vision_model", "image", _IMAGE, "pooler", merges=True),
        Family("siglip_vision_model", "image", _IMAGE, "pooler", prefix=0),
        Family("hiera", "image", _IMAGE, "pooler", prefix=0),
        Family("swin", "image", _IMAGE, "pooler", prefix=0),
        Family("convnextv2", "image", _IMAGE, "pooler", prefix=0),
        Family("resnet", "image", _IMAGE, "pooler", prefix=0),
        Family("wav2vec2", "audio", _AUDIO),
        Family("hubert", "audio", _AUDIO),
        Family("wavlm", "audio", _AUDIO),
        Family("data2vec-audio", "audio", _AUDIO),
        Family("videomae", "video", _VIDEO),
        Family("vjepa2", "video", _VIDEO),
    )
}

# Checkpoints with an image and a text tower in one shared space -> tower -> its family.
TOWERS: dict[str, dict[str, Family]] = {
    "clip": {
        "image": replace(FAMILIES["clip_vision_model"], reads="CLIPVisionModelWithProjection"),
        "text": replace(FAMILIES["clip_text_model"], reads="CLIPTextModelWithProjection"),
    },
    "siglip": {
        "image": replace(FAMILIES["siglip_vision_model"], reads="SiglipVisionModel"),
        "text": FAMILIES["siglip_text_model"],
    },
}

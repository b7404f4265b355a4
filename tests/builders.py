"""Tiny encoders with random weights, saved as real checkpoints, and texts that fit them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, ViTMAEConfig, ViTMAEForPreTraining

POSITIONS = 24  # tokens that every tiny text encoder has room for
# family -> (config class, its own spellings of the sizes); the "AutoModel" class follows from it
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "type_vocab_size": 2,
}
_PLAIN = {k: v for k, v in _SIZES.items() if k != "type_vocab_size"}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SIZES),
    "roberta": ("Roberta", _SIZES),
    "xlm-roberta": ("XLMRoberta", _SIZES),
    "camembert": ("Camembert", _SIZES),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "mpnet": ("MPNet", _PLAIN),
    "electra": ("Electra", {**_SIZES, "embedding_size": 16}),
    "albert": ("Albert", {**_SIZES, "embedding_size": 16}),
    "deberta-v2": (
        "DebertaV2",  # as version 3 sets it
        {
            **_SIZES,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": (
        "ModernBert",  # a window narrower than the texts, so that sliding attention matters
        {**_PLAIN, **_TOKENS, "local_attention": 6, "global_attn_every_n_layers": 2},
    ),
    "nomic_bert": ("NomicBert", _SIZES),
    "eurobert": ("EuroBert", {**_PLAIN, **_TOKENS, "num_key_value_heads": 2}),
    "t5": ("T5", _T5),
    "mt5": ("MT5", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "clip_text_model": ("CLIPText", {**_PLAIN, "bos_token_id": 1, "eos_token_id": 2}),
}
# The class that has the encoder alone, where it is not <family>Model.
_CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "clip_text_model": "CLIPTextModel"}
TEXT_FAMILIES = tuple(_CONFIGS)
_FROM_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions are counted from pad + 1


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights large enough that every one of them, position tables too, moves the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                is_scale = "norm" in name.lower() and name.endswith("weight")
                parameter.copy_(float(is_scale) + 0.2 * noise)
            else:
                parameter.copy_(noise * (1.0 if "embedding" in name else 0.25))


def save_tokenizer(directory: Path, pad_first: bool = True, extra_tokens: int = 0) -> int:
    """A WordPiece tokenizer of single letters; returns the size of its vocabulary."""
    special = ["[PAD]", "[CLS]"] if pad_first else ["[CLS]", "[PAD]"]
    letters = string.ascii_lowercase + string.digits
    names = [*special, "[SEP]", "[UNK]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    names += [f"extra{number}" for number in range(extra_tokens)]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    library: Any = PreTrainedTokenizerFast
    library(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(directory)
    return len(names)


def save_text_model(
    directory: Path, family: str = "bert", head: str = "Model", **config: Any
) -> Path:
    """A tiny checkpoint of *family* with random weights, and its tokenizer."""
    prefix, sizes = _CONFIGS[family]
    offset = 2 if family in _FROM_PAD else 0
    vocabulary = save_tokenizer(directory, pad_first=not offset)
    settings = {
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS + offset,
        "pad_token_id": 1 if offset else 0,
        **sizes,
        **config,
    }
    kind = _CLASSES.get(family, prefix + head) if head == "Model" else prefix + head
    if prefix.endswith("T5"):
        settings.pop("max_position_embeddings")
    model = getattr(transformers, kind)(getattr(transformers, f"{prefix}Config")(**settings))
    fill(model, seed=len(family))
    model.save_pretrained(directory)
    return directory


def load_text_model(directory: Path, family: str) -> Any:
    """The library's own model, with its own attention kernels and mask handling."""
    kind = getattr(transformers, _CLASSES.get(family, "AutoModel"))
    return kind.from_pretrained(directory).eval()


def save_mae(directory: Path, **config: Any) -> Path:
    """A tiny ViT-MAE for pretraining, decoder included, with random weights: 16 patches."""
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 16,
        "patch_size": 4,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 16,
    }
    model = ViTMAEForPreTraining(ViTMAEConfig(**{**settings, **config}))
    fill(model, seed=7)
    model.save_pretrained(directory)
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": model.config.image_size, "width": model.config.image_size},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return directory


def random_texts(count: int, seed: int = 0, longest: int = POSITIONS - 2) -> list[str]:
    """Texts of 1 to *longest* letters (a token each), a few of them words of several letters."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        letters = rng.choice(list(string.ascii_lowercase), int(rng.integers(1, longest + 1)))
        spaces = rng.choice(["", " "], len(letters))
        texts.append("".join(a + b for a, b in zip(letters, spaces, strict=True)).strip())
    return texts


def add_sentence_transformers(
    directory: Path,
    pooling: dict[str, Any],
    normalize: bool = True,
    settings: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
) -> Path:
    """Make *directory* a sentence-transformers directory, its transformer at the top."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    kinds += [("2_Normalize", "Normalize")] if normalize else []
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(directory / "modules.json", modules)
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    if settings is not None:
        write_json(directory / "sentence_bert_config.json", settings)
    if prompts is not None:
        write_json(directory / "config_sentence_transformers.json", prompts)
    return directory


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON object; a value of None takes the key out."""
    data = {**json.loads(path.read_text(encoding="utf-8")), **values}
    write_json(path, {key: value for key, value in data.items() if value is not None})

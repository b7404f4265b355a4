"""By what heads and channels are judged: which output must not move, for which inputs, and how much
each direction of it counts.

``vectors``: the encoder's own, all directions alike. ``reconstruction``: what its pretraining head
says of what is masked. ``labels``: a fine-tuned classifier's cross-entropy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgessl import sizes
from edgessl.backend import Arrays
from edgessl.compress import fisher, flow
from edgessl.compression import Checkpoint
from edgessl.encoder import Encoder
from edgessl.encoders import structures
from edgessl.encoders.checkpoint import find_weights, load_module, read_config
from edgessl.encoders.head import CLASSIFIERS
from edgessl.encoders.quiet import quiet_transformers
from edgessl.encoders.structures import Layer
from edgessl.errors import CheckpointError, Unsupported

_MASKED = 0.15  # of a text's tokens, as in BERT (Devlin et al., NAACL 2019)
_REPLACED, _RANDOM = 0.8, 0.1  # of these: by the mask token, by any other; the rest stay
_TINY = 1e-30


@dataclass(frozen=True)
class Signal:
    """``module``: its first output is what must not move, of each of ``batches``; its ``layers``
    have the encoder's weights. ``direction``: as ``fisher.measure`` takes it, ``projections`` times
    an item."""

    module: torch.nn.Module
    layers: Sequence[Layer]
    batches: Sequence[flow.Inputs]
    direction: fisher.Direction = fisher.normal
    projections: int = 2


def reconstruction(
    encoder: Encoder, batches: Sequence[flow.Inputs], place: Path, seed: int
) -> Signal:
    """The pretraining model of the checkpoint in *place*, for the inputs of *encoder*, masked.

    Raises:
        Unsupported: there is no such model of its family, or the weights lack its head.
    """
    from transformers import AutoModelForMaskedLM, ViTMAEForPreTraining
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    family = encoder.spec.family
    generator = torch.Generator().manual_seed(seed)
    if family == "vit_mae":
        model = _with_head(ViTMAEForPreTraining, place)
        size = int(model.config.patch_size)
        if not model.config.mask_ratio > 0:
            raise Unsupported("--signal reconstruction: config.json says that no patch is masked.")
        options: Any = getattr(encoder.module, "options", {})
        module: torch.nn.Module = _MaskedPatches(model, options)
        masked = [_patches(one["pixel_values"], size, generator) for one in batches]
        direction: fisher.Direction = fisher.normal
    elif family in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        model = _with_head(AutoModelForMaskedLM, place)
        token, special = _special(place)
        module = _MaskedTokens(model)
        words = torch.tensor(sorted(set(range(model.config.vocab_size)) - set(special)))
        masked = [_tokens(one, token, words, generator) for one in batches]
        direction = cross_entropy
    else:
        raise Unsupported(
            f"--signal reconstruction: for masked language models and ViT-MAE, and this is {family}; "
            "--signal vectors needs no head."
        )
    layers = structures.find(family, model, int(model.config.num_hidden_layers))
    return Signal(module, layers, masked, direction)


def require_classifier(checkpoint: Checkpoint) -> None:
    """Raise unless ``labels`` can ask what is in *checkpoint*.

    Raises:
        Unsupported: it has no classification head, or one that gives several labels.
    """
    kinds = [str(name) for name in checkpoint.config.get("architectures") or ()]
    if not any(name.endswith(CLASSIFIERS) for name in kinds):
        raise Unsupported(
            f"{checkpoint.source}: --signal labels needs a fine-tuned classifier "
            f"({', '.join('*' + name for name in CLASSIFIERS)}), and this is "
            f"{', '.join(kinds) or 'of unknown kind'}."
        )
    if checkpoint.config.get("problem_type") == "multi_label_classification":
        raise Unsupported(
            f"{checkpoint.source}: --signal labels takes one label an item, and this classifier "
            "gives any number of them."
        )


def labels(
    encoder: Encoder, layers: Sequence[Layer], prepared: Sequence[Arrays], classes: Iterable[int]
) -> Signal:
    """*encoder*, a classifier that puts out probabilities, for *prepared* inputs of single items
    and their *classes*."""
    module = _Labelled(encoder.module)
    items = [{**item, "labels": np.array([n])} for item, n in zip(prepared, classes, strict=True)]
    batches = flow.batches(module, layers, items)
    return Signal(module, layers, batches, of_label, projections=1)


def cross_entropy(
    logits: torch.Tensor, inputs: flow.Inputs, generator: torch.Generator
) -> torch.Tensor:
    """Of the cross-entropy's curvature by *logits* ``(rows, classes)``, E[u u^T] = diag(p) - p p^T:
    the true Fisher, for which the model's own answers are the labels (Kunstner et al., NeurIPS
    2019). p - onehot of a label drawn from p has the same mean, and a larger variance where the
    model is sure."""
    chances = logits.softmax(-1)
    root = chances.sqrt()
    normal = torch.randn(logits.shape, generator=generator) * root
    found: torch.Tensor = normal - chances * normal.sum(-1, keepdim=True)
    return found


def of_label(
    chances: torch.Tensor, inputs: flow.Inputs, generator: torch.Generator
) -> torch.Tensor:
    """The gradient of -log p(label) by the probabilities ``(items, classes)``, which is p - onehot
    by the logits: the empirical Fisher, of the labels that were given."""
    found = torch.zeros_like(chances)
    where = inputs["labels"][:, None]
    return found.scatter(1, where, -1 / chances.gather(1, where).clamp(min=_TINY))


class _Labelled(torch.nn.Module):
    """A classifier beside whose inputs are the labels, of which it takes no notice."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.classifier(**inputs)
        return found


class _MaskedTokens(torch.nn.Module):
    """``chosen``, bool ``(items, tokens)`` -> the logits of these tokens ``(chosen, vocabulary)``:
    those of all tokens would be large."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._chosen = torch.empty(0)
        model.get_output_embeddings().register_forward_pre_hook(self._pick)

    def forward(self, chosen: torch.Tensor, **inputs: torch.Tensor) -> tuple[torch.Tensor]:
        self._chosen = chosen
        return (self.model(**inputs).logits,)

    def _pick(self, _: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (given[0][self._chosen],)


class _MaskedPatches(torch.nn.Module):
    """-> the pixels of the masked patches ``(masked, pixels)``."""

    def __init__(self, model: torch.nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor]:
        result = self.model(pixel_values=pixel_values, noise=noise, **self.options)
        return (result.logits[result.mask.bool()],)


def _with_head(auto_class: Any, place: Path) -> Any:
    try:
        own = sizes.read(read_config(place))
        if own is not None and own.width is not None:
            raise CheckpointError("its stream is narrower than the one that its head was made for")
        weights = find_weights(place)
        return load_module(auto_class, place, weights, allowed_missing=())
    except CheckpointError as err:  # the encoder was read from it: what is wrong is its head
        why = str(err).removeprefix(f"{place}: ").partition(". ")[0].removesuffix(".")
        raise Unsupported(
            f"--signal reconstruction needs the head that the model was pretrained with: {why}. "
            "--signal vectors needs none."
        ) from err


def _special(place: Path) -> tuple[int, list[int]]:
    """The mask token, and all that are no words."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        tokenizer: Any = AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
    if tokenizer.mask_token_id is None:
        raise Unsupported(
            "--signal reconstruction: the tokenizer has no mask token; --signal vectors needs none."
        )
    return tokenizer.mask_token_id, tokenizer.all_special_ids


def _tokens(
    inputs: flow.Inputs, mask: int, words: torch.Tensor, generator: torch.Generator
) -> flow.Inputs:
    """*inputs* with ``_MASKED`` of the *words*, and one of each text at least, masked as BERT does;
    ``chosen`` says which."""
    ids = inputs["input_ids"]
    draw = torch.rand(ids.shape, generator=generator).masked_fill(~torch.isin(ids, words), 2.0)
    chosen = (draw < _MASKED) | ((draw == draw.amin(1, keepdim=True)) & (draw < 1))
    how = torch.rand(ids.shape, generator=generator)
    others = words[torch.randint(len(words), ids.shape, generator=generator)]
    changed = torch.where(
        how < _REPLACED, mask, torch.where(how < _REPLACED + _RANDOM, others, ids)
    )
    return {**inputs, "input_ids": torch.where(chosen, changed, ids), "chosen": chosen}


def _patches(pixels: torch.Tensor, size: int, generator: torch.Generator) -> flow.Inputs:
    """The noise by which the model chooses what it masks, ``(items, patches)``."""
    count = (pixels.shape[-2] // size) * (pixels.shape[-1] // size)
    noise = torch.rand(len(pixels), count, generator=generator)
    return {"pixel_values": pixels, "noise": noise}

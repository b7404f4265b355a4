"""Checkpoints in their authors' own layout -> a Hugging Face directory.

The files that papers publish (MAE, DINO, MoCo, I-JEPA, ...) and timm's models hold the same
networks as transformers, under other names; once renamed they are loaded as any other. Which
names are known is a table (``edgessl.encoders.original.origins``); how they become those of
transformers is one file a network. Nothing is guessed in silence: what a file does not say is in
``Converted.assumptions``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgessl.encoders.original import origins, preprocessing, reading, resnet, timm_model, vit
from edgessl.encoders.original.bare import infer_model_type
from edgessl.encoders.weights import sha256
from edgessl.errors import CheckpointError, OutputError

__all__ = ["Converted", "convert", "infer_model_type", "is_original"]

_LAYOUTS = {"vit": vit.convert, "resnet": resnet.convert}


@dataclass(frozen=True)
class Converted:
    """What ``convert`` read and what it took for granted.

    Attributes:
        origin: where the names come from, e.g. "MAE release", "timm vit_base_patch16_224.mae".
        assumptions: one line each, for people: what the file does not say.
        sha256: of the source weights, in hexadecimal (see ``edgessl.encoders.weights.sha256``).
        files: the source weights.
    """

    origin: str
    assumptions: tuple[str, ...]
    sha256: str
    files: tuple[Path, ...]


def is_original(path: Path) -> bool:
    """Whether *path* is for ``convert``: a weights file, or a directory that timm saved.

    A quick look at names and config.json; ``convert`` may still refuse what is in it.
    """
    if path.is_dir():
        return timm_model.is_timm(path)
    return path.is_file() and path.name.lower().endswith(reading.SUFFIXES)


def convert(source: Path, destination: Path) -> Converted:
    """Write *source* as a Hugging Face directory: every tensor of the encoder, once, in float32.

    Args:
        source: a .pth, .pt, .pth.tar, .ckpt, .bin or .safetensors file, or a directory with
            timm's config.json and its weights. Pickles run no code.
        destination: an empty directory; gets config.json, model.safetensors and
            preprocessor_config.json. Made where it is not there.

    Raises:
        CheckpointError: damaged, unsafe, of unknown names, or not complete; says which names.
        Unsupported: a network that transformers has no model for; says what differs.
        OutputError: *destination* has something in it.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise OutputError(f"{destination} is not an empty directory.")
    if source.is_dir() and not timm_model.is_timm(source):
        raise CheckpointError(
            f"{source} has no config.json with timm's 'architecture' in it. Name the weights file "
            f"itself ({', '.join(reading.SUFFIXES)})."
        )
    model = timm_model.read(source) if source.is_dir() else None
    loaded = reading.read(source)
    found = origins.find(source, loaded.content)
    if model is not None:
        timm_model.check(source, model, found.origin.layout)
    draft = _LAYOUTS[found.origin.layout](source, found, model)
    assumptions = [*found.assumptions, *draft.assumptions]
    if model is None:
        pixels, line = preprocessing.usual(draft.image_size, found.origin)
        assumptions.append(line)
    else:
        pixels = model.preprocessing
        assumptions += model.assumptions
    destination.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", draft.config), ("preprocessor_config.json", pixels)):
        (destination / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    reading.write(destination / "model.safetensors", draft.tensors)
    return Converted(
        origin=found.origin.name if model is None else f"timm {model.name}",
        assumptions=tuple(assumptions),
        sha256=sha256(loaded.weights),
        files=loaded.weights.files,
    )

"""Checkpoints in and out, for what makes them smaller: the same layout, other weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl import __version__, hub
from edgessl.backend import Report, silent
from edgessl.errors import CheckpointError, require

NOTES = "compression.json"  # what was done, beside the weights
# Of the transformer's own folder: written anew, or not of the smaller model any more.
_WEIGHTS = re.compile(r".*\.(safetensors|bin|h5|msgpack|ot|onnx)|.*\.index\.json|config\.json")
_VOCABULARY = re.compile(
    r"vocab\.(txt|json)|merges\.txt|.*\.model|tokenizer\.json|tokenizer_config\.json|"
    r"generation_config\.json"
)
_OTHER_FORMATS = ("onnx", "openvino", ".git", ".cache")  # folders


@dataclass(frozen=True)
class Checkpoint:
    """``place``: the folder of the transformer in *directory*. ``tensors``: by name, in torch;
    ``config``: of config.json. ``source``: a directory's name, or the hub id at ``revision``."""

    directory: Path
    place: Path
    source: str
    revision: str | None
    tensors: dict[str, Any]
    config: dict[str, Any]

    @property
    def parameters(self) -> int:
        return count(self.tensors.values())


def read(model: str, revision: str | None = None, report: Report = silent) -> Checkpoint:
    """Read a directory in the Hugging Face or sentence-transformers layout, or a hub id.

    Raises:
        EdgesslError: see ``edgessl.hub.resolve`` and ``edgessl.encoders.weights``.
        MissingDependency: torch, transformers or safetensors.
    """
    for module in ("torch", "transformers", "safetensors"):
        require(module, "compress", "reading a checkpoint")
    from edgessl.encoders import checkpoint, sentence_transformers, weights

    found = hub.resolve(model, revision, report)
    place = sentence_transformers.transformer_directory(found.directory)
    files = weights.find_weights(place)
    weights.check_weights(files)
    return Checkpoint(
        found.directory,
        place,
        found.source,
        found.revision,
        weights.read_tensors(files),
        checkpoint.read_config(place),
    )


def write(
    stage: Path,
    old: Checkpoint,
    tensors: Mapping[str, Any],
    config: Mapping[str, Any],
    tokenizer: Mapping[str, str] | None = None,
) -> None:
    """Fill *stage* with the smaller checkpoint: its weights and config, a new *tokenizer* (file
    name -> text) where there is one, and of *old* everything else that is still true."""
    from safetensors.torch import save_file

    target = stage / old.place.relative_to(old.directory)
    for path in sorted(old.directory.rglob("*")):
        relative = path.relative_to(old.directory)
        stale = path.parent == old.place and (
            _WEIGHTS.fullmatch(path.name) or (tokenizer and _VOCABULARY.fullmatch(path.name))
        )
        if path.is_dir() or stale or set(relative.parts[:-1]) & set(_OTHER_FORMATS):
            continue
        (stage / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, stage / relative)
    target.mkdir(parents=True, exist_ok=True)
    # clones: safetensors refuses tensors that share memory
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    _text(target / "config.json", dumped(config))
    for name, text in (tokenizer or {}).items():
        _text(target / name, text)


def note(stage: Path, old: Checkpoint, what: str, facts: Mapping[str, Any]) -> None:
    """Put what was done into ``NOTES``, after what was done before."""
    earlier = notes(old.place)
    done = {"edgessl": __version__, "source": old.source, "revision": old.revision, what: facts}
    _text(stage / old.place.relative_to(old.directory) / NOTES, dumped([*earlier, done]))


def notes(directory: Path) -> tuple[dict[str, Any], ...]:
    """What was done to the checkpoint in *directory*, as ``note`` wrote it; () where nothing was.

    Raises:
        CheckpointError: the file is damaged.
    """
    found = next((path for way in ("", "*/") for path in directory.glob(way + NOTES)), None)
    if found is None:
        return ()
    try:
        entries = json.loads(found.read_text(encoding="utf-8"))
        return tuple(dict(entry) for entry in entries)
    except (OSError, ValueError, TypeError) as err:
        raise CheckpointError(f"{found.name} cannot be read: {err}. Remove it.") from err


def count(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def size(tensors: Iterable[Any]) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def dumped(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

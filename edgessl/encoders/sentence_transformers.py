"""Read a sentence-transformers directory: modules.json and what it points to.

Format: https://sbert.net/docs/sentence_transformer/usage/custom_models.html (up to 5.x; the
pooling keys of 5.x and of earlier releases are both read).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.encoders.weights import read_json
from edgessl.errors import CheckpointError, Unsupported
from edgessl.spec import POOLINGS

_KINDS = ("Transformer", "Pooling", "Normalize")
_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Layout:
    """What such a directory declares; a bare Hugging Face directory declares nothing."""

    transformer: Path
    pooling: str | None = None
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""


def is_directory(directory: Path) -> bool:
    """Whether *directory* is laid out by sentence-transformers."""
    return (directory / "modules.json").is_file()


def transformer_directory(directory: Path) -> Path:
    """Where config.json and the weights lie: *directory*, or its transformer module's folder."""
    return _modules(directory)["Transformer"] if is_directory(directory) else directory


def read(directory: Path, pooling: str | None = None) -> Layout:
    """Read the layout of *directory*; *pooling* stands in for what it declares.

    Raises:
        CheckpointError: a file that modules.json names is missing or is not JSON.
        Unsupported: a module or a pooling that edgessl does not have.
    """
    if not is_directory(directory):
        return Layout(directory, pooling)
    modules = _modules(directory)
    settings = _first_json(modules["Transformer"], "sentence_bert_config.json")
    include_prompt = True
    if "Pooling" in modules:
        config = read_json(modules["Pooling"] / "config.json")
        pooling = pooling or _pooling(config, directory.name)
        include_prompt = config.get("include_prompt", True)
    return Layout(
        transformer=modules["Transformer"],
        pooling=pooling,
        normalize="Normalize" in modules,
        max_length=settings.get("max_seq_length"),
        lowercase=bool(settings.get("do_lower_case", False)),
        prompt=_default_prompt(directory, include_prompt),
    )


def _modules(directory: Path) -> dict[str, Path]:
    """Kind of each module that modules.json lists -> its folder."""
    path = directory / "modules.json"
    try:
        listed = [
            (str(module["type"]).rpartition(".")[2], str(module["path"]))
            for module in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise CheckpointError(f"{path}: not a list of modules ({err!r}).") from err
    kinds = [kind for kind, _ in listed]
    if not kinds or kinds != list(_KINDS[: len(kinds)]):
        unknown = [kind for kind in kinds if kind not in _KINDS]
        raise Unsupported(
            f"{directory.name}: modules.json asks for {', '.join(unknown or kinds) or 'nothing'}; "
            f"edgessl runs {', '.join(_KINDS)} in this order."
        )
    return {kind: _inside(directory, folder) for kind, folder in listed}


def _inside(directory: Path, path: str) -> Path:
    """A module's folder; one that leads out of the model's directory is refused."""
    folder = directory / path
    if not folder.resolve().is_relative_to(directory.resolve()):
        raise CheckpointError(f"{directory.name}: modules.json points outside it, to {path!r}.")
    return folder


def _pooling(config: dict[str, Any], name: str) -> str:
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or [])
    if not modes:
        modes = [value for key, value in _OLD_POOLING_KEYS.items() if config.get(key)]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise Unsupported(
            f"{name}: pools by {' + '.join(modes) or 'nothing'}; edgessl has "
            f"{', '.join(POOLINGS)}. Choose one with --pooling if you know that it is right."
        )
    return str(modes[0])


def _default_prompt(directory: Path, include_prompt: bool) -> str:
    config = _first_json(directory, "config_sentence_transformers.json")
    name = config.get("default_prompt_name")
    prompt = str((config.get("prompts") or {}).get(name, "")) if name else ""
    if prompt and not include_prompt:
        raise Unsupported(f"{directory.name}: pools without its prompt, which edgessl cannot yet.")
    return prompt


def _first_json(directory: Path, name: str) -> dict[str, Any]:
    path = directory / name
    return read_json(path) if path.is_file() else {}

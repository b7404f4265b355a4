"""Read a sentence-transformers directory: modules.json and what it points to.

Format: https://sbert.net/docs/sentence_transformer/usage/custom_models.html (up to 5.x; the
pooling keys of 5.x and of earlier releases are both read).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.errors import CheckpointError, Unsupported
from edgessl.spec import POOLINGS

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
    return read(directory).transformer


def read(directory: Path) -> Layout:
    """Read the layout of *directory*.

    Raises:
        CheckpointError: a file that modules.json names is missing or is not JSON.
        Unsupported: a module or a pooling that edgessl does not have.
    """
    if not is_directory(directory):
        return Layout(directory)
    modules = _json(directory / "modules.json")
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if unknown or kinds[:1] != ["Transformer"]:
        raise Unsupported(
            f"{directory.name}: modules.json asks for {', '.join(unknown or kinds)}; edgessl runs "
            "a Transformer, Pooling and Normalize in this order."
        )
    transformer = _inside(directory, modules[0]["path"])
    settings = _first_json(transformer, "sentence_bert_config.json")
    pooling, include_prompt = None, True
    if "Pooling" in kinds:
        config = _json(_inside(directory, modules[kinds.index("Pooling")]["path"]) / "config.json")
        pooling, include_prompt = (
            _pooling(config, directory.name),
            config.get("include_prompt", True),
        )
    return Layout(
        transformer=transformer,
        pooling=pooling,
        normalize="Normalize" in kinds,
        max_length=settings.get("max_seq_length"),
        lowercase=bool(settings.get("do_lower_case", False)),
        prompt=_default_prompt(directory, include_prompt),
    )


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
    return dict(_json(path)) if path.is_file() else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{path}: cannot be read as JSON ({err}).") from err

"""Read a sentence-transformers directory: modules.json and what it points to.

Format: https://sbert.net/docs/sentence_transformer/usage/custom_models.html (up to 5.x; the
pooling keys of 5.x and of earlier releases are both read).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgessl.encoders.head import Dense
from edgessl.encoders.weights import check_weights, find_weights, read_json, read_tensors
from edgessl.errors import CheckpointError, RecipeError, Unsupported, nearest
from edgessl.spec import POOLINGS

_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")  # the order that edgessl runs
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
    prompts: dict[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    dense: tuple[Path, ...] = ()

    def load_dense(self) -> tuple[Dense, ...]:
        """The Dense modules with their weights.

        Raises:
            CheckpointError: weights are missing, damaged or of another shape.
            Unsupported: an activation that is not in ``torch.nn``.
        """
        return tuple(_load_dense(folder) for folder in self.dense)


def is_directory(directory: Path) -> bool:
    """Whether *directory* is laid out by sentence-transformers."""
    return (directory / "modules.json").is_file()


def transformer_directory(directory: Path) -> Path:
    """Where config.json and the weights lie: *directory*, or its transformer module's folder."""
    return _modules(directory)["Transformer"][0] if is_directory(directory) else directory


def read(directory: Path, pooling: str | None = None, prompt: str | None = None) -> Layout:
    """Read the layout of *directory*; *pooling* stands in for what it declares, *prompt* for the
    name of its default prompt.

    Raises:
        CheckpointError: a file that modules.json names is missing or is not JSON.
        Unsupported: a module or a pooling that edgessl does not have.
    """
    if not is_directory(directory):
        return Layout(directory, pooling, **_prompts(directory, prompt, True))
    modules = _modules(directory)
    (transformer,) = modules["Transformer"]
    settings = _first_json(transformer, "sentence_bert_config.json")
    include_prompt = True
    if "Pooling" in modules:
        config = read_json(modules["Pooling"][0] / "config.json")
        pooling = pooling or _pooling(config, directory.name)
        include_prompt = bool(config.get("include_prompt", True))
    return Layout(
        transformer=transformer,
        pooling=pooling,
        normalize="Normalize" in modules,
        max_length=settings.get("max_seq_length"),
        lowercase=bool(settings.get("do_lower_case", False)),
        **_prompts(directory, prompt, include_prompt),
        dense=tuple(modules.get("Dense", ())),
    )


def _modules(directory: Path) -> dict[str, list[Path]]:
    """Kind of each module that modules.json lists -> its folders, in order."""
    path = directory / "modules.json"
    try:
        listed = [
            (str(module["type"]).rpartition(".")[2], str(module["path"]))
            for module in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise CheckpointError(f"{path}: not a list of modules ({err!r}).") from err
    kinds = [kind for kind, _ in listed]
    unknown = [kind for kind in kinds if kind not in _KINDS]
    ordered = not unknown and kinds == sorted(kinds, key=_KINDS.index)
    once = all(kinds.count(kind) == 1 for kind in set(kinds) - {"Dense"})
    if kinds[:1] != ["Transformer"] or not ordered or not once:
        raise Unsupported(
            f"{directory.name}: modules.json asks for {', '.join(unknown or kinds) or 'nothing'}; "
            f"edgessl runs {', '.join(_KINDS)} in this order."
        )
    folders: dict[str, list[Path]] = {}
    for kind, folder in listed:
        folders.setdefault(kind, []).append(_inside(directory, folder))
    return folders


def _load_dense(folder: Path) -> Dense:
    config = read_json(folder / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or not hasattr(torch.nn, kind):
        raise Unsupported(f"{folder}: activation {name!r} is not one of torch.nn.")
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise Unsupported(f"{folder}: a Dense module on anything but the sentence embedding.")
    bias = bool(config.get("bias", True))
    linear = torch.nn.Linear(int(config["in_features"]), int(config["out_features"]), bias=bias)
    weights = find_weights(folder)
    check_weights(weights)
    tensors = read_tensors(weights)
    wanted = {f"linear.{key}": value for key, value in linear.state_dict().items()}
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in wanted.items()}:
        raise CheckpointError(f"{folder}: its weights are not those of the layer in config.json.")
    linear.load_state_dict({k.partition(".")[2]: v.float() for k, v in tensors.items()})
    return Dense(linear, getattr(torch.nn, kind)())


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


def _prompts(directory: Path, name: str | None, include_prompt: bool) -> dict[str, Any]:
    """The fields of a ``Layout`` on prompts: the one called *name*, or the default one, and all."""
    config = _first_json(directory, "config_sentence_transformers.json")
    prompts = {str(key): str(text) for key, text in (config.get("prompts") or {}).items()}
    chosen = name or config.get("default_prompt_name")
    if chosen is not None and chosen not in prompts:
        raise RecipeError(
            f"{directory.name} has no prompt {chosen!r}.{nearest(chosen, prompts)} "
            f"Its prompts: {', '.join(prompts) or 'none'}."
        )
    prompt = prompts[chosen] if chosen is not None else ""
    if prompt and not include_prompt:
        raise Unsupported(f"{directory.name}: pools without its prompt, which edgessl cannot yet.")
    return {"prompt": prompt, "prompts": prompts, "include_prompt": include_prompt}


def _first_json(directory: Path, name: str) -> dict[str, Any]:
    path = directory / name
    return read_json(path) if path.is_file() else {}

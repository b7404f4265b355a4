"""The weight files of a local Hugging Face directory: which they are, and whether to open them."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from edgessl.errors import CheckpointError, first_line

Kind = Literal["safetensors", "pickle"]

_LAYOUTS: tuple[tuple[str, Kind], ...] = (
    ("model.safetensors", "safetensors"),
    ("model.safetensors.index.json", "safetensors"),
    ("pytorch_model.bin", "pickle"),
    ("pytorch_model.bin.index.json", "pickle"),
)
_FOREIGN = {
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "adapter_model.safetensors": "LoRA adapter (merge it into its base model first)",
    "adapter_model.bin": "LoRA adapter (merge it into its base model first)",
    "model.onnx": "ONNX",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_BLOCK = 2**20


@dataclass(frozen=True)
class Weights:
    """The files that hold a checkpoint's tensors: one, or the shards of an index."""

    files: tuple[Path, ...]
    kind: Kind


def find_weights(directory: Path) -> Weights:
    """The weights that transformers would load from *directory*, safetensors before pickles.

    Raises:
        CheckpointError: there are none, a shard is missing, or the directory has settings that
            would make transformers load something else instead.
    """
    for name, kind in _LAYOUTS:
        path = directory / name
        if not path.is_file():
            continue
        _refuse_substitutes(directory)
        return Weights(_shards(path) if name.endswith(".index.json") else (path,), kind)
    foreign = [f"{name}: {what}" for name, what in _FOREIGN.items() if (directory / name).is_file()]
    raise CheckpointError(
        f"{directory} has no weights that edgessl reads: "
        + " or ".join(name for name, _ in _LAYOUTS)
        + "."
        + (f" It holds {', '.join(foreign)}." if foreign else "")
    )


def check_weights(weights: Weights) -> None:
    """Find truncated, damaged and dangerous files before anything else opens them.

    Pickles are read with ``torch.load(weights_only=True)``: no code in them is run.

    Raises:
        CheckpointError: which file, and what is wrong with it.
    """
    check = _check_safetensors if weights.kind == "safetensors" else _check_pickle
    for path in weights.files:
        try:
            _refuse_pointer(path)
            check(path)
        except OSError as err:
            raise CheckpointError(f"{path} cannot be read ({first_line(err)}).") from err


def sha256(weights: Weights) -> str:
    """SHA-256 in hexadecimal.

    Of one file: of its content, as the hub publishes it. Of several: of the lines
    ``"<file name> <SHA-256 of its content>\\n"``, sorted.
    """
    lines = sorted(f"{path.name} {_file_sha256(path)}\n" for path in weights.files)
    if len(lines) == 1:
        return lines[0].split()[-1]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_tensors(weights: Weights) -> dict[str, torch.Tensor]:
    """Every tensor by its name; for files that ``check_weights`` has passed."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for path in weights.files:
        if weights.kind == "safetensors":
            tensors |= load_file(path)
        else:
            tensors |= torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or a CheckpointError with the line at which it is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as err:
        raise CheckpointError(f"{path}, line {err.lineno}: damaged JSON ({err.msg}).") from err
    except (OSError, UnicodeDecodeError) as err:
        raise CheckpointError(f"{path} cannot be read ({first_line(err)}).") from err
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not a JSON object.")
    return data


def _refuse_substitutes(directory: Path) -> None:
    """What makes transformers load other weights than those that were checked and hashed."""
    config = directory / "config.json"
    if config.is_file() and read_json(config).get("transformers_weights") is not None:
        raise CheckpointError(
            f"{config}: transformers_weights points to other weights; remove that line."
        )
    for pattern in ("adapter_config.json", "shard-*-model-*.safetensors"):
        for path in directory.glob(pattern):
            raise CheckpointError(
                f"{path} changes the weights of the model beside it: save the merged model in "
                "a directory of its own."
            )


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map.")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index} names files outside of its directory: {some(outside)}.")
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index.parent} lacks {len(absent)} of {len(names)} files that {index.name} names: "
            f"{some(absent)}. Download them too."
        )
    return tuple(index.parent / name for name in names)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the weights themselves: run 'git lfs pull' in "
            "that repository, or download the file."
        )


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    size, expected = path.stat().st_size, _safetensors_size(path)
    if size < expected:
        raise CheckpointError(
            f"{path} is truncated: it has {size} of {expected} bytes; download it again."
        )
    try:
        with safe_open(path, framework="pt"):
            return  # opening compares the sizes, types and offsets of all tensors
    except SafetensorError as err:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({first_line(err)}); download it again."
        ) from err


def _safetensors_size(path: Path) -> int:
    """Bytes that the file needs by its own header; 0 where that header makes no sense.

    Format: 8 bytes header size, the header (JSON), then the tensors' bytes back to back.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        header_size = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or header_size > _LARGEST_HEADER:
            return 8 if len(prefix) < 8 else 0
        header = file.read(header_size)
    if len(header) < header_size:
        return 8 + header_size
    try:
        tensors = [value for key, value in json.loads(header).items() if key != "__metadata__"]
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors]
    except (ValueError, TypeError, LookupError, AttributeError):
        return 0
    return 8 + header_size + max(ends, default=0)


def _check_pickle(path: Path) -> None:
    # Files of torch before 1.6 are no zip archives and cannot be mapped.
    mmap = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as err:
        # The message is torch's, a page long, and tells the user to switch the check off.
        wants = re.search(r"\bGLOBAL (\w\S*)", str(err))
        what = f"wants to call {wants[1]}" if wants else "holds more than tensors, or is damaged"
        raise CheckpointError(
            f"{path} is refused: its pickle {what}. Use a safetensors version of this model, or "
            "have it converted where you trust it."
        ) from err
    except Exception as err:  # RuntimeError, OSError, EOFError, KeyError, ...
        raise CheckpointError(
            f"{path} is truncated, damaged or not saved by torch ({first_line(err)}); download "
            "it again."
        ) from err
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not named tensors.")


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def some(names: list[str]) -> str:
    """The first three of *names*, for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

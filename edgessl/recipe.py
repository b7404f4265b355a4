"""The noun ``Recipe``: all that decides what a bundle will be, from flags or from one TOML."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgessl import passes
from edgessl.errors import RecipeError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# TOML section -> key -> field of Recipe
_LAYOUT: dict[str, dict[str, str]] = {
    "encoder": {
        key: key
        for key in (
            "model",
            "revision",
            "pooling",
            "normalize",
            "features",
            "max_length",
            "image_size",
            "prompt",
            "dimensions",
            "tower",
            "probabilities",
            "max_seconds",
            "patch_dropping",
            "merge_tokens",
        )
    },
    "quantize": {
        "precision": "precision",
        "calibration": "calibration",
        "column": "calibration_column",
        "samples": "samples",
        "seed": "seed",
        "method": "method",
        "exclude": "exclude",
        "max_drop": "max_drop",
        "isa": "isa",
    },
    "target": {
        "name": "target",
        "workspace_mb": "workspace_mb",
        "compute_capabilities": "compute_capabilities",
    },
}


@dataclass(frozen=True)
class Recipe:
    """What to build. None means: as the checkpoint says.

    ``precision``: of a bundle its own, else fp32. ``model``: a directory, a bundle that holds an
    ONNX, or a hub id (at ``revision``).
    ``image_size``: height and width in pixels. ``prompt``: name of one of the checkpoint's prompts.
    ``dimensions``: of the vector that are kept. ``tower``: of CLIP and SigLIP, ``image`` or
    ``text``. ``probabilities``: a classifier's answer instead of a vector.
    ``max_seconds``: where audio is cut. ``patch_dropping``: whether a session may leave out patches
    of an image. ``merge_tokens``: how many tokens each layer of a vision transformer merges.

    For int8: ``calibration``: data as docs/calibration.md has it, ``calibration_column`` of a
    table; ``samples`` of it are drawn with ``seed``; None is what edgessl carries. ``method``:
    how ranges are chosen. ``exclude``: layers that stay float, globs allowed. ``max_drop``:
    ``METRIC=X``. ``isa``: the CPUs that it must be right on: ``vnni``, ``any``, or ``auto``, which
    is full range where this machine's int8 is exact.
    ``workspace_mb`` and ``compute_capabilities`` are for TensorRT engines.
    ``passes``: what makes the checkpoint smaller first, one after the other.
    """

    model: str = ""
    target: str = ""
    precision: str | None = None
    revision: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    features: bool = False
    max_length: int | None = None
    image_size: tuple[int, int] | None = None
    prompt: str | None = None
    dimensions: int | None = None
    tower: str | None = None
    probabilities: bool = False
    max_seconds: int | None = None
    patch_dropping: bool | None = None
    merge_tokens: int | None = None
    calibration: str | None = None
    calibration_column: str | None = None
    samples: int = 300
    seed: int = 0
    method: str = "auto"
    exclude: tuple[str, ...] = ()
    max_drop: str | None = None
    isa: str = "auto"
    workspace_mb: int = 1024
    compute_capabilities: tuple[str, ...] = ()
    passes: tuple[passes.Pass, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it, and as it is read back: lists, no tuples."""
        values = {**asdict(self), "passes": [one.to_json() for one in self.passes]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def read(path: Path) -> Recipe:
    """Read a recipe; paths in it are relative to the recipe's folder. Its passes run in the order in
    which they stand.

    Raises:
        RecipeError: no such file, not TOML, an unknown section or key (names the nearest), or a
            value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise RecipeError(f"recipe {str(path)!r}: {err.strerror or err}.") from err
    except UnicodeDecodeError as err:
        raise RecipeError(f"recipe {str(path)!r} is not UTF-8 text (byte {err.start}).") from err
    except tomllib.TOMLDecodeError as err:
        raise RecipeError(f"recipe {str(path)!r} is not TOML: {err}.") from err
    types = {field.name: str(field.type) for field in fields(Recipe)}
    values: dict[str, Any] = {}
    smaller: list[passes.Pass] = []
    sections = (*_LAYOUT, *passes.PASSES)
    for section, content in data.items():
        if section not in sections or not isinstance(content, dict):
            raise RecipeError(
                f"{path}: unknown section [{section}].{nearest(section, sections)} "
                f"Sections: {', '.join(f'[{name}]' for name in sections)}."
            )
        if section in passes.PASSES:
            smaller.append(passes.read(section, content, path.parent, str(path)))
            continue
        for key, value in content.items():
            if key not in _LAYOUT[section]:
                raise RecipeError(
                    f"{path}: unknown key {key!r} in [{section}].{nearest(key, _LAYOUT[section])}"
                    f" Keys: {', '.join(_LAYOUT[section])}."
                )
            name = _LAYOUT[section][key]
            values[name] = _checked(value, types[name], f"{path}: {key} in [{section}]")
    for name in ("model", "calibration"):
        if values.get(name) and (path.parent / values[name]).exists():
            values[name] = str(path.parent / values[name])
    return replace(Recipe(), **values, passes=tuple(smaller))


def image_size(value: Any, where: str) -> tuple[int, int]:
    """Height and width of 224, [224, 192], "224" or "224x192".

    Raises:
        RecipeError: anything else; *where* says whose it is.
    """
    parts = value.split("x") if isinstance(value, str) else value
    sides = [parts, parts] if isinstance(parts, int) else parts
    try:
        numbers = [int(str(side)) for side in sides]  # neither 224.5 nor true
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or min(numbers) < 1:
        raise RecipeError(f"{where} is {value!r}; it should be pixels: 224, or 224x192 (h x w).")
    return numbers[0], numbers[1]


def _checked(value: Any, kind: str, where: str) -> Any:
    """*value* if it has the type that *kind* (an annotation of Recipe) asks for."""
    if kind.startswith("tuple[int, int]"):
        return image_size(value, where)
    if kind.startswith("tuple") and isinstance(value, list):
        return tuple(str(item) for item in value)
    names = {"str": "a string", "int": "a whole number", "bool": "true or false"}
    wanted = kind.partition(" ")[0]
    if type(value).__name__ != wanted:
        raise RecipeError(f"{where} is {value!r}; it should be {names.get(wanted, 'a list')}.")
    return value

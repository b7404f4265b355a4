"""The noun ``Recipe``: all that decides what a bundle will be, from flags or from one TOML."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# TOML section -> key -> field of Recipe
_LAYOUT: dict[str, dict[str, str]] = {
    "encoder": {
        key: key for key in ("model", "revision", "pooling", "normalize", "features", "max_length")
    },
    "quantize": {
        "precision": "precision",
        "calibration": "calibration",
        "samples": "samples",
        "seed": "seed",
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

    ``precision``: of a bundle its own, else fp32. ``model``: a directory, a bundle that holds an ONNX, or a hub id (at ``revision``).
    ``calibration``: for int8; a text file (a text a line), a folder of images, or an .npy/.npz
    of uint8 images ``(n, H, W, 3)``; ``samples`` of it are drawn with ``seed``.
    ``workspace_mb`` and ``compute_capabilities`` are for TensorRT engines.
    """

    model: str = ""
    target: str = ""
    precision: str | None = None
    revision: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    features: bool = False
    max_length: int | None = None
    calibration: str | None = None
    samples: int = 300
    seed: int = 0
    workspace_mb: int = 1024
    compute_capabilities: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read(path: Path) -> Recipe:
    """Read a recipe; paths in it are relative to the recipe's folder.

    Raises:
        RecipeError: no such file, not TOML, an unknown section or key (names the nearest), or a
            value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise RecipeError(f"recipe {str(path)!r}: {err}") from err
    types = {field.name: str(field.type) for field in fields(Recipe)}
    values: dict[str, Any] = {}
    for section, content in data.items():
        if section not in _LAYOUT or not isinstance(content, dict):
            raise RecipeError(
                f"{path}: unknown section [{section}].{nearest(section, _LAYOUT)} "
                f"Sections: {', '.join(f'[{name}]' for name in _LAYOUT)}."
            )
        for key, value in content.items():
            if key not in _LAYOUT[section]:
                raise RecipeError(
                    f"{path}: unknown key {key!r} in [{section}].{nearest(key, _LAYOUT[section])}"
                    f" Keys: {', '.join(_LAYOUT[section])}."
                )
            name = _LAYOUT[section][key]
            values[name] = _checked(value, types[name], f"{path}: {key} in [{section}]")
    for name in ("model", "calibration"):
        if name in values and (path.parent / values[name]).exists():
            values[name] = str(path.parent / values[name])
    return replace(Recipe(), **values)


def _checked(value: Any, kind: str, where: str) -> Any:
    """*value* if it has the type that *kind* (an annotation of Recipe) asks for."""
    if kind.startswith("tuple") and isinstance(value, list):
        return tuple(str(item) for item in value)
    wanted = {"str": str, "int": int, "bool": bool}.get(kind.partition(" ")[0])
    if wanted is None or type(value) is not wanted:
        raise RecipeError(f"{where} is {value!r}, which should be: {kind.partition(' ')[0]}.")
    return value

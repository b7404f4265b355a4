"""Read the small JSON files that a bundle carries beside its graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgessl.errors import BundleError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in *path*.

    Raises:
        BundleError: the file is missing, unreadable, not JSON or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise missing(path) from err
    except (OSError, ValueError, RecursionError) as err:
        raise damaged(path, str(err)) from err
    if not isinstance(data, dict):
        raise damaged(path, f"it holds a {type(data).__name__}, not an object")
    return data


def missing(path: Path) -> BundleError:
    return BundleError(
        f"{path.name} is missing from {str(path.parent)!r}. Copy or export the bundle again."
    )


def damaged(path: Path, reason: str) -> BundleError:
    return BundleError(f"{path}: damaged ({reason}). Copy or export the bundle again.")

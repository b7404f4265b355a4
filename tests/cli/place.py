"""What a clumsy user has lying about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[..., tuple[int, str, str]]


class Call:
    """A pickle that writes a file when it is loaded without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "ran")


def weights_of(model: Path) -> Path:
    return model / "model.safetensors"


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return noise.repeat(4, axis=1).repeat(4, axis=2)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }

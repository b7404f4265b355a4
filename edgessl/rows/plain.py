"""Plain text files, and paths that are nothing to read."""

from __future__ import annotations

from pathlib import Path

from edgessl.errors import RecipeError
from edgessl.image_config import IMAGE_SUFFIXES
from edgessl.rows import readers

_NO_TEXT = IMAGE_SUFFIXES | {".wav", ".npy", ".npz", ".pt", ".pkl", ".pdf", ".docx", ".xlsx"}
_TEXT = (
    "a text encoder needs a text file with a text a line, or a table with a column of texts "
    "(.csv, .tsv, .jsonl, .json, .parquet, or a folder that datasets wrote)"
)


def check_there(path: Path) -> None:
    """Raise a ``RecipeError`` where there is no file or folder that can be read twice."""
    if not path.exists():
        raise RecipeError(f"data {str(path)!r}: no such file or folder.")
    if not path.is_dir() and not path.is_file():
        raise RecipeError(
            f"data {str(path)!r} is a pipe or a device, and edgessl reads it twice. Write it to a "
            "file first."
        )


def texts(path: Path, lenient: bool = False) -> readers.Streamed:
    """The lines of *path*, which is no table.

    Raises:
        RecipeError: a folder, or a file that is surely no text.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise RecipeError(f"data {str(path)!r} is a folder; {_TEXT}.")
    if suffix in _NO_TEXT:
        raise RecipeError(f"data {str(path)!r} is a {suffix}; {_TEXT}.")
    return readers.text_lines(path, lenient)

"""Images and labels in one .npz, as MedMNIST, Keras and others lay them out."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError
from edgessl.gate.evaluate.data import LABELLED, Data
from edgessl.rows import media
from edgessl.rows.base import unreadable
from edgessl.spec import Task


def has_labels(path: Path) -> bool:
    """Whether it holds more than one array: items alone are ``edgessl.rows.media``'s."""
    try:
        with zipfile.ZipFile(path) as archive:
            return len(archive.namelist()) > 1
    except (OSError, zipfile.BadZipFile):
        return False  # whoever reads it will say what is wrong


def read(path: Path, task: Task) -> Data:
    """The items and their labels: one array of each, or one for training and one for testing.

    An array of labels is ``(n,)`` or ``(n, 1)``; which are for testing its name says
    (``test_images``, ``y_test``).

    Raises:
        RecipeError: damaged, other arrays than these, or arrays that do not fit each other.
    """
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for name, array in _load(path).items():
        side = next((side for side in ("test", "train", "val") if side in name.lower()), "")
        what = "labels" if array.ndim == 1 or array.shape[1:] == (1,) else "items"
        if what in parts.setdefault(side, {}):
            raise _strange(path, f"it has two arrays of {what}")
        parts[side][what] = array.reshape(-1) if what == "labels" else array
    parts.pop("val", None)
    if parts.keys() not in ({""}, {"train", "test"}):
        raise _strange(path, f"it has {', '.join(parts) or 'no'} arrays")
    for side, arrays in parts.items():
        if len(arrays) != 2 or len(arrays["items"]) != len(arrays["labels"]):
            raise _strange(path, "some have no labels, or not as many")
        media.check_array(arrays["items"], path, task)
        if arrays["labels"].dtype.kind not in "iuUb":
            raise _strange(path, f"the labels are {arrays['labels'].dtype}")
    items = [item for arrays in parts.values() for item in arrays["items"]]
    sides = np.concatenate([np.full(len(a["labels"]), side == "test") for side, a in parts.items()])
    labels = np.concatenate([arrays["labels"].astype(str) for arrays in parts.values()])
    split = ", split into train and test" if len(parts) == 2 else ""
    return Data(
        path.name,
        LABELLED,
        items,
        ids=list(range(len(items))),
        labels=labels,
        held_out=sides if len(parts) == 2 else None,
        notes=(f"read as labelled items: arrays of items and of labels{split}",),
    )


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
        raise unreadable(path, err) from err


def _strange(path: Path, reason: str) -> RecipeError:
    return RecipeError(
        f"data {str(path)!r}: {reason}. It should hold one array of items and one of labels (whole "
        "numbers or texts), or two of each with train and test in their names."
    )

"""What can go wrong, as a user sees it.

    EdgesslError                exit code 2 unless said otherwise
    ├── RecipeError             2  an option, path or recipe that makes no sense
    │   └── ItemError           2  one item of a list that cannot be used; has its index
    ├── CheckpointError         2  a model directory that cannot be trusted or read
    ├── OutputError             2  the result cannot be written where it was asked for
    ├── DeviceError             2  another device cannot be reached, was lost, or failed
    ├── ParityError             1  the bundle does not say what the encoder said
    ├── MissingDependency       3  also an ImportError; says what to install
    ├── Unsupported             3  a model, target or precision edgessl does not do
    └── BundleError             4  a bundle that is damaged
        └── DeviceMismatch      4  a sound bundle that is not for this device

Errors of other libraries are wrapped where they enter edgessl (``raise ... from err``);
the command line prints the message as one line and never a traceback.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from types import ModuleType


class EdgesslError(Exception):
    """Base of every error that edgessl raises on purpose."""

    exit_code = 2


class RecipeError(EdgesslError):
    """An option, a path or a recipe that cannot be carried out as given."""


class ItemError(RecipeError):
    """One of the texts, images, ... that were given cannot be used; ``index`` says which."""

    def __init__(self, message: str = "", index: int = -1) -> None:
        super().__init__(message)
        self.index = index


class CheckpointError(EdgesslError):
    """A model directory that is incomplete, damaged, unsafe to load or full of NaN."""


class OutputError(EdgesslError):
    """The output exists, cannot be written, or did not fit on the disk."""


class DeviceError(EdgesslError):
    """A device that cannot be reached, was lost, or failed at what was asked of it."""


class ParityError(EdgesslError):
    """The built bundle's outputs are outside the bound of its precision: a verdict."""

    exit_code = 1


class MissingDependency(EdgesslError, ImportError):
    """A library that this job needs is not installed; the message has the command."""

    exit_code = 3


class Unsupported(EdgesslError):
    """Something that edgessl does not do, or does not do on this target."""

    exit_code = 3


class BundleError(EdgesslError):
    """A directory that is not a bundle, or a bundle whose files are not as written."""

    exit_code = 4


class DeviceMismatch(BundleError):
    """A sound bundle that this device cannot run."""


# Is told the index and the error of each item that cannot be used, so that the others can.
Refused = Callable[[int, EdgesslError], None]


def refuse(error: ItemError, refused: Refused | None, cause: BaseException | None = None) -> None:
    """Tell *refused* of an item that cannot be used; where nobody listens, raise."""
    if refused is None:
        raise error from cause
    refused(error.index, error)


def nearest(word: str, choices: Iterable[str]) -> str:
    """``" Did you mean 'int8'?"`` when one of *choices* is close to *word*, else ``""``."""
    close = difflib.get_close_matches(word.lower(), list(choices), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def first_line(err: BaseException) -> str:
    """What a foreign error says, short enough to stand in one of our lines."""
    lines = str(err).strip().splitlines() or [""]
    return f"{type(err).__name__}: {lines[0].rstrip('.')}"[:300].rstrip(": ")


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import *module*, or say which extra of edgessl brings it.

    Raises:
        MissingDependency: *module* is not installed, or does not load here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        top = module.partition(".")[0]
        absent = isinstance(err, ModuleNotFoundError) and (err.name or "").partition(".")[0] == top
        reason = "is not installed" if absent else f"does not load ({err})"
        raise MissingDependency(
            f"{purpose} needs {top}, which {reason}. Install it: pip install 'edgessl[{extra}]'"
        ) from err

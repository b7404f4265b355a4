"""Where a model is: a directory on this disk, or a Hugging Face hub id that is downloaded.

``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and the proxies are the client
library's own business: it reads them when it is first imported.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import NoReturn

from edgessl.backend import Report, silent
from edgessl.errors import (
    CheckpointError,
    EdgesslError,
    OutputError,
    RecipeError,
    first_line,
    nearest,
    require,
)

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)

# Folders that sentence-transformers writes for the modules of a model: 0_Transformer, 1_Pooling.
_READ = re.compile(r"(\d+_\w+/)?[^/]+\.(json|txt|model)")
_INDEX = re.compile(r"[^/]+\.index\.json$")
_LARGEST_TEXT = 64 * 2**20  # bytes; the largest tokenizer.json in use are about half of this

# Of each folder, the first of these that is there.
_WEIGHTS = tuple(
    re.compile(r"(?P<folder>(\d+_\w+/)?)" + name)
    for name in (
        r"model\.safetensors",
        r"model(-\d+-of-\d+\.safetensors|\.safetensors\.index\.json)",
        r"pytorch_model\.bin",
        r"pytorch_model(-\d+-of-\d+\.bin|\.bin\.index\.json)",
    )
)


@dataclass(frozen=True)
class ModelSource:
    """A model's files on this disk, and where they are from.

    ``source`` is the directory's own name (never its path) or the hub id; ``revision`` is the
    hub's commit, None for a directory.
    """

    directory: Path
    source: str
    revision: str | None = None


def resolve(model: str, revision: str | None = None, report: Report = silent) -> ModelSource:
    """Find *model*: an existing directory, else a hub id (``name`` or ``organisation/name``).

    From the hub come only the files that edgessl reads. *revision* is a branch, a tag or a
    commit there. Where the hub cannot be reached, a copy in the client's cache is used, and
    *report* says so.

    Raises:
        RecipeError: no such directory or repository, no access to it, no such revision, or the
            hub cannot be reached and nothing is cached.
        CheckpointError: a repository without weights that edgessl reads.
        MissingDependency: a hub id, and no ``huggingface_hub``.
        OutputError: the cache cannot be written.
    """
    path = Path(os.path.expanduser(model))
    if model and os.path.isdir(path):
        if revision is not None:
            raise RecipeError(
                f"revision {revision!r}: {model!r} is a directory, only hub models have revisions."
            )
        return ModelSource(path, os.path.basename(os.path.abspath(path)))
    if os.path.isfile(path):
        raise RecipeError(
            f"{model!r} is a file: give the directory that holds the model's config.json."
        )
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise RecipeError(f"no such directory: {model!r}.{_sibling(path)}")
    return _download(model, revision, report)


def wanted(sizes: Mapping[str, int | None]) -> list[str]:
    """Of a repository's files (name -> bytes, None where unknown) those that edgessl reads."""
    weights: dict[str, list[str]] = {}  # folder -> names
    for kind in _WEIGHTS:
        found: dict[str, list[str]] = {}
        for name in sizes:
            if match := kind.fullmatch(name):
                found.setdefault(match["folder"], []).append(name)
        weights = {**found, **weights}  # the earlier kind wins
    small = [
        name
        for name, size in sizes.items()
        if _READ.fullmatch(name) and not _INDEX.search(name) and (size or 0) <= _LARGEST_TEXT
    ]
    return sorted(small + [name for names in weights.values() for name in names])


def _download(model: str, revision: str | None, report: Report) -> ModelSource:
    hub = require("huggingface_hub", "compress", f"{model!r} is no directory; downloading it")
    try:
        try:
            info = hub.HfApi().model_info(model, revision=revision, files_metadata=True)
        except Exception as err:
            if not _unreachable(err):
                raise
            return _from_cache(model, revision, err, report)
        sizes = {file.rfilename: file.size for file in info.siblings or []}
        names = wanted(sizes)
        _require_weights(model, sizes, names)
        total = sum(sizes[name] or 0 for name in names) / 1e6
        report(f"{model} at {info.sha[:12]}: {len(names)} files, {total:.1f} MB")
        # By the name that was asked for, not by the commit: so the cache learns which commit
        # it stands for, and an offline machine can find it again.
        folder = Path(
            hub.snapshot_download(
                model,
                revision=revision,
                allow_patterns=[glob.escape(name) for name in names],
                tqdm_class=None if sys.stderr.isatty() else _no_bar(),
            )
        )
    except EdgesslError:
        raise
    except Exception as err:
        _fail(model, revision, err)
    if folder.name != info.sha:
        raise RecipeError(
            f"{model}: the hub answered with commit {info.sha[:12]}, then with "
            f"{folder.name[:12]}: start again."
        )
    return ModelSource(folder, model, folder.name)


def _from_cache(model: str, revision: str | None, reason: Exception, report: Report) -> ModelSource:
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        # All patterns are ignored: the client would ask for the files that edgessl never
        # fetches. What the copy lacks is found below, and when the model is read.
        folder = Path(
            hub.snapshot_download(
                model, revision=revision, local_files_only=True, ignore_patterns=["*"]
            )
        )
    except LocalEntryNotFoundError:
        raise reason from None
    if not _has_weights(path.relative_to(folder).as_posix() for path in folder.rglob("*")):
        raise reason
    offline = isinstance(reason, OfflineModeIsEnabled)
    why = "HF_HUB_OFFLINE is set" if offline else first_line(reason)
    report(f"{model}: {why}; using the cached copy, commit {folder.name[:12]}")
    return ModelSource(folder, model, folder.name)


def _require_weights(model: str, files: Iterable[str], names: Iterable[str]) -> None:
    if not _has_weights(names):
        large = (".h5", ".msgpack", ".onnx", ".ot", ".gguf", ".bin", ".safetensors", ".pt")
        others = [name for name in files if name.endswith(large)]
        has = f"; it has {', '.join(others[:3])}" if others else ""
        raise CheckpointError(
            f"{model} on the hub has no model.safetensors or pytorch_model.bin{has}. edgessl "
            "reads PyTorch weights in the Hugging Face layout."
        )


def _has_weights(names: Iterable[str]) -> bool:
    return any(kind.fullmatch(name) for name in names for kind in _WEIGHTS)


def _no_bar() -> type:
    from huggingface_hub.utils.tqdm import tqdm

    return type("NoBar", (tqdm,), {"__init__": partialmethod(tqdm.__init__, disable=True)})


def _unreachable(err: Exception) -> bool:
    """No answer at all, or the hub's own failure: then a cached copy is as good as it gets."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(err, HfHubHTTPError):
        return err.response.status_code >= 500
    # The client moved from httpx to httpx2 and may move on; both modules bear the name.
    return isinstance(err, (ConnectionError, TimeoutError)) or "httpx" in type(err).__module__


def _fail(model: str, revision: str | None, err: Exception) -> NoReturn:
    """Say in one line what the client's error means."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    endpoint = hub.constants.ENDPOINT
    local = "A local directory works too: give its path."
    status = err.response.status_code if isinstance(err, errors.HfHubHTTPError) else 0
    if isinstance(err, errors.OfflineModeIsEnabled):
        text = (
            f"{model!r} is no directory and not in the hub's cache, and HF_HUB_OFFLINE forbids "
            f"to download it. Unset it. {local}"
        )
    elif isinstance(err, errors.RevisionNotFoundError):
        text = f"{model} on {endpoint} has no revision {revision!r} (branch, tag or commit)."
    elif isinstance(err, errors.GatedRepoError) or status == 403:
        text = (
            f"{model} on {endpoint} is gated or private ({status}): ask for access on its page, "
            "then set HF_TOKEN to a token that has it."
        )
    elif status == 401 and not isinstance(err, errors.RepositoryNotFoundError):
        text = f"{endpoint} does not accept the token of HF_TOKEN or of the hub's login (401)."
    elif isinstance(err, errors.RepositoryNotFoundError) or (
        status == 404 and not isinstance(err, errors.EntryNotFoundError)
    ):
        text = (
            f"{model!r}: there is neither a directory of this name nor a repository on "
            f"{endpoint} that you may read ({status}).{_sibling(Path(model))} "
            "If it is private, set HF_TOKEN to a token that has access."
        )
    elif isinstance(err, errors.HFValidationError):
        text = f"{model!r} is neither a directory nor a hub id.{_sibling(Path(model))}"
    elif _unreachable(err) or isinstance(err, errors.LocalEntryNotFoundError):
        text = f"{model!r} is no directory, and {endpoint} fails: {first_line(err)}. {local}"
    elif isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OutputError(
            f"{model}: the disk is full. Make room in {hub.constants.HF_HUB_CACHE}, or set "
            "HF_HOME to another disk."
        ) from err
    elif isinstance(err, PermissionError):
        raise OutputError(
            f"{model}: cannot write to {hub.constants.HF_HUB_CACHE}; set HF_HOME to a "
            "directory that you can write to."
        ) from err
    else:
        text = f"{model} cannot be downloaded from {endpoint}: {first_line(err)}. {local}"
    raise RecipeError(text) from err


def _sibling(path: Path) -> str:
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.is_dir()]
    except (OSError, ValueError):
        return ""
    return nearest(path.name, names)

"""What a job is asked to do, and whether that is what a stopped one was asked to do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edgessl
from edgessl import bundle
from edgessl.bundle import Manifest
from edgessl.embed import dtypes, inputs, vectors, writers
from edgessl.embed.inputs import Source
from edgessl.errors import OutputError, RecipeError, Unsupported, nearest

# Rows that are embedded together and lost together when the job is killed. Texts: those that a
# session sorts by length together.
BLOCK_ROWS = {"text": 4096, "image": 256, "audio": 64, "video": 16}
RUNTIME = ("device", "threads", "streams", "batch_tokens")  # change the speed, not what is made
INPUT = ("prompt", "prompt_name", "max_length", "long", "keep_patches", "patches", "seed")


@dataclass(frozen=True)
class Plan:
    """A job as plain data: what another process needs to embed a block of it.

    ``options``: what ``edgessl.load`` is given beside the bundle. ``appended``: metadata of the
    vectors that these are added to. ``states``: ``inputs.fingerprint`` of the inputs.
    """

    bundle: str
    output: Path
    source: Source
    manifest: Manifest
    dtype: str
    block_rows: int
    options: dict[str, Any]
    max_rejected: float
    appended: dict[str, Any] | None
    states: list[dict[str, Any]]

    @property
    def dimensions(self) -> int:
        return self.manifest.encoder.dimensions or 0

    @property
    def space(self) -> dict[str, Any]:
        """All that vectors of one file have in common."""
        spec = self.manifest.encoder
        return {
            "variant": self.manifest.variant,
            "target": self.manifest.target,
            "precision": self.manifest.precision,
            "pooling": spec.pooling,
            "normalize": spec.normalize,
            "dimensions": self.dimensions,
            "dtype": self.dtype,
            "options": {name: self.options[name] for name in INPUT if name in self.options},
            "keep": list(self.source.keep),
        }

    def identity(self) -> dict[str, Any]:
        """What must not change between a job and the one that goes on with it, as JSON has it."""
        appended = None
        if self.appended is not None:
            found = os.stat(self.output)
            appended = [found.st_size, found.st_mtime_ns]
        return {
            **self.space,
            "device": self.options.get("device"),
            "column": self.source.column,
            "id-column": self.source.id_column,
            "inputs": self.states,
            "rows a part": self.block_rows,
            "append to": appended,
            "edgessl": edgessl.__version__,
        }

    def marks(self) -> list[dict[str, Any]]:
        """What went into a file of vectors: names and digests of the inputs."""
        return [
            {
                "name": Path(state["path"]).name,
                "digest": _digest([state, self.source.column, self.source.id_column]),
            }
            for state in self.states
        ]

    def anywhere(self) -> Plan:
        """The same for a process with another working directory."""
        paths = tuple(inputs.absolute(path) for path in self.source.paths)
        return replace(
            self,
            bundle=os.path.abspath(self.bundle),
            output=Path(os.path.abspath(self.output)),
            source=replace(self.source, paths=paths),
        )

    def again(self) -> Plan:
        """The same with the inputs as they are now."""
        return replace(self, states=inputs.fingerprint(self.source.paths))

    @property
    def is_done(self) -> bool:
        """Whether these inputs are in the vectors that they shall be added to, all of them."""
        if self.appended is None or self.source.is_stdin:
            return False
        return all(mark in self.appended["inputs"] for mark in self.marks())


def command(
    bundle_path: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What was asked for, as JSON has it: tells whether a job that is finished was just this."""
    states = inputs.fingerprint([os.fspath(path) for path in paths])
    asked = {"bundle": os.path.abspath(bundle_path), "inputs": states, "options": options}
    found: dict[str, Any] = json.loads(json.dumps(asked))
    return found


def make(
    bundle_path: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    output: Path,
    states: list[dict[str, Any]],
    *,
    column: str | None = None,
    id_column: str | None = None,
    keep: Sequence[str] = (),
    dtype: str | None = None,
    append: bool = False,
    overwrite: bool = False,
    max_rejected: float = 0.01,
    block_rows: int | None = None,
    **options: Any,
) -> Plan:
    """Check everything that can be checked without opening the bundle's graph.

    Raises:
        EdgesslError: see ``edgessl.embed.job.run``.
    """
    for name in options:
        if name not in (*RUNTIME, *INPUT):
            known = (*RUNTIME, *INPUT)
            raise RecipeError(f"there is no option {name!r}.{nearest(name, known)}")
    ending = writers.suffix(output)
    if keep and ending not in (".parquet", ".jsonl"):
        raise RecipeError(
            f"--keep needs an output that has columns: .parquet or .jsonl, not {ending}."
        )
    for name in keep:
        if name in (vectors.ID, vectors.VECTOR):
            raise RecipeError(f"--keep {name!r}: that is what edgessl calls a column of its own.")
    manifest = bundle.read(Path(bundle_path))
    task = manifest.encoder.task
    if manifest.encoder.vector is None:
        raise Unsupported(
            "this bundle has no pooling, so it gives features, not vectors: export with "
            "--pooling cls|mean|max."
        )
    appended = _existing(output, append, overwrite)
    first = appended["rows_read"] if appended else 0
    source = Source(
        tuple(os.fspath(path) for path in paths),
        task,
        column,
        id_column,
        tuple(dict.fromkeys(keep)),
        first,
    )
    inputs.open_source(source)
    kind = dtypes.check(dtype or (appended["dtype"] if appended else "float32"))
    rows = block_rows or BLOCK_ROWS[task]
    plan = Plan(
        os.fspath(bundle_path),
        output,
        source,
        manifest,
        kind,
        rows,
        options,
        max_rejected,
        appended,
        states,
    )
    if appended:
        _check_same_space(plan, appended)
    return plan


def differences(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    """What two identities differ in, in words; an input by its path."""
    found = []
    for name in dict.fromkeys([*then, *now]):
        was, given = then.get(name), now.get(name)
        if was == given:
            continue
        if name != "inputs":
            found.append(f"{name} was {was!r}, now {given!r}")
            continue
        before, after = was or [], given or []
        paths = [[state["path"] for state in states] for states in (before, after)]
        if paths[0] != paths[1]:
            found.append(f"the inputs were {', '.join(paths[0])}, now {', '.join(paths[1])}")
        else:
            changed = [a["path"] for a, b in zip(after, before, strict=True) if a != b]
            found.append(f"{', '.join(changed)} has changed")
    return found


def _digest(data: Any) -> str:
    return hashlib.blake2b(json.dumps(data).encode(), digest_size=16).hexdigest()


def _existing(output: Path, append: bool, overwrite: bool) -> dict[str, Any] | None:
    """Metadata of the vectors that are there and are to be added to.

    Raises:
        OutputError: something is there, and may not be replaced.
    """
    if append and overwrite:
        raise RecipeError("give --append or --overwrite, not both.")
    if not os.path.lexists(output):
        return None
    if not output.is_file():
        raise OutputError(f"{output} exists and is not a file; name another output.")
    if not (append or overwrite):
        raise OutputError(
            f"{output} exists; pass --overwrite to replace it, --append to add to it."
        )
    try:
        found = vectors.metadata(output)
    except RecipeError as err:
        raise OutputError(
            f"{output} exists and edgessl does not replace it: it is not a file of vectors that "
            "edgessl wrote. Name another output, or remove it yourself."
        ) from err
    return found if append else None


def _check_same_space(plan: Plan, there: dict[str, Any]) -> None:
    """Refuse to mix vectors that do not compare."""
    now = plan.space
    if there["variant"] != now["variant"]:
        was = f"{there['source']}, {there['target']} {there['precision']}"
        raise RecipeError(
            f"{plan.output} holds vectors of variant {there['variant']} ({was}); this bundle is "
            f"variant {now['variant']} ({plan.manifest.provenance.source}, {now['target']} "
            f"{now['precision']}), and theirs do not compare. Name another output, or embed all "
            "with one bundle."
        )
    # the same variant on another target says the same, within parity
    names = ("dimensions", "dtype", "options", "keep")
    if found := differences({n: now[n] for n in names}, {n: there[n] for n in names}):
        raise RecipeError(
            f"{plan.output} was made differently: {'; '.join(found)}. Give the same options, or "
            "name another output."
        )

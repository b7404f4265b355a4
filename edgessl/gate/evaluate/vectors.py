"""Where vectors come from: bundles, files of vectors, encoders in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import edgessl
from edgessl import bundle, parity
from edgessl.bundle import Manifest
from edgessl.embed import vectors as files
from edgessl.embed.plan import BLOCK_ROWS
from edgessl.errors import EdgesslError, RecipeError, Unsupported
from edgessl.gate import subjects
from edgessl.gate.evaluate.data import DOCUMENT, LABELLED, PLAIN, QUERY, Data
from edgessl.gate.report import Subject
from edgessl.progress import Steps
from edgessl.rows.base import MOST_UNUSABLE
from edgessl.spec import Task, TextSpec

if TYPE_CHECKING:
    from edgessl.runtimes.session import Session

_SUFFIXES = (".parquet", ".npz", ".npy", ".jsonl")
# As sentence-transformers chooses a prompt for each role: the first of these that a model names.
_PROMPTS = {QUERY: ("query",), DOCUMENT: ("document", "passage", "corpus")}

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Data, Steps], tuple[Vectors, dict[int, str]]]


@dataclass(frozen=True)
class Vectorizer:
    """One of those that are compared.

    ``task``: None for stored vectors, which do not say of what they are. ``embed``: gives
    ``(items, dimensions)``, NaN where an item was refused, and why by item. ``own``: data that
    comes with it.
    """

    subject: Subject
    task: Task | None
    embed: Embed
    own: Callable[[], Data] | None = None


def is_file(where: str) -> bool:
    """Whether *where* is a file of vectors, if it is anything."""
    path = Path(where)
    return path.suffix.lower() in _SUFFIXES and not path.is_dir()


def opened(name: str, where: str, **options: Any) -> Vectorizer:
    """A bundle, or a file of vectors that ``edgessl embed`` wrote; nothing is embedded yet.

    Args:
        **options: of ``edgessl.load``.

    Raises:
        BundleError: no bundle there, or a damaged one.
        RecipeError: not a file of vectors that edgessl wrote.
        Unsupported: a bundle that gives no vectors.
    """
    if is_file(where):
        return _of_file(name, Path(where))
    thing = subjects.look({name: where})[name]
    if thing.manifest is None:
        raise RecipeError(f"{where} has a latency, and no vectors to evaluate: name a bundle.")

    _require_vectors(thing.manifest, where)

    def embed(data: Data, steps: Steps) -> tuple[Vectors, dict[int, str]]:
        steps(f"opening {name}")
        with edgessl.load(where, mode="throughput", **options) as session:
            return embedded(session, data, name, steps)

    return Vectorizer(
        thing.subject,
        thing.manifest.encoder.task,
        embed,
        lambda: _golden(Path(where))[0],
    )


def golden(name: str, where: str) -> Vectorizer:
    """The fp32 encoder that a bundle was made of: what it said to the bundle's golden inputs."""
    manifest = bundle.read(Path(where))
    spec = manifest.encoder
    origin = str(Path(where) / bundle.REFERENCE)
    subject = Subject(name, origin, family=spec.family, task=spec.task, precision="fp32")
    return Vectorizer(
        subject, spec.task, lambda data, steps: (_golden(Path(where))[1][data.ids], {})
    )


def embedded(
    session: Session, data: Data, name: str, steps: Steps
) -> tuple[Vectors, dict[int, str]]:
    """Vectors of all items of *data*, and why an item has none."""
    spec = session.manifest.encoder
    refused: dict[int, str] = {}
    found: list[Vectors] = []
    done = 0
    steps(f"embedding with {name}")
    size = BLOCK_ROWS[spec.task]
    for role, rows in data.roles:

        def refuse(index: int, error: EdgesslError, first: int = rows.start) -> None:
            refused[first + index] = str(error)

        blocks = (data.items[at : min(at + size, rows.stop)] for at in rows[::size])
        for block in _prompted(session, role).embed_blocks(blocks, refuse):
            found.append(block)
            done += len(block)
            steps.count(done, len(data.items), "items")
    return np.concatenate(found), refused


def _prompted(session: Session, role: str) -> Session:
    prepared = session.manifest.encoder.preprocessing
    prompts = prepared.prompts if isinstance(prepared, TextSpec) else {}
    named = next((prompt for prompt in _PROMPTS.get(role, ()) if prompt in prompts), None)
    return session if named is None else session.using(prompt_name=named)


def _require_vectors(manifest: Manifest, where: str) -> None:
    if manifest.encoder.vector is None:
        raise Unsupported(
            f"{where!r} has no pooling, so it gives features, not vectors: export with "
            "--pooling cls|mean|max."
        )


def _golden(path: Path) -> tuple[Data, Vectors]:
    """The golden items of a bundle, and the fp32 encoder's vectors of them."""
    name = str(bundle.read(path).encoder.vector)
    batches = parity.read(path / bundle.REFERENCE)
    items = [item for batch in batches for item in batch.items]
    vectors: Vectors = np.concatenate([batch.outputs[name] for batch in batches])
    note = "the golden inputs that travel with the bundle: few, and chosen to be difficult"
    return Data(bundle.REFERENCE, PLAIN, items, list(range(len(items))), notes=(note,)), vectors


def _of_file(name: str, path: Path) -> Vectorizer:
    """Vectors that were made earlier: an old index."""
    found = files.metadata(path)
    subject = Subject(
        name=name,
        path=str(path),
        size_bytes=path.stat().st_size,
        digest=bundle.file_entry(path).sha256,
        variant=found["variant"],
        target=found["target"],
        precision=found["precision"],
    )

    def own() -> Data:
        ids = files.read(path)[0].tolist()
        return Data(path.name, PLAIN, ids, ids, notes=("rows of stored vectors, by their ids",))

    def embed(data: Data, steps: Steps) -> tuple[Vectors, dict[int, str]]:
        if data.kind not in (PLAIN, LABELLED):
            raise RecipeError(f"{path} has a vector a row, and {data.name} is of {data.unit}.")
        steps(f"reading {name}")
        ids, vectors, _ = files.read(path)
        places = {one: row for row, one in enumerate(ids.tolist())}
        rows = np.array([places.get(one, -1) for one in data.ids], np.int64)
        missing = np.flatnonzero(rows < 0).tolist()
        if len(missing) > MOST_UNUSABLE * len(rows):
            raise RecipeError(
                f"{path} lacks {len(missing):,} of the {len(rows):,} items of {data.name} (the id "
                f"{data.ids[missing[0]]!r} is one): were they made of these data, with the same "
                "--id-column?"
            )
        picked = np.where(rows[:, None] < 0, np.float32(np.nan), vectors[rows])
        return picked, dict.fromkeys(missing, f"not in {path.name}")

    return Vectorizer(subject, None, embed, own)

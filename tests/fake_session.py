"""A session that needs no runtime library: a text's vector is a hash of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import bundle
from edgessl.bundle import Manifest
from edgessl.errors import EdgesslError, RecipeError
from edgessl.spec import (
    EncoderSpec,
    ImageSpec,
    Preprocessing,
    Provenance,
    Task,
    TensorSpec,
    TextSpec,
)

DIMENSIONS = 12
TEXTS = [f"text number {number}" for number in range(47)]
REFUSED, NOT_FINITE = "a text that is refused", "a text without a finite vector"


def vector(item: Any) -> npt.NDArray[np.float32]:
    """``(12,)``, of unit length; one direction has a hundredth of the others' spread."""
    content = item.encode() if isinstance(item, str) else bytes(np.asarray(item).tobytes())
    seed = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    found = np.random.default_rng(seed).standard_normal(DIMENSIONS)
    found[3] /= 100
    return (found / np.linalg.norm(found)).astype(np.float32)


def expected(items: list[str]) -> npt.NDArray[np.float32]:
    return np.stack([vector(item) for item in items])


class FakeSession:
    """What ``edgessl.embed.job`` uses of a session. ``seconds``: that a block takes."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.blocks: list[int] = []

    def embed_blocks(
        self,
        blocks: Iterable[Sequence[Any]],
        refused: Callable[[int, EdgesslError], None] | None = None,
    ) -> Iterator[npt.NDArray[np.float32]]:
        index = 0
        for block in blocks:
            vectors = np.empty((len(block), DIMENSIONS), np.float32)
            for row, item in enumerate(block):
                if isinstance(item, str) and item == REFUSED:
                    assert refused is not None
                    refused(index + row, RecipeError(f"text {index + row} is not wanted."))
                    vectors[row] = np.nan
                elif isinstance(item, str) and item == NOT_FINITE:
                    vectors[row] = np.inf
                else:
                    vectors[row] = vector(item)
            index += len(block)
            self.blocks.append(len(block))
            time.sleep(self.seconds)
            yield vectors

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None: ...


def save_bundle(
    folder: Path, variant: str = "0123456789abcdef", task: Task = "text", source: str = "fake"
) -> Path:
    """A bundle that has a manifest and nothing else."""
    prepared: Preprocessing = TextSpec(16) if task == "text" else ImageSpec(4, 4)
    output = "sentence_embedding" if task == "text" else "image_embedding"
    spec = EncoderSpec(
        task=task,
        family="bert",
        pooling="mean",
        normalize=True,
        inputs=(TensorSpec("input_ids", "int64", ("batch", "sequence")),),
        outputs=(TensorSpec(output, "float32", ("batch", DIMENSIONS)),),
        preprocessing=prepared,
    )
    manifest = Manifest(
        target="onnx",
        precision="fp32",
        encoder=spec,
        provenance=Provenance(source),
        variant=variant,
        recipe={},
        compatibility={},
        parity={},
        compute={},
    )
    folder.mkdir(parents=True)
    (folder / bundle.MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    return folder

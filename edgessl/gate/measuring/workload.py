"""What the queries hold: items of a stated shape, or of a data file. The same for all subjects."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.errors import RecipeError
from edgessl.spec import AudioSpec, ImageSpec, Preprocessing, Task, TextSpec, VideoSpec

CORPUS = "corpus"
DIFFERENT = 64  # items at least, so that no cache flatters
RAGGED = 256  # texts of all lengths
MOST = {"text": 512, "image": 128, "audio": 32, "video": 16}  # that are drawn of a data file
_MULTI = 8  # items of a query in the multi-stream scenario

_SHAPE = re.compile(r"(\d+)(?:x(\d+))?")
_USUAL = {  # without --shape, and without --data
    "text": {"offline": str(RAGGED), "multi-stream": f"{_MULTI}x32", "": "1x32"},
    "image": {"offline": "64", "multi-stream": str(_MULTI), "": "1"},
    "audio": {"offline": "16", "multi-stream": str(_MULTI), "": "1"},
    "video": {"offline": "8", "multi-stream": "4", "": "1"},
}
_SECONDS = 5  # of a recording

# Common enough to be one token each in most vocabularies.
_WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were her all she there would their we him been has when who "
    "will more no if out so said what up its about into than them can only other new some could "
    "time these two may then do first any my now such like our over man me even most made after "
    "also did many before must through back years where much your way well down should because "
    "each just those people how too little state good very make world still own see men work long "
    "get here between both life being under never day same another know while last might us great "
    "old year off come since against go came right used take three states himself few house use "
    "during without again place around however home small found thought went say part once high"
).split()

Count = Callable[[list[str]], list[int]]  # tokens of each text, special ones included


@dataclass(frozen=True)
class Shape:
    """``items`` of a query (0: the corpus decides), ``tokens`` of each text (None: any)."""

    items: int
    tokens: int | None = None


def parse(shape: str, task: Task | None, longest: int | None = None) -> Shape:
    """``"8x32"``: 8 texts of 32 tokens; ``"8"``: 8 items; ``"corpus"``.

    Args:
        task: None where no bundle is measured: then nobody counts tokens.
        longest: tokens that the bundle takes.

    Raises:
        RecipeError: none of these, or nothing that *task* has.
    """
    if shape == CORPUS:
        return Shape(0)
    found = _SHAPE.fullmatch(shape)
    if found is None:
        raise RecipeError(
            f"shape {shape!r} is neither BxL (texts x tokens, 1x32), B (items, 8), nor {CORPUS}."
        )
    items, tokens = int(found[1]), None if found[2] is None else int(found[2])
    if items < 1 or tokens == 0:
        raise RecipeError(f"shape {shape!r}: a query has at least one item of at least one token.")
    if tokens is not None and task is None:
        raise RecipeError(f"shape {shape!r}: tokens are a bundle's, and here is none. Say {items}.")
    if tokens is not None and task != "text":
        raise RecipeError(f"shape {shape!r}: BxL is for texts, this is {task}. Say {items}.")
    if tokens is not None and longest is not None and tokens > longest:
        raise RecipeError(f"shape {shape!r}: this bundle takes at most {longest} tokens a text.")
    return Shape(items, tokens)


def usual(scenario: str, task: Task | None, data: str | None) -> str:
    """The shape of *scenario* where none is given; *task* as for ``parse``."""
    if data is not None:
        return CORPUS
    shapes = _USUAL[task or "text"]
    shape = shapes.get(scenario, shapes[""])
    return shape if task else shape.partition("x")[0]


def per_query(scenario: str, shape: Shape, items: int) -> int:
    """Items of a query, where the workload has so many *items*."""
    if shape.items:
        return shape.items
    return {"offline": items, "multi-stream": min(_MULTI, items)}.get(scenario, 1)


def first(task: Task, spec: Preprocessing) -> list[Any]:
    """One item for a subject's first vector."""
    if task == "text":
        return [" ".join(_WORDS[:12])]
    return make(Shape(1), spec, lambda texts: [], 0)[:1]


def make(shape: Shape, spec: Preprocessing, count: Count, seed: int) -> list[Any]:
    """Items for queries of *shape*, at least ``DIFFERENT``; whole queries.

    Texts of real words; images of the encoder's own size (nothing is decoded or resized), uint8
    ``(H, W, C)``; recordings of five seconds, float32; clips, uint8 ``(frames, H, W, C)``.

    Raises:
        RecipeError: this tokenizer cannot make texts of just so many tokens.
    """
    number = -(-DIFFERENT // shape.items) * shape.items
    rng = np.random.default_rng(seed)
    if isinstance(spec, TextSpec):
        if shape.tokens is None:
            lengths = np.clip(rng.lognormal(3.0, 0.7, number).astype(int), 3, None)
            return [_words(rng, _WORDS, length) for length in lengths]
        return texts(number, shape.tokens, count, rng)
    if isinstance(spec, AudioSpec):
        samples = min(_SECONDS * spec.sampling_rate, spec.max_samples)
        return [rng.normal(0, 0.1, samples).astype(np.float32) for _ in range(number)]
    assert isinstance(spec, (ImageSpec, VideoSpec))
    size: tuple[int, ...] = (spec.height, spec.width, spec.channels)
    if isinstance(spec, VideoSpec):
        size = (spec.frames, *size)
    return [rng.integers(0, 256, size, np.uint8) for _ in range(number)]


def texts(number: int, tokens: int, count: Count, rng: np.random.Generator) -> list[str]:
    """Texts of exactly so many *tokens*, special ones included.

    Raises:
        RecipeError: there are none with this tokenizer.
    """
    (special,) = count(["the"])
    words = [word for word, n in zip(_WORDS, count(list(_WORDS)), strict=True) if n == special]
    room = tokens - special + 1
    found: list[str] = []
    for _ in range(10):
        if room < 1 or len(found) >= number:
            break
        tried = [_words(rng, words, room) for _ in range(number)]
        found += [text for text, n in zip(tried, count(tried), strict=True) if n == tokens]
    if len(found) < number:
        raise RecipeError(
            f"this bundle's tokenizer makes no texts of exactly {tokens} tokens of English words"
            + (f": one word is {special} already. " if room < 1 else ". ")
            + "Measure with texts of your own: --data FILE."
        )
    return found[:number]


def _words(rng: np.random.Generator, words: Sequence[str], number: int) -> str:
    return " ".join(rng.choice(words, number))


def corpus(path: str, column: str | None, task: Task, seed: int) -> list[Any]:
    """At most ``MOST`` items of a data file or folder (docs/embed.md), drawn in random order.

    Raises:
        RecipeError: nothing there, or nothing that can be used.
    """
    from edgessl.embed import inputs

    rng = np.random.default_rng(seed)
    drawn: list[Any] = []
    read = 0
    for block in inputs.blocks(inputs.Source((path,), task, column), 4096):
        for item in block.items:  # reservoir sampling: Vitter's algorithm R (1985)
            if len(drawn) < MOST[task]:
                drawn.append(item)
            elif (place := int(rng.integers(read + 1))) < len(drawn):
                drawn[place] = item
            read += 1
    if not drawn:
        raise RecipeError(f"data {path!r}: no {task} in it that can be used.")
    return [drawn[at] for at in rng.permutation(len(drawn))]


def write(items: Sequence[Any], path: Path) -> None:
    """For a worker to read: a temporary file of this process's own."""
    with path.open("wb") as stream:
        pickle.dump(list(items), stream, protocol=pickle.HIGHEST_PROTOCOL)

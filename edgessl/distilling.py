"""A checkpoint that learns from another what that one says of unlabeled data, and is checked."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import checkpoint_session, compression, interrupts, staging, unlabeled
from edgessl.embed import inputs
from edgessl.errors import OutputError, RecipeError, Unsupported, require
from edgessl.parity import cosine, rank_correlation
from edgessl.progress import Steps
from edgessl.recipe import Recipe
from edgessl.source import load_encoder

PICTURE = "distillation.svg"  # the learning curve, beside the weights
OBJECTIVES = ("embedding",)
MINUTES = 20.0
BATCH = 32
LEARNING_RATE = 5e-4
_DISK = 50e6  # bytes a second, at least
_SLACK = 1.25  # other programs run, too
_SAME = 0.999999  # fidelity of what has nothing to learn


@dataclass(frozen=True)
class Fidelity:
    """To the teacher's vectors, on held-out items. ``cosine_mean`` and ``cosine_p1`` (1st
    percentile): None where the vectors have other widths; ``rank_correlation``: Spearman's, of all
    pairwise similarities."""

    cosine_mean: float | None
    cosine_p1: float | None
    rank_correlation: float

    @property
    def value(self) -> float:
        """By which states are compared."""
        return self.rank_correlation if self.cosine_mean is None else self.cosine_mean


@dataclass(frozen=True)
class Distilled:
    """``items`` were learnt from in ``steps`` of a batch, ``held_out`` say what was learnt.
    ``curve``: ``[minutes, fidelity]``; ``stopped``: why before the end, if it did. ``remarks``: what
    was frozen, mapped, or thrown away. ``seconds``: of the training."""

    path: str
    teacher: str
    objectives: dict[str, float]
    before: Fidelity
    after: Fidelity
    curve: tuple[tuple[float, float], ...]
    stopped: str
    remarks: tuple[str, ...]
    items: int
    held_out: int
    steps: int
    seconds: float
    parameters: int
    bytes: int


def distill(
    model: str,
    data: Sequence[str],
    output: Path,
    *,
    teacher: str | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    samples: int | None = None,
    column: str | None = None,
    revision: str | None = None,
    report: Steps | None = None,
) -> Distilled:
    """Write *model*, the student, to the directory *output* with the weights that it has learnt.

    A run that was stopped goes on where it was when it is asked for again: what it needs for that
    lies beside *output* (``.NAME.training``) until that is written.

    Args:
        model, teacher: directories in the Hugging Face or sentence-transformers layout, or hub
            ids; *revision* is the student's.
        data: files of texts, or images, as docs/embed.md has them; *column* of a table. No labels.
        minutes: for all of it, the last check included; 20 where *epochs* does not say when to end.
            What is learnt in a time depends on the machine, in so many epochs only on *seed*.
        objectives: ``name`` or ``name=weight``, of ``edgessl.compress.objectives``.
        samples: items at most, those held out included.

    Raises:
        RecipeError: too little data, an unknown objective, or one that these two encoders cannot
            have, a number that makes no sense, nothing to learn, or nothing learnt.
        Unsupported: an objective that needs layers which are not described, or a classifier.
        CheckpointError: a checkpoint cannot be read, or what was written says something else.
        OutputError: *output* is there already, or cannot be written.
    """
    began = time.monotonic()
    if minutes is None and epochs is None:
        minutes = MINUTES
    _check_numbers(
        minutes=minutes, epochs=epochs, batch=batch, learning_rate=learning_rate, samples=samples
    )
    if not teacher:
        raise RecipeError("distillation needs a teacher: a checkpoint that knows more.")
    steps = report or Steps(quiet=True)
    staging.check_output(output, overwrite=False)
    steps("reading student and teacher")
    old = compression.read(model, revision, steps)
    require("accelerate", "compress", "training")
    from edgessl.compress import lesson, saved, training
    from edgessl.compress import objectives as known

    weights = known.read(objectives)
    if "logits" in weights:
        lesson.require_classifier(old)
    recipe = Recipe(model=model, revision=revision, probabilities="logits" in weights)
    student = load_encoder(recipe, steps)
    tutor = load_encoder(replace(recipe, model=teacher, revision=None), steps)
    read = time.monotonic()
    lesson.check_pair(student, tutor, weights)
    found = unlabeled.items(data, column, student, samples or sys.maxsize)
    if student.spec.task == "text":
        found = list(dict.fromkeys(found))  # none of those held out is learnt from
    fitted, held_out = unlabeled.split(found, seed, data[0])
    key = [_state(model), revision, _state(teacher), inputs.fingerprint(data), column, samples]
    key += [minutes, epochs, sorted(weights.items()), batch, learning_rate, seed]
    with ExitStack() as stack:
        sessions = [stack.enter_context(checkpoint_session.opened(one)) for one in (student, tutor)]
        readers = [session.prepare for session in sessions]
        steps("asking the teacher")
        good, _ = lesson.read(readers, held_out)
        held_out = sorted((held_out[n] for n in good), key=lesson.length)
        taught = sessions[1].embed(held_out)
        asked = time.monotonic()
        before = compare(sessions[0].embed(held_out), taught)
        if before.value > _SAME:
            raise RecipeError(f"{old.source} already says what {teacher} says: nothing to learn.")
        seconds = None
        if minutes is not None:
            # What follows: embedding three times, writing, and reading again.
            now, size = time.monotonic(), compression.size(old.tensors.values())
            after = _SLACK * (3 * (now - asked) + (read - began) + size / _DISK)
            seconds = minutes * 60 - (now - began) - after
            if seconds <= 0:
                raise RecipeError(f"minutes {minutes:g}: reading and checking take longer.")
        work = stack.enter_context(_folder(output, key))
        small = replace(student, module=copy.deepcopy(student.module))
        steps("learning")
        watch, remarks = lesson.teach(
            small,
            tutor,
            readers,
            weights,
            fitted,
            held_out,
            lambda vectors: compare(vectors, taught).value,
            training.Plan(seconds, epochs, batch, learning_rate, seed),
            work,
            steps,
        )
        _round(small.module, old)
        vectors = checkpoint_session.embed(small, held_out)
        try:
            backbones: list[Any] = [student.module.backbone, small.module.backbone]
            tensors = saved.tensors(old.tensors, *backbones)
        except Unsupported as err:
            raise Unsupported(f"{old.source}: {err}") from err
        with staging.staged(output, overwrite=False) as stage:
            steps("writing the checkpoint")
            compression.write(stage, old, tensors, old.config)
            again = load_encoder(replace(recipe, model=str(stage), revision=None))
            checkpoint_session.same(checkpoint_session.embed(again, held_out), vectors)
            facts = Distilled(
                path=str(output),
                teacher=tutor.provenance.source,
                objectives=weights,
                before=before,
                after=compare(vectors, taught),
                curve=tuple(watch.curve),
                stopped=watch.stopped,
                remarks=remarks,
                items=len(fitted),
                held_out=len(held_out),
                steps=watch.steps,
                seconds=round(watch.seconds, 1),
                parameters=compression.count(tensors.values()),
                bytes=compression.size(tensors.values()),
            )
            compression.note(stage, old, "distillation", asdict(replace(facts, path="")))
            _draw(stage / old.place.relative_to(old.directory) / PICTURE, facts)
    shutil.rmtree(work)
    return facts


def compare(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> Fidelity:
    """*found* ``(items, dim)`` with the teacher's vectors of the same items."""
    ranks = rank_correlation(found, wanted)
    if found.shape != wanted.shape:
        return Fidelity(None, None, ranks)
    near = cosine(found, wanted)
    return Fidelity(float(near.mean()), float(np.quantile(near, 0.01)), ranks)


def _draw(path: Path, facts: Distilled) -> None:
    from edgessl.compress import curve

    what = "cosine" if facts.after.cosine_mean is not None else "rank correlation"
    title = f"{what} to {facts.teacher}: {facts.before.value:.4f} -> {facts.after.value:.4f}"
    label = f"mean {what} on {facts.held_out} held-out items"
    path.write_text(curve.svg(title, label, facts.curve), encoding="utf-8")


def _check_numbers(**given: float | None) -> None:
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise RecipeError(f"{name.replace('_', ' ')} {value:g}: it should be above 0.")


def _round(module: Any, old: compression.Checkpoint) -> None:
    """What has been learnt, as exactly as it will be stored."""
    import torch

    kinds = {tensor.dtype for tensor in old.tensors.values() if tensor.is_floating_point()}
    if kinds <= {torch.float16, torch.bfloat16} and len(kinds) == 1:
        module.backbone.to(*kinds).float()


@contextmanager
def _folder(output: Path, key: Any) -> Iterator[Path]:
    """Where the training *key* keeps what a later run needs; what another one has left is removed."""
    work = output.resolve().with_name(f".{output.name}.training")
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    lock = None
    try:
        work.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # a file system without locks
            lock = staging.lock_directory(work)
            if lock is None:
                raise OutputError(f"{output} is being made by another process.")
        name = work / "key"
        if not name.exists() or name.read_text() != digest:
            for path in work.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            name.write_text(digest)
    except OSError as err:
        raise OutputError(f"cannot write {work}: {err.strerror or err}.") from err
    interrupts.leaves(lambda: "what was learnt is kept: the same command goes on")
    try:
        yield work
        interrupts.leaves(None)
    finally:
        if lock is not None:
            os.close(lock)


def _state(model: str) -> Any:
    return inputs.fingerprint([model]) if Path(model).exists() else model

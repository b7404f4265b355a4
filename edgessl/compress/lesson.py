"""What a student and its teacher are given, and what of both is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgessl import isa
from edgessl.backend import Arrays
from edgessl.compress import pupil, training
from edgessl.compress.objectives import OBJECTIVES
from edgessl.compression import Checkpoint
from edgessl.encoder import Encoder
from edgessl.encoders import structures
from edgessl.encoders.head import CLASSIFIERS
from edgessl.encoders.structures import Layer
from edgessl.errors import ItemError, RecipeError, Unsupported
from edgessl.progress import Steps
from edgessl.spec import AudioSpec, EncoderSpec, ImageSpec

Reader = Callable[[Sequence[Any]], Arrays]  # items -> a batch of an encoder's inputs

_EXAMPLES = 4  # items that show what layers make
_BATCH = 64
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # as processors call it


def require_classifier(checkpoint: Checkpoint) -> None:
    """Raise unless *checkpoint* can learn ``logits``.

    Raises:
        Unsupported: it has no classification head.
    """
    kinds = [str(name) for name in checkpoint.config.get("architectures") or ()]
    if not any(name.endswith(CLASSIFIERS) for name in kinds):
        raise Unsupported(f"{checkpoint.source}: objective logits is for fine-tuned classifiers.")


def check_pair(student: Encoder, teacher: Encoder, names: Mapping[str, float]) -> None:
    """Whether one can learn from the other, by the objectives *names*.

    Raises:
        RecipeError: it cannot.
    """
    tasks = [one.spec.task for one in (student, teacher)]
    if tasks[0] != tasks[1]:
        raise RecipeError(f"the teacher is for {tasks[1]}, the student for {tasks[0]}.")
    if student.spec.vector is None or teacher.spec.vector is None:
        raise RecipeError("student and teacher need a vector each: pooling is none.")
    vectors = {"embedding", "similarity"} & set(names)
    if "logits" in names:
        if vectors:
            raise RecipeError(f"objectives logits and {min(vectors)}: a classifier has no vector.")
        if student.spec.dimensions != teacher.spec.dimensions:
            raise RecipeError(
                f"objective logits: the teacher knows {teacher.spec.dimensions} classes, the "
                f"student {student.spec.dimensions}."
            )
        if _several(student) or _several(teacher):
            raise RecipeError("objective logits is for classifiers that give one label an item.")
    if any(OBJECTIVES[name].partial for name in names):
        grids = [_grid(one.spec) for one in (student, teacher)]
        if None in grids or grids[0] != grids[1]:
            raise RecipeError(
                "objective masked needs a student and a teacher that take fewer patches (MAE), from "
                "the same grid."
            )


def length(item: Any) -> int:
    """By which items are sorted, so that little is padded."""
    return 0 if isinstance(item, Path) or not hasattr(item, "__len__") else len(item)


def read(readers: Sequence[Reader], items: Sequence[Any]) -> tuple[list[int], list[Arrays]]:
    """Numbers of the *items* that can be read, and the batch that they make for each reader.

    Raises:
        RecipeError: none can.
    """
    good = list(range(len(items)))
    while True:
        try:
            return good, [reader([items[n] for n in good]) for reader in readers]
        except ItemError as err:
            if len(good) < 2:
                raise
            del good[err.index]


def teach(
    student: Encoder,
    teacher: Encoder,
    readers: Sequence[Reader],
    weights: Mapping[str, float],
    fitted: Sequence[Any],
    held_out: Sequence[Any],
    judge: Callable[[npt.NDArray[np.float32]], float],
    plan: training.Plan,
    work: Path,
    report: Steps,
) -> tuple[training.Watch, tuple[str, ...]]:
    """Train the module of *student* on *fitted*, in place; how that went, and what to remark.

    Args:
        readers: of both.
        judge: vectors of *held_out* -> fidelity.
        work: see ``training.train``.

    Raises:
        RecipeError: an objective that these two cannot have; else as ``training.train``.
        Unsupported: layers that are not described.
    """
    remarks = _freeze(student)
    names = list(weights)
    layers = [_layers(one, names) for one in (student, teacher)]
    mine, its = pupil.views((student.module, layers[0]), (teacher.module, layers[1]), names)
    same = _same(readers, held_out)
    remarks += () if same else ("student and teacher read the items in different ways",)
    few = held_out[:: max(1, len(held_out) // _EXAMPLES)][:_EXAMPLES]
    with torch.no_grad():
        example = tuple(
            view(_tensors(reader(few))) for view, reader in zip((mine, its), readers, strict=True)
        )
    pupil.check_alike((example[0], example[1]), same or student.spec.task != "text", names)
    torch.manual_seed(plan.seed)
    unit = student.spec.normalize or teacher.spec.normalize
    learner = pupil.Pupil(mine, its, weights, (example[0], example[1]), unit)
    if learner.maps:
        remarks += ("widths differ: linear maps for the training, thrown away afterwards",)
    pooled = all(OBJECTIVES[name].needs == "vector" for name in names)
    kept = (work / "teacher.f32", len(fitted), example[1].vector.shape[1])
    batches = [
        _tensors(readers[0](held_out[start : start + _BATCH]))
        for start in range(0, len(held_out), _BATCH)
    ]

    def collate(rows: list[int]) -> dict[str, Any]:
        good, given = read(readers[: 1 if same else 2], [fitted[row] for row in rows])
        found: dict[str, Any] = {"rows": torch.tensor(rows)[good], "student": _tensors(given[0])}
        if not same:
            found["teacher"] = _tensors(given[1])
        if (real := _real(student.spec, given[0])) is not None:
            found["real"] = torch.from_numpy(real)
        return found

    watch = training.train(
        learner,
        pupil.Teacher(its, kept if pooled else None, _bf16()),
        collate,
        [length(item) for item in fitted],
        plan,
        lambda: judge(_vectors(student.module, batches)),
        work,
        _grid(student.spec) if any(OBJECTIVES[name].partial for name in names) else None,
        report,
    )
    return watch, remarks


def _freeze(student: Encoder) -> tuple[str, ...]:
    """Leave out of the training what follows the backbone, and a text encoder's tables: those rows
    of which the data has no token would be left behind."""
    learnt = {id(one) for one in student.module.parameters() if one.requires_grad}
    student.module.requires_grad_(False)
    backbone: Any = student.module.backbone
    for module in backbone.modules():
        table = isinstance(module, torch.nn.Embedding) and student.spec.task == "text"
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(id(parameter) in learnt and not table)
    return ("embedding tables were not trained",) if student.spec.task == "text" else ()


def _layers(encoder: Encoder, names: Sequence[str]) -> list[Layer]:
    needed = any(OBJECTIVES[name].needs != "vector" for name in names)
    return structures.of(encoder) if needed else []


def _same(readers: Sequence[Reader], items: Sequence[Any]) -> bool:
    """Whether both read *items* as the same tensors."""
    few = items[:_BATCH]
    one, other = (reader(few) for reader in readers)
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def _real(spec: EncoderSpec, inputs: Arrays) -> npt.NDArray[np.bool_] | None:
    mask = inputs.get("attention_mask")
    if mask is None:
        return None
    count = mask.shape[1]
    if isinstance(spec.preprocessing, AudioSpec):
        count = int(spec.preprocessing.frames(count))
    return spec.real_tokens(inputs, count)


@torch.no_grad()
def _vectors(
    module: torch.nn.Module, batches: Sequence[Mapping[str, torch.Tensor]]
) -> npt.NDArray[np.float32]:
    device = next(module.parameters()).device
    found = [
        module(**{name: tensor.to(device) for name, tensor in batch.items()})[0].float().cpu()
        for batch in batches
    ]
    return np.asarray(torch.cat(found).numpy())


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _grid(spec: EncoderSpec) -> tuple[int, int] | None:
    return spec.preprocessing.grid if isinstance(spec.preprocessing, ImageSpec) else None


def _several(encoder: Encoder) -> bool:
    backbone: Any = encoder.module.backbone
    return getattr(backbone.config, "problem_type", None) == "multi_label_classification"


def _bf16() -> bool:
    """Whether this machine has instructions for it: without them it is slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return any(isa.this_processor().flags.get(name) for name in _BF16)

"""The loop that teaches: Hugging Face's ``Trainer``, which stops in time, keeps the best state, and
goes on where a killed run was."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from edgessl.compress.order import ByLength
from edgessl.compress.pupil import Pupil, Teacher, patches
from edgessl.encoders.quiet import quiet_transformers
from edgessl.errors import OutputError, RecipeError, first_line
from edgessl.progress import Steps
from edgessl.spec import PATCH_INDICES

_POINTS = 20  # of the learning curve: so often fidelity is measured
_PATIENCE = 6  # of these in a row without a gain end the training
_WARM_UP = 0.05  # of the time
_MANY = 10**9  # epochs, where the time decides
_WATCH = "watch.json"
_BEST = "best.safetensors"


@dataclass(frozen=True)
class Plan:
    """``seconds``: of the training, all its runs together, and ``epochs``: what comes first ends it."""

    seconds: float | None
    epochs: int | None
    batch: int
    learning_rate: float
    seed: int


@dataclass
class Watch:
    """``curve``: ``[minutes, fidelity]``, the first one before any step. ``stopped``: why it ended
    before its time."""

    curve: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    finished: bool = False
    stopped: str = ""

    @property
    def best(self) -> float:
        return max(fidelity for _, fidelity in self.curve)

    @property
    def idle(self) -> int:
        """Measurements since the best one."""
        values = [fidelity for _, fidelity in self.curve]
        return len(values) - 1 - values.index(max(values))


def train(
    pupil: Pupil,
    teacher: Teacher,
    collate: Callable[[list[int]], dict[str, Any]],
    lengths: Sequence[int],
    plan: Plan,
    fidelity: Callable[[], float],
    work: Path,
    grid: tuple[int, int] | None = None,
    report: Steps | None = None,
) -> Watch:
    """Teach *pupil*; at the end it has the state in which *fidelity* was highest.

    Args:
        collate: numbers of items -> ``rows`` (these numbers), ``student`` (its inputs), and where
            they differ ``teacher``; ``real`` where there is padding.
        lengths: of each item, in any unit: those of similar length go together.
        work: a folder for what a later run needs to go on; a finished training is only read.
        grid: of patches, where the objectives mask some.

    Raises:
        RecipeError: the loss is no number from the start, or memory is full.
        OutputError: *work* cannot be written.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pupil.to(device)
    teacher.view.module.to(device)
    checkpoint = _newest(work)
    watch = _read(work / _WATCH) or (checkpoint and _read(checkpoint / _WATCH)) or Watch()
    if not watch.finished:
        watcher = _Watcher(watch, plan, pupil, fidelity, work, report or Steps(quiet=True))
        order = ByLength(lengths, plan.batch, plan.seed)
        try:
            with quiet_transformers():
                trainer = _trainer(pupil, teacher, collate, order, plan, watcher, work, grid)
                _run(trainer, checkpoint, watch)
            watch.finished = True
            (work / _WATCH).write_text(json.dumps(asdict(watch)), encoding="utf-8")
        except (OSError, SafetensorError) as err:
            raise OutputError(f"cannot write {work}: {first_line(err)}.") from err
        except (MemoryError, RuntimeError) as err:
            if not _is_about_memory(err):
                raise
            raise RecipeError(f"memory is full at --batch {plan.batch}: lower --batch.") from err
    if watch.stopped and watch.best <= watch.curve[0][1]:
        raise RecipeError(f"{watch.stopped}, and nothing was learnt: lower --learning-rate.")
    pupil.load_state_dict(load_file(work / _BEST))
    pupil.to("cpu")
    teacher.view.module.to("cpu")
    return watch


def _run(trainer: _Trainer, checkpoint: Path | None, watch: Watch) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except FloatingPointError as err:  # what was best before is kept
        watch.stopped = str(err)


class _Trainer(transformers.Trainer):
    """The loss is asked of a teacher, and batches are of similar lengths."""

    teacher: Teacher
    order: ByLength
    grid: tuple[int, int] | None
    whole: bool  # some objective is of all patches
    loss_is_scaled_for_ga = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        student, real = inputs["student"], inputs.get("real")
        given = inputs.get("teacher", student)
        partial = None
        if self.grid is not None:
            kept = {PATCH_INDICES: patches(student, self.grid)}
            partial = {**student, **kept}, self.teacher({**given, **kept})
        seen = self.teacher(given, inputs["rows"]) if self.whole else None
        loss: torch.Tensor = model(student, seen, real, partial)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss was no number at step {self.state.global_step + 1}")
        return loss

    def get_train_dataloader(self) -> Any:
        items: Any = range(len(self.order))
        loader: Any = DataLoader(
            items, self.order.batch, sampler=self.order, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


class _Watcher(transformers.TrainerCallback):
    """Says how far the training is, how fast it may learn, and when it is over."""

    def __init__(
        self,
        watch: Watch,
        plan: Plan,
        pupil: Pupil,
        fidelity: Callable[[], float],
        work: Path,
        report: Steps,
    ) -> None:
        self.watch, self.plan, self.pupil, self.work = watch, plan, pupil, work
        self.fidelity, self.report = fidelity, report
        self.began = time.monotonic() - watch.seconds
        self.total = 1  # steps of all epochs
        self.cost = 0.0  # seconds of the last measurement

    def share(self, step: int) -> float:
        """Of the training that is over, after so many steps."""
        done = step / self.total
        if self.plan.seconds is not None:
            done = max(done, (time.monotonic() - self.began) / self.plan.seconds)
        return min(done, 1.0)

    def rate(self, step: int) -> float:
        """By what the learning rate is multiplied: up, then straight down to 0 at the end."""
        done = self.share(step)
        return max(done, 0.02) / _WARM_UP if done < _WARM_UP else (1 - done) / (1 - _WARM_UP)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.total = state.max_steps
        if not self.watch.curve:
            self._measure()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.watch.steps = state.global_step
        self.watch.seconds = time.monotonic() - self.began
        share = self.share(state.global_step)
        seen = state.global_step * self.plan.batch
        about = round(seen / share)
        self.report.count(seen, about, "items")
        due = share * _POINTS >= len(self.watch.curve)
        if self.plan.seconds is not None:  # not more than a tenth of a short time
            last = self.watch.curve[-1][0] * 60
            due = due and self.watch.seconds - last > 10 * self.cost
        if due or share >= 1:
            self._measure()
            idle = self.watch.idle
            if idle >= _PATIENCE:
                self.watch.stopped = f"no gain in {idle} measurements"
            control.should_save = share < 1 and not self.watch.stopped
        control.should_training_stop = share >= 1 or bool(self.watch.stopped)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Written last: a checkpoint that has it is whole.
        place = _checkpoint(self.work, state.global_step) / _WATCH
        place.write_text(json.dumps(asdict(self.watch)), encoding="utf-8")

    def _measure(self) -> None:
        began = time.monotonic()
        found = self.fidelity()
        if not math.isfinite(found):
            raise FloatingPointError(f"the vectors were no numbers after step {self.watch.steps}")
        earlier = [value for _, value in self.watch.curve]
        self.watch.curve.append((round((began - self.began) / 60, 3), found))
        if not earlier or found > max(earlier):
            state = {name: tensor.cpu() for name, tensor in self.pupil.state_dict().items()}
            save_file(state, self.work / f"{_BEST}.new")
            (self.work / f"{_BEST}.new").replace(self.work / _BEST)
        self.cost = time.monotonic() - began


def _trainer(
    pupil: Pupil,
    teacher: Teacher,
    collate: Callable[[list[int]], dict[str, Any]],
    order: ByLength,
    plan: Plan,
    watcher: _Watcher,
    work: Path,
    grid: tuple[int, int] | None,
) -> _Trainer:
    args = transformers.TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=plan.batch,
        learning_rate=plan.learning_rate,
        num_train_epochs=plan.epochs or _MANY // len(order),
        bf16=teacher.bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=plan.seed,
        disable_tqdm=True,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",  # the callback says when
        save_total_limit=2,
        remove_unused_columns=False,
    )
    learnt = [one for one in pupil.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(learnt, plan.learning_rate, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: watcher.rate(step))
    trainer = _Trainer(
        model=pupil,
        args=args,
        data_collator=collate,
        callbacks=[watcher],
        optimizers=(optimizer, scheduler),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.teacher, trainer.order, trainer.grid = teacher, order, grid
    trainer.whole = pupil.whole
    return trainer


def _checkpoint(work: Path, step: int) -> Path:
    return work / f"checkpoint-{step}"


def _newest(work: Path) -> Path | None:
    whole = [int(path.parent.name.split("-")[1]) for path in work.glob(f"checkpoint-*/{_WATCH}")]
    return _checkpoint(work, max(whole)) if whole else None


def _read(path: Path) -> Watch | None:
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Watch(**{**found, "curve": [(minutes, value) for minutes, value in found["curve"]]})


def _is_about_memory(err: BaseException) -> bool:
    text = str(err).lower()
    return isinstance(err, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text

"""``distill``: the whole way on tiny encoders."""

from __future__ import annotations

import json
import time
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from edgessl import checkpoint_session
from edgessl.compress import pupil
from edgessl.distilling import PICTURE, Distilled, distill
from edgessl.errors import RecipeError, Unsupported
from edgessl.parity import cosine
from edgessl.progress import Steps
from edgessl.shortening import shorten
from tests import small_vits
from tests.builders import random_texts, save_mae, save_text_model


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(dict.fromkeys(random_texts(150))) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> tuple[Path, Path]:
    """A teacher, and a student with one of its two layers."""
    folder = tmp_path_factory.mktemp("pair")
    teacher = save_text_model(folder / "teacher")
    shorten(str(teacher), [str(texts)], folder / "student", keep=1)
    return teacher, folder / "student"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).integers(0, 256, (60, 24, 24, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", drawn)
    return tmp_path / "images.npy"


def learn(pair: tuple[Path, Path], data: Path, output: Path, **options: Any) -> Distilled:
    options = {"epochs": 3, **options}
    return distill(str(pair[1]), [str(data)], output, teacher=str(pair[0]), **options)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def test_a_shallower_student(tmp_path: Path, pair: tuple[Path, Path], texts: Path) -> None:
    found = learn(pair, texts, tmp_path / "new")
    assert found.before.cosine_mean is not None and found.after.cosine_mean is not None
    assert found.after.cosine_mean > found.before.cosine_mean + 0.02
    curve = [value for _, value in found.curve]
    assert curve[0] == pytest.approx(found.before.cosine_mean)
    assert max(curve) == pytest.approx(found.after.cosine_mean)
    assert found.items + found.held_out == len(texts.read_text(encoding="utf-8").splitlines())
    before, after = weights(pair[1]), weights(tmp_path / "new")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("embeddings.weight" in name for name in changed)
    assert (tmp_path / "new" / PICTURE).read_text(encoding="utf-8").startswith("<svg")
    notes = json.loads((tmp_path / "new" / "compression.json").read_text(encoding="utf-8"))
    assert notes[-1]["distillation"]["after"]["cosine_mean"] == found.after.cosine_mean
    assert [path.name for path in tmp_path.iterdir()] == ["new"]  # and no work folder
    again = checkpoint_session.load(str(tmp_path / "new"))
    teacher = checkpoint_session.load(str(pair[0]))
    others = random_texts(60, seed=9)
    vectors = checkpoint_session.embed(again, others)
    assert cosine(vectors, checkpoint_session.embed(teacher, others)).mean() > curve[0]


def test_it_is_repeatable_and_goes_on_where_it_was(
    tmp_path: Path, pair: tuple[Path, Path], texts: Path
) -> None:
    """With objectives that have the teacher in the loop, and with its vectors kept."""
    for objectives in (["hidden", "tokens"], ["embedding", "similarity"]):
        name = objectives[0]
        learn(pair, texts, tmp_path / f"{name}-1", objectives=objectives)
        with pytest.raises(KeyboardInterrupt):
            learn(pair, texts, tmp_path / f"{name}-2", objectives=objectives, report=Killed(7))
        assert (tmp_path / f".{name}-2.training").is_dir()
        late = Killed(1000)
        found = learn(pair, texts, tmp_path / f"{name}-2", objectives=objectives, report=late)
        assert late.counted == found.steps - 6  # those of the first run are not done again
        one, other = weights(tmp_path / f"{name}-1"), weights(tmp_path / f"{name}-2")
        assert all(torch.equal(one[key], other[key]) for key in one)


class Killed(Steps):
    """Interrupts a job at a step."""

    def __init__(self, step: int) -> None:
        super().__init__(quiet=True)
        self.step = step
        self.counted = 0

    def count(self, done: int, total: int | None, unit: str) -> None:
        self.counted += 1
        if self.counted == self.step:
            raise KeyboardInterrupt


def test_other_arguments_begin_anew(tmp_path: Path, pair: tuple[Path, Path], texts: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn(pair, texts, tmp_path / "new", report=Killed(7))
    late = Killed(1000)
    found = learn(pair, texts, tmp_path / "new", seed=1, report=late)
    assert late.counted == found.steps


def test_the_teacher_is_asked_once(
    tmp_path: Path, pair: tuple[Path, Path], texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    run = pupil.Teacher._run

    def count(self: pupil.Teacher, inputs: pupil.Inputs) -> pupil.Seen:
        asked.append(len(next(iter(inputs.values()))))
        return run(self, inputs)

    monkeypatch.setattr(pupil.Teacher, "_run", count)
    found = learn(pair, texts, tmp_path / "new", epochs=4)
    assert found.items <= sum(asked) < 2 * found.items


def test_minutes_are_kept(tmp_path: Path, pair: tuple[Path, Path], texts: Path) -> None:
    began = time.monotonic()
    found = learn(pair, texts, tmp_path / "new", epochs=None, minutes=0.05)
    assert time.monotonic() - began < 4  # of 3, and what other programs take
    assert found.seconds > 1 and not found.stopped


def test_a_student_of_another_width(tmp_path: Path, pair: tuple[Path, Path], texts: Path) -> None:
    narrow = save_text_model(tmp_path / "narrow", hidden_size=16, num_attention_heads=2)
    objectives = ["embedding=0.1", "similarity=10", "hidden=0.1", "attention=0.1"]
    found = learn((pair[0], narrow), texts, tmp_path / "new", epochs=6, objectives=objectives)
    assert found.after.cosine_mean is None
    assert found.after.rank_correlation > found.before.rank_correlation
    assert any("thrown away" in remark for remark in found.remarks)
    assert weights(narrow).keys() == weights(tmp_path / "new").keys()


def test_another_tokenizer(tmp_path: Path, pair: tuple[Path, Path], texts: Path) -> None:
    other = save_text_model(tmp_path / "other", "roberta")
    found = learn((pair[0], other), texts, tmp_path / "new")
    assert found.after.value > found.before.value
    assert any("different ways" in remark for remark in found.remarks)
    with pytest.raises(RecipeError, match="hidden compares tokens"):
        learn((pair[0], other), texts, tmp_path / "newer", objectives=["hidden"])


def test_masked_patches(tmp_path: Path, images: Path) -> None:
    teacher = save_mae(tmp_path / "teacher", num_hidden_layers=4, image_size=24)
    shorten(str(teacher), [str(images)], tmp_path / "student", keep=2)
    pair = teacher, tmp_path / "student"
    found = learn(pair, images, tmp_path / "new", objectives=["masked"], batch=8)
    assert found.after.value > found.before.value
    with pytest.raises(RecipeError, match="same grid"):
        other = save_mae(tmp_path / "other", image_size=16)
        learn((other, pair[1]), images, tmp_path / "newer", objectives=["masked"])


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    teacher = save_mae(tmp_path / "teacher")
    folder = tmp_path / "images"
    folder.mkdir()
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3))):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n}.png")
    shorten(str(teacher), [str(folder)], tmp_path / "student", keep=1)
    for n in range(0, 60, 4):
        (folder / f"{n}.png").write_bytes(b"no image")
    found = learn((teacher, tmp_path / "student"), folder, tmp_path / "new", batch=4)
    assert 0 < found.held_out < 12


def test_attention_of_another_family(tmp_path: Path, images: Path) -> None:
    small_vits.save(tmp_path / "teacher", "dinov2")
    shorten(str(tmp_path / "teacher"), [str(images)], tmp_path / "student", keep=2)
    pair = tmp_path / "teacher", tmp_path / "student"
    found = learn(pair, images, tmp_path / "new", objectives=["attention", "tokens"], batch=8)
    assert found.after.value > found.before.value


def test_a_classifier(tmp_path: Path, texts: Path) -> None:
    names = {n: name for n, name in enumerate(("bad", "fair", "good"))}
    kind = "ForSequenceClassification"
    teacher = save_text_model(tmp_path / "teacher", head=kind, id2label=names)
    shrunk = save_text_model(
        tmp_path / "student", "bert", kind, id2label=names, num_hidden_layers=1
    )
    found = learn((teacher, shrunk), texts, tmp_path / "new", objectives=["logits"], batch=8)
    assert found.after.value > found.before.value
    with pytest.raises(RecipeError, match="no vector"):
        learn((teacher, shrunk), texts, tmp_path / "a", objectives=["logits", "embedding"])
    with pytest.raises(Unsupported, match="classifier"):
        plain = save_text_model(tmp_path / "plain")
        learn((teacher, plain), texts, tmp_path / "a", objectives=["logits"])


def test_half_precision_is_learnt_as_it_is_stored(
    tmp_path: Path, pair: tuple[Path, Path], texts: Path
) -> None:
    half = copytree(pair[1], tmp_path / "half")
    tensors = {name: tensor.half() for name, tensor in weights(half).items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    learn((pair[0], half), texts, tmp_path / "new")
    assert {tensor.dtype for tensor in weights(tmp_path / "new").values()} == {torch.float16}


def test_a_loss_that_is_no_number(
    tmp_path: Path, pair: tuple[Path, Path], texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="lower --learning-rate"):
        learn(pair, texts, tmp_path / "new", learning_rate=1e30)
    forward, steps = pupil.Pupil.forward, iter(range(100))

    def broken(self: pupil.Pupil, *given: Any) -> torch.Tensor:
        loss: torch.Tensor = forward(self, *given)
        return loss * float("nan") if next(steps) >= 6 else loss

    monkeypatch.setattr(pupil.Pupil, "forward", broken)
    found = learn(pair, texts, tmp_path / "new")
    assert found.stopped == "the loss was no number at step 7"
    assert found.after.value > found.before.value


def test_memory_is_full(
    tmp_path: Path, pair: tuple[Path, Path], texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(pupil.Pupil, "forward", full)
    with pytest.raises(RecipeError, match="at --batch 32: lower --batch"):
        learn(pair, texts, tmp_path / "new")


def test_refused(tmp_path: Path, pair: tuple[Path, Path], texts: Path) -> None:
    def refuse(said: str, data: Path = texts, who: Any = pair, **options: Any) -> None:
        with pytest.raises(RecipeError, match=said):
            learn(who, data, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()

    refuse("minutes 0: it should be above 0", minutes=0)
    refuse("learning rate -1: ", learning_rate=-1)
    refuse("Did you mean 'hidden'", objectives=["hiden"])
    refuse("nothing to learn", who=(pair[0], pair[0]))
    few = tmp_path / "few.txt"
    few.write_text("a\nb\n", encoding="utf-8")
    refuse("too few", data=few)
    few.write_text("", encoding="utf-8")
    refuse("nothing in it", data=few)
    refuse("for image, the student for text", who=(save_mae(tmp_path / "mae"), pair[1]))
    with pytest.raises(RecipeError, match="needs a teacher"):
        distill(str(pair[1]), [str(texts)], tmp_path / "new")
    t5 = save_text_model(tmp_path / "t5", "t5")
    with pytest.raises(Unsupported, match="not described"):
        learn((t5, pair[1]), texts, tmp_path / "new", objectives=["hidden"])

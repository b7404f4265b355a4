"""Signals for pruning: their curvature against exact ones, and the whole way on tiny encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from edgessl import checkpoint_session, cli, pruning
from edgessl.compress import fisher, flow, signals
from edgessl.encoders import structures
from edgessl.errors import RecipeError, Unsupported
from edgessl.recipe import Recipe
from edgessl.source import load_encoder
from tests.builders import change_json, random_texts, save_mae, save_text_model

BUDGET = pruning.Budget("flops", 0.85)
TEXTS = random_texts(60)


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return [str(path)]


def classifier(tmp_path: Path, **config: Any) -> str:
    names = {0: "bad", 1: "good", 2: "so so"}
    save_text_model(
        tmp_path / "model", "bert", "ForSequenceClassification", id2label=names, **config
    )
    return str(tmp_path / "model")


def table(tmp_path: Path, labels: list[Any], name: str = "class") -> list[str]:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": text, name: label} for text, label in zip(TEXTS, labels)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [str(path)]


def exact(signal: signals.Signal, hessians: Any) -> list[torch.Tensor]:
    """The sum over the batches of J^T H J by each output projection and each ``down``, over its
    tokens: from the whole Jacobian, a row a number of the output."""
    linears = [
        layer.linear(name)
        for layer in signal.layers
        for name in (layer.names.out, layer.names.down)
    ]
    found = [torch.zeros(linear.out_features, linear.out_features) for linear in linears]
    tokens = 0
    for inputs in signal.batches:
        with flow.tapped(linears) as taps:
            output = signal.module(**inputs)[0]
            made = [tap.made for tap in taps]
            for row, hessian in zip(output, hessians(output.detach(), inputs), strict=True):
                grads = [
                    torch.autograd.grad(number, made, retain_graph=True, allow_unused=True)
                    for number in row
                ]
                for place in range(len(made)):
                    jacobian = torch.stack([one[place].flatten(0, -2) for one in grads])
                    found[place] += torch.einsum("atd,ab,bte->de", jacobian, hessian, jacobian)
        tokens += made[0][..., 0].numel()
    return [some / tokens for some in found]


def measured(signal: signals.Signal, projections: int) -> list[torch.Tensor]:
    parts = fisher.measure(
        signal.module, signal.layers, signal.batches, signal.direction, projections=projections
    )
    return [part.metric.float() for both in parts for part in both]


def close(one: list[torch.Tensor], other: list[torch.Tensor], within: float) -> bool:
    return all(float((a - b).norm() / b.norm()) < within for a, b in zip(one, other, strict=True))


def softmax_fisher(logits: torch.Tensor, _: flow.Inputs) -> torch.Tensor:
    """By definition: the mean over y ~ p of (p - onehot y)(p - onehot y)^T, for each row."""
    chances = logits.softmax(-1)
    away = chances[:, None] - torch.eye(logits.shape[-1])  # (rows, y, classes)
    return torch.einsum("ry,rya,ryb->rab", chances, away, away)


def opened(model: Path | str, items: list[Any], **options: Any) -> tuple[Any, ...]:
    encoder = load_encoder(Recipe(model=str(model), **options))
    layers = structures.of(encoder)
    prepared = checkpoint_session.prepare(encoder, items)
    return encoder, layers, prepared, flow.batches(encoder.module, layers, prepared)


def test_curvature_of_masked_tokens(tmp_path: Path) -> None:
    model = save_text_model(tmp_path, "bert", "ForMaskedLM")
    encoder, _, _, batches = opened(model, TEXTS[:3])
    signal = signals.reconstruction(encoder, batches, model, 0)
    assert close(measured(signal, 1500), exact(signal, softmax_fisher), 0.15)


def test_curvature_of_masked_patches(tmp_path: Path) -> None:
    model = save_mae(tmp_path)
    images = [np.full((16, 16, 3), 60 * n, np.uint8) for n in range(2)]
    encoder, _, _, batches = opened(model, images)
    signal = signals.reconstruction(encoder, batches, model, 0)
    (inputs,) = signal.batches
    assert signal.module(**inputs)[0].shape == (2 * 12, 48)  # three quarters of 16 patches
    squared = exact(signal, lambda out, _: torch.eye(48).expand(len(out), -1, -1))
    assert close(measured(signal, 600), squared, 0.15)


def test_curvature_of_labels(tmp_path: Path) -> None:
    """Against the cross-entropy's gradient by the library's own model and loss."""
    model = classifier(tmp_path)
    encoder, layers, prepared, _ = opened(model, TEXTS[:6], probabilities=True)
    classes = [0, 1, 2, 0, 1, 2]
    signal = signals.labels(encoder, layers, prepared, classes)
    assert signal.projections == 1
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    linears = [
        linear
        for layer in theirs.bert.encoder.layer
        for linear in (layer.attention.output.dense, layer.output.dense)
    ]
    found, tokens = [torch.zeros(32, 32) for _ in linears], 0
    for item, label in zip(prepared, classes, strict=True):
        inputs = {name: torch.from_numpy(array) for name, array in item.items()}
        with flow.tapped(linears) as taps:
            loss = theirs(**inputs, labels=torch.tensor([label])).loss
            for place, grad in enumerate(torch.autograd.grad(loss, [tap.made for tap in taps])):
                found[place] += grad[0].T @ grad[0]
        tokens += inputs["input_ids"].numel()
    assert close(measured(signal, 1), [some / tokens for some in found], 1e-3)


def test_what_is_masked(tmp_path: Path) -> None:
    model = save_text_model(tmp_path, "bert", "ForMaskedLM")
    encoder, _, _, batches = opened(model, random_texts(300))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
    signal = signals.reconstruction(encoder, batches, model, 0)
    again = signals.reconstruction(encoder, batches, model, 0)
    chosen = tokens = replaced = 0
    for plain, one, other in zip(batches, signal.batches, again.batches, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
        before, after, which = plain["input_ids"], one["input_ids"], one["chosen"]
        words = ~torch.isin(before, torch.tensor(tokenizer.all_special_ids))
        assert torch.equal(before[~which], after[~which]) and not which[~words].any()
        assert which[words.any(1)].any(1).all()  # something of each text
        chosen, tokens = chosen + int(which.sum()), tokens + int(words.sum())
        replaced += int((after == tokenizer.mask_token_id).sum())
    assert 0.14 < chosen / tokens < 0.25  # one at least, of few
    assert replaced / chosen == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    "family",
    [
        "roberta",
        "distilbert",
        "mpnet",
        "electra",
        "deberta-v2",
        "nomic_bert",
        "eurobert",
        "camembert",
    ],
)
def test_heads_of_other_families(family: str, tmp_path: Path) -> None:
    model = save_text_model(tmp_path, family, "ForMaskedLM")
    encoder, layers, _, batches = opened(model, TEXTS[:5])
    signal = signals.reconstruction(encoder, batches, model, 0)
    chosen = sum(int(one["chosen"].sum()) for one in signal.batches)
    rows = sum(len(signal.module(**one)[0]) for one in signal.batches)
    assert rows == chosen and len(signal.layers) == len(layers)
    assert all(float(some.abs().sum()) > 0 for some in measured(signal, 1))


def test_reconstruction_the_whole_way(tmp_path: Path, texts: list[str]) -> None:
    model = str(save_text_model(tmp_path / "model", "bert", "ForMaskedLM"))
    options: Any = {"budget": BUDGET, "signal": "reconstruction"}
    found = pruning.prune(model, texts, tmp_path / "one", **options)
    assert found.flops_after < 0.86 * found.flops_before and found.accuracy_after is None
    notes = json.loads((tmp_path / "one" / "compression.json").read_text(encoding="utf-8"))
    assert notes[-1]["pruning"]["signal"] == "reconstruction"
    # its layers have sizes of their own now, or say so in the config; the head is still there
    smaller: Any = {**options, "budget": pruning.Budget("params", 0.9)}
    assert pruning.prune(str(tmp_path / "one"), texts, tmp_path / "two", **smaller).signal
    plain = str(save_text_model(tmp_path / "plain", "bert"))
    with pytest.raises(Unsupported, match=r"plain: .*needs the head .* the weights lack .*cls\."):
        pruning.prune(plain, texts, tmp_path / "three", **options)
    with pytest.raises(RecipeError, match="unknown signal 'vector'. Did you mean 'vectors'"):
        pruning.prune(plain, texts, tmp_path / "three", budget=BUDGET, signal="vector")
    assert not (tmp_path / "three").exists()


def test_labels_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = classifier(tmp_path)
    data = table(tmp_path, ["Good", "bad", "so so"] * 20, "opinion")
    asked = ["compress", model, "-o", str(tmp_path / "small"), "--flops", "0.85x", "--data", *data]
    assert cli.run([*asked, "--signal", "labels", "--label-column", "opinion", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["signal"], found["items"], found["held_out"]) == ("labels", 48, 12)
    assert 0 <= found["accuracy_before"] <= 1 and 0 <= found["accuracy_after"] <= 1
    small = load_encoder(Recipe(model=str(tmp_path / "small"), probabilities=True))
    assert checkpoint_session.embed(small, TEXTS[:2]).shape == (2, 3)


def test_accuracy_is_that_of_the_held_out(tmp_path: Path) -> None:
    """Labels are what the classifier itself says, and nothing of it is removed."""
    model = classifier(tmp_path)
    encoder = load_encoder(Recipe(model=model, probabilities=True))
    said = checkpoint_session.embed(encoder, TEXTS).argmax(1)
    data = table(tmp_path, [int(n) for n in said])
    found = pruning.prune(
        model, data, tmp_path / "out", budget=pruning.Budget("params", 0.999), signal="labels"
    )
    assert found.accuracy_before == 1
    assert found.accuracy_after is not None and found.accuracy_after > 0.5


def test_images_in_a_folder_a_class(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.ViTConfig(
        **sizes,  # type: ignore[arg-type]
        intermediate_size=64,
        image_size=16,
        patch_size=8,
        id2label={0: "dark", 1: "light"},
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(20):
            pixels = rng.integers(low, low + 128, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{n}.png")
    found = pruning.prune(
        str(tmp_path / "model"),
        [str(tmp_path / "images")],
        tmp_path / "out",
        budget=BUDGET,
        signal="labels",
    )
    assert found.accuracy_before is not None and (found.items, found.held_out) == (32, 8)


@pytest.mark.parametrize(
    ("labels", "asked", "said"),
    [
        (
            ["good", "awful"],
            None,
            "the label 'awful' is none of the classifier's: bad, good, so so",
        ),
        ([0, 3], None, "the label '3' is none"),
        ([0, "good"], None, "the label '0' is none"),
        ([None, None], None, "none of its items has a label"),
        (
            ["good", "bad"],
            "klass",
            "no column 'klass', which --label-column names. Did you mean 'class'",
        ),
    ],
)
def test_wrong_labels(labels: list[Any], asked: str | None, said: str, tmp_path: Path) -> None:
    model, data = classifier(tmp_path), table(tmp_path, labels * 30)
    with pytest.raises(RecipeError, match=said):
        pruning.prune(
            model, data, tmp_path / "out", budget=BUDGET, signal="labels", label_column=asked
        )


def test_refused(tmp_path: Path, texts: list[str]) -> None:
    def refuse(model: str, kind: type[Exception], said: str, **options: Any) -> None:
        with pytest.raises(kind, match=said):
            pruning.prune(model, texts, tmp_path / "out", budget=BUDGET, **options)

    model = classifier(tmp_path)
    refuse(model, RecipeError, "has no labels; give a table", signal="labels")
    change_json(tmp_path / "model" / "config.json", problem_type="multi_label_classification")
    refuse(model, Unsupported, "takes one label an item", signal="labels")
    plain = str(save_text_model(tmp_path / "plain", "bert"))
    refuse(plain, Unsupported, "needs a fine-tuned classifier .*this is BertModel", signal="labels")
    tower = str(save_text_model(tmp_path / "tower", "clip_text_model"))
    refuse(tower, Unsupported, "this is clip_text_model; --signal vectors", signal="reconstruction")
    with pytest.raises(RecipeError, match="--label-column is for --signal labels"):
        arguments = ["compress", model, "-o", "o", "--flops", "0.8x", "--data", *texts]
        cli.cli.main([*arguments, "--label-column", "class"], standalone_mode=False)

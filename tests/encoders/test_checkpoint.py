"""``edgessl.encoders.checkpoint`` on tiny random models, damaged files and the real MiniLM."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel
from transformers.utils import logging as transformers_logging

import edgessl.encoders.checkpoint as checkpoint
from edgessl.encoders.checkpoint import Weights
from edgessl.errors import CheckpointError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
POOLER = (r"(^|\.)pooler\.",)


def tiny(cls: type[Any] = BertModel) -> Any:
    torch.manual_seed(3)
    return cls(
        BertConfig(
            vocab_size=99,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=40,
        )
    ).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    tiny().save_pretrained(directory)
    return directory


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A directory with a tiny BERT in model.safetensors, to be damaged at will."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def pickled(model: Path) -> Path:
    """The same as pytorch_model.bin."""
    state = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(state, model / "pytorch_model.bin")
    return model


def load(directory: Path, allowed_missing: tuple[str, ...] = ()) -> Any:
    weights = checkpoint.find_weights(directory)
    checkpoint.check_weights(weights)
    return checkpoint.load_module(AutoModel, directory, weights, allowed_missing=allowed_missing)


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(directory / "model.safetensors")
    edit(state)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def refused(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# config.json


def test_config_is_read(model: Path) -> None:
    assert checkpoint.read_config(model)["hidden_size"] == 32


def test_no_config_says_where_one_is(model: Path) -> None:
    parent = model.parent
    with pytest.raises(CheckpointError, match=r"not a Hugging Face.*in it: model\?"):
        checkpoint.read_config(parent)
    (parent / "modules.json").write_text("[]")
    with pytest.raises(CheckpointError, match="sentence-transformers.*in it: model"):
        checkpoint.read_config(parent)
    with pytest.raises(CheckpointError, match="no such directory"):
        checkpoint.read_config(parent / "absent")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{\n "a": 1,\n "b" 2}', "line 3: damaged JSON"),
        (b"", "line 1: damaged JSON"),
        (b"[1]", "holds a list"),
        (b'{"a": "\xff"}', "cannot be read"),
    ],
)
def test_damaged_config(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        checkpoint.read_config(tmp_path)


# which files


def test_safetensors_come_before_pickles(model: Path) -> None:
    file = model / "model.safetensors"
    (model / "pytorch_model.bin").touch()
    assert checkpoint.find_weights(model) == Weights((file,), "safetensors")


def test_no_weights_says_what_is_accepted_and_what_is_there(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "tf_model.h5").touch()
    message = refused(model)
    for expected in ("model.safetensors", "pytorch_model.bin", "tf_model.h5: TensorFlow"):
        assert expected in message


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_shards(kind: str, tmp_path: Path) -> None:
    original = tiny()
    if kind == "safetensors":
        original.save_pretrained(tmp_path, max_shard_size="20KB")
    else:
        _save_pickled_shards(original, tmp_path)
    weights = checkpoint.find_weights(tmp_path)
    assert weights.kind == kind and len(weights.files) > 2
    _same_weights(load(tmp_path), original)

    expected = "".join(
        sorted(
            f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
            for path in weights.files
        )
    )
    assert checkpoint.sha256(weights) == hashlib.sha256(expected.encode()).hexdigest()

    weights.files[1].unlink()
    message = refused(tmp_path)
    assert f"lacks 1 of {len(weights.files)} files" in message
    assert weights.files[1].name in message


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"a": "../elsewhere.safetensors"}}, "outside of its directory"),
        ({"weight_map": {}}, "has no weight_map"),
        ([], "holds a list"),
    ],
)
def test_a_damaged_index(index: object, says: str, model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "elsewhere.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert says in refused(model)


def test_other_weights_beside_the_checked_ones_are_refused(model: Path) -> None:
    config = model / "config.json"
    plain = config.read_text()
    config.write_text(json.dumps({**json.loads(plain), "transformers_weights": "b.safetensors"}))
    assert "transformers_weights" in refused(model)
    config.write_text(plain)
    (model / "adapter_config.json").write_text("{}")
    assert "adapter_config.json" in refused(model)


# damaged files


@pytest.mark.parametrize("keep", [0, 5, 100, -1, 0.5])
def test_truncated_safetensors(keep: float, model: Path) -> None:
    file = model / "model.safetensors"
    content = file.read_bytes()
    cut = content[: keep if isinstance(keep, int) else int(len(content) * keep)]
    file.write_bytes(cut)
    message = refused(model)
    assert f"truncated: it has {len(cut)} of " in message
    if len(cut) > 20_000:  # the header is whole, so the size is known
        assert f"of {len(content)} bytes" in message


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>not found</html>",
        (4).to_bytes(8, "little") + b"[12]",
        (2).to_bytes(8, "little") + b"{}" + b"left over",
    ],
)
def test_what_is_no_safetensors_file(content: bytes, model: Path) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "is damaged or no safetensors file (SafetensorError: " in refused(model)


def test_a_git_lfs_pointer_is_named(model: Path) -> None:
    (model / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{MINILM_SHA256}\nsize 90868376\n"
    )
    assert "git lfs pull" in refused(model)


@pytest.mark.parametrize("keep", [0, 100, 0.5, -10])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_pickles(keep: float, zipped: bool, pickled: Path) -> None:
    file = pickled / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    assert "is truncated, damaged or not saved by torch" in refused(pickled)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_read(zipped: bool, pickled: Path) -> None:
    file = pickled / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    assert checkpoint.find_weights(pickled).kind == "pickle"
    _same_weights(load(pickled), tiny())


class Evil:
    """Pickled as: call os.mkdir(path)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Stranger:
    """A class that a checkpoint has no business with."""


@pytest.mark.parametrize("writer", ["zip", "legacy", "plain"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(writer: str, pickled: Path) -> None:
    file, proof = pickled / "pytorch_model.bin", pickled / "the-code-ran"
    content = {"embeddings.word_embeddings.weight": torch.zeros(2), "x": Evil(proof)}
    if writer == "plain":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=writer == "zip")
    message = refused(pickled)
    assert not proof.exists()
    assert "safetensors" in message and "is refused: its pickle" in message
    if writer != "plain":
        assert f"wants to call {os.mkdir.__module__}.mkdir" in message
        # the same file is dangerous to whoever trusts it
        torch.load(file, weights_only=False)
        assert proof.exists()


def test_unknown_classes_are_refused(pickled: Path) -> None:
    torch.save({"x": Stranger()}, pickled / "pytorch_model.bin")
    assert "Stranger" in refused(pickled)
    torch.save([torch.zeros(2)], pickled / "pytorch_model.bin")
    assert "holds a list" in refused(pickled)


# hashes


def test_sha256_of_one_file_is_the_published_one(minilm: Path) -> None:
    assert checkpoint.sha256(checkpoint.find_weights(minilm)) == MINILM_SHA256


# loading


def test_load_gives_the_saved_weights_as_float32_in_eval_mode(model: Path) -> None:
    module = load(model)
    _same_weights(module, tiny())
    assert not any(part.training for part in module.modules())
    assert module.config._attn_implementation == "eager"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_arrives_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    half = tiny().to(dtype)
    half.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype)[6:]
    _same_weights(load(tmp_path), half.float())


def test_a_headed_checkpoint_loads_as_its_encoder(tmp_path: Path) -> None:
    masked = tiny(BertForMaskedLM)
    masked.save_pretrained(tmp_path)
    assert "pooler.dense.weight" in refused(tmp_path)  # a masked LM has no pooler
    module = load(tmp_path, allowed_missing=POOLER)
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        ours = module(tokens).last_hidden_state
        torch.testing.assert_close(ours, masked.bert(tokens).last_hidden_state)


def test_missing_tensors_are_named_and_counted(model: Path) -> None:
    def drop_a_layer(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("encoder.layer.1.")]:
            del state[name]

    change(model, drop_a_layer)
    total = len(tiny().state_dict())
    message = refused(model)
    assert f"lack 16 of the {total} tensors" in message
    assert "encoder.layer.1.attention.output.LayerNorm.bias" in message
    with pytest.raises(CheckpointError, match="lack 16 of"):
        load(model, allowed_missing=POOLER)


def test_other_shapes_are_named(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    expected = "embeddings.word_embeddings.weight is [99, 32] in the weights and [100, 32]"
    assert expected in refused(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(value: float, model: Path) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state["encoder.layer.0.output.dense.weight"][1, 2:5] = value
        state["pooler.dense.bias"][0] = value

    change(model, spoil)
    message = refused(model)
    assert "3 of 1536 values of encoder.layer.0.output.dense.weight" in message
    assert "1 more" in message


def test_finite_tensors_pass() -> None:
    checkpoint.check_finite([("a", torch.zeros(3)), ("b", torch.arange(3)), ("c", torch.ones(0))])


def test_what_transformers_cannot_load_is_one_line(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "no-such-thing"}))
    assert "transformers cannot load it (" in refused(model)


def test_code_of_the_repository_is_not_run(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    auto = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (model / "mine.py").write_text(f"import os\nos.mkdir({str(model / 'the-code-ran')!r})\n")
    (model / "config.json").write_text(
        json.dumps({**config, "model_type": "mine", "auto_map": auto})
    )
    assert "transformers cannot load it (" in refused(model)
    assert not (model / "the-code-ran").exists()


def test_loading_says_nothing_and_restores_what_it_silenced(
    model: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    change(model, lambda state: state.update(unexpected=torch.zeros(3)))
    change(model, lambda state: state.pop("pooler.dense.bias"))
    transformers_logging.set_verbosity(logging.INFO)
    filters = list(warnings.filters)
    try:
        load(model, allowed_missing=POOLER)
        refused(model)
        assert capfd.readouterr() == ("", "") and not caplog.records
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
        assert list(warnings.filters) == filters
        AutoModel.from_pretrained(model)
        assert "unexpected" in caplog.text  # else the silence proves nothing
    finally:
        transformers_logging.set_verbosity(logging.WARNING)


def test_minilm_equals_a_plain_load(minilm: Path) -> None:
    _same_weights(load(minilm), BertModel.from_pretrained(minilm))


def _same_weights(module: torch.nn.Module, reference: torch.nn.Module) -> None:
    ours, theirs = module.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, theirs[name]), name


def _save_pickled_shards(model: Any, directory: Path) -> None:
    """As transformers wrote them before safetensors."""
    model.config.save_pretrained(directory)
    names = list(model.state_dict())
    weight_map = {}
    for number in range(3):
        file = f"pytorch_model-{number + 1:05}-of-00003.bin"
        part = {name: model.state_dict()[name].clone() for name in names[number::3]}
        torch.save(part, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))

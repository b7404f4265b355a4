"""ResNets as their authors publish them, against torchvision's ResNet written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from edgessl import encoders
from edgessl.encoders.options import LoadOptions
from edgessl.encoders.original import convert
from edgessl.errors import Unsupported
from edgessl.spec import Provenance
from tests.release_models import Basic, Bottleneck, ResNet, prefixed, randomize

State = dict[str, Any]
FC = {"fc.weight": torch.ones(5, 256), "fc.bias": torch.ones(5)}
SEQUENTIAL = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def another(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


def sequential(state: State) -> State:
    return {f"{SEQUENTIAL[n.split('.')[0]]}.{n.split('.', 1)[1]}": v for n, v in state.items()}


def swav(state: State) -> State:
    head = {"projection_head.0.weight": torch.ones(2, 2), "prototypes.weight": torch.ones(3, 2)}
    return prefixed("module.", {**state, **head})


def moco(state: State) -> State:
    return {
        "arch": "resnet50",
        "state_dict": {
            **prefixed("module.encoder_k.", another(state)),
            **prefixed("module.encoder_q.", {**state, "fc.0.weight": torch.ones(3, 3)}),
            "module.queue": torch.ones(2, 4),
            "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
        },
    }


def moco_v3(state: State) -> State:
    both = {
        **prefixed("module.momentum_encoder.", another(state)),
        **prefixed("module.base_encoder.", {**state, "fc.0.weight": torch.ones(3, 3)}),
    }
    return {"state_dict": both}


def vissl(state: State) -> State:
    trunk = {"trunk": prefixed("_feature_blocks.", state), "heads": {"a": torch.ones(1)}}
    return {"classy_state_dict": {"base_model": {"model": trunk}}, "phase_idx": 3}


def barlow_training(state: State) -> State:
    projector = {
        "module.projector.0.weight": torch.ones(2, 2),
        "module.bn.running_mean": FC["fc.bias"],
    }
    return {"epoch": 1, "model": {**prefixed("module.backbone.", state), **projector}}


def byol(state: State) -> State:
    return {
        **prefixed("online_encoder.net.", state),
        **prefixed("target_encoder.net.", another(state)),
        "online_encoder.projector.0.weight": torch.ones(2, 2),
        "online_predictor.0.weight": torch.ones(2, 2),
    }


WRAPPERS: dict[str, tuple[Callable[[State], State], str]] = {
    "dino, barlow twins, vicreg": (lambda s: s, "ResNet in torchvision's names"),
    "torchvision": (lambda s: {**s, **FC}, "ResNet in torchvision's names"),
    "moco": (moco, "MoCo release"),
    "moco v3": (moco_v3, "MoCo v3 release"),
    "swav": (swav, "SwAV release"),
    "barlow training": (barlow_training, "Barlow Twins or VICReg training checkpoint"),
    "vissl": (vissl, "VISSL checkpoint"),
    "byol": (byol, "ResNet in torchvision's names"),
    "simclr": (lambda s: {"state_dict": prefixed("backbone.", s)}, "ResNet in torchvision's names"),
    "simclr module": (
        lambda s: {
            "model": {**prefixed("module.encoder.", s), "module.head.0.bias": torch.ones(1)}
        },
        "ResNet in torchvision's names",
    ),
    "sequential": (
        lambda s: {"state_dict": prefixed("encoder.", sequential(s))},
        "ResNet in torchvision's names",
    ),
}


@pytest.fixture(scope="module")
def bottlenecks() -> ResNet:
    model = ResNet(Bottleneck, (2, 1, 2, 1))
    randomize(model)
    return model.eval()


def save_and_convert(content: object, tmp_path: Path) -> tuple[Path, str]:
    torch.save(content, tmp_path / "weights.pth.tar")
    converted = convert(tmp_path / "weights.pth.tar", tmp_path / "out")
    return tmp_path / "out", converted.origin


def expect_same(model: ResNet, directory: Path) -> None:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        actual = AutoModel.from_pretrained(directory).eval()(pixel_values=pixels)
        expected = model(pixels)
    assert expected.std() > 0.3  # it says something
    torch.testing.assert_close(actual.last_hidden_state, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", WRAPPERS)
def test_features_are_those_of_the_original(name: str, bottlenecks: ResNet, tmp_path: Path) -> None:
    wrap, origin = WRAPPERS[name]
    directory, found = save_and_convert(wrap(bottlenecks.state_dict()), tmp_path)
    assert found.startswith(origin)
    expect_same(bottlenecks, directory)


def test_basic_blocks(tmp_path: Path) -> None:
    model = ResNet(Basic, (1, 2, 1, 1))
    randomize(model)
    directory, _ = save_and_convert(model.state_dict(), tmp_path)
    config = json.loads((directory / "config.json").read_text())
    assert (config["layer_type"], config["depths"]) == ("basic", [1, 2, 1, 1])
    expect_same(model.eval(), directory)


def test_every_weight_arrives_once(bottlenecks: ResNet, tmp_path: Path) -> None:
    state = bottlenecks.state_dict()
    directory, _ = save_and_convert(moco(state), tmp_path)
    arrived = load_file(directory / "model.safetensors")

    def content(tensors: State) -> list[bytes]:
        return sorted(tensor.numpy().tobytes() for tensor in tensors.values())

    assert content(arrived) == content(state)


def test_files_from_before_batch_counters(bottlenecks: ResNet, tmp_path: Path) -> None:
    state = bottlenecks.state_dict()
    old = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    directory, _ = save_and_convert(old, tmp_path)
    expect_same(bottlenecks, directory)


def test_edgessl_loads_the_result(bottlenecks: ResNet, tmp_path: Path) -> None:
    directory, _ = save_and_convert(bottlenecks.state_dict(), tmp_path)
    encoder = encoders.load(directory, LoadOptions(pooling="mean"), Provenance("here"))
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        vector = encoder.module(pixels)[0]
        expected = bottlenecks(pixels).mean(dim=(2, 3))
    torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.weight": torch.ones(8, 3, 3, 3)}, "not one 7x7 convolution"),
        ({"conv1.weight": None, "conv1.0.weight": torch.ones(8, 3, 3, 3)}, "not one 7x7"),
        ({"layer1.0.conv2.weight": torch.ones(8, 1, 3, 3)}, "ResNeXt"),
        ({"layer1.0.conv3.weight": torch.ones(16, 8, 1, 1)}, "Wide ResNet"),
        ({"layer1.0.se.fc1.weight": torch.ones(1)}, "squeeze-and-excitation"),
        ({"bn1.running_mean": None}, "GroupNorm"),
    ],
)
def test_relatives_are_refused(
    change: State, message: str, bottlenecks: ResNet, tmp_path: Path
) -> None:
    state = {**bottlenecks.state_dict(), **change}
    with pytest.raises(Unsupported, match=message):
        save_and_convert({k: v for k, v in state.items() if v is not None}, tmp_path)

"""One recipe: a pruned encoder and its bundle, beside the whole one: ``python -m examples.smaller``."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

import edgessl
from edgessl import cli
from edgessl.gate.latency import interleave
from edgessl.parity import cosine
from examples import data

MAE = Path(__file__).parent / "models" / "vit-mae-cifar10"
RECIPE = """
[encoder]
model = "{model}"

[prune]                     # heads and channels, without training or labels
flops = "0.6x"
data = "images.npy"

[target]
name = "openvino"
"""


def main() -> None:
    """Prune on some images, measure on others."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--output", type=Path, default=Path("out/smaller"))
    chosen = options.parse_args()
    folder = chosen.output
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", data.cifar10("train", chosen.images))
    (folder / "recipe.toml").write_text(RECIPE.format(model=MAE.resolve()), encoding="utf-8")

    small, whole = folder / "small", folder / "whole"
    asked = ["export", "--recipe", str(folder / "recipe.toml"), "-o", str(small), "--overwrite"]
    if code := cli.run(asked):
        raise SystemExit(code)
    edgessl.build(MAE, "openvino", whole, overwrite=True)

    images = data.cifar10("test", 200)
    with edgessl.load(small) as pruned, edgessl.load(whole) as unpruned:
        near = cosine(pruned.embed(images), unpruned.embed(images))
        seconds = interleave(
            {"pruned": lambda: pruned.embed(images), "whole": lambda: unpruned.embed(images)}, 10
        )
    speed = statistics.median(seconds["whole"]) / statistics.median(seconds["pruned"])
    print(f"{speed:.2f} times the speed; cosine {near.mean():.4f} to the whole encoder's vectors")


if __name__ == "__main__":
    main()

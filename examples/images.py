"""Similar images with a quantized masked autoencoder: ``python -m examples.images``.

Builds an OpenVINO int8 bundle of the CIFAR-10 MAE in this repository, embeds test images, and
draws some of them beside those that are nearest to them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import edgessl
from examples import data

MODEL = Path(__file__).resolve().parent / "models" / "vit-mae-cifar10"
CLASSES = "plane car bird cat deer dog frog horse ship truck".split()
NEIGHBOURS = 9
SIDE, GAP, LINE = 96, 8, 18  # pixels: an image, between images, a line of text
INK, PALE, RIGHT, WRONG = (32, 32, 32), (110, 110, 110), (46, 139, 87), (200, 80, 60)


def main() -> None:
    """Run the example; ``--images`` makes it shorter."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, default=Path("out/images"))
    options.add_argument("--images", type=int, default=10_000, help="test images to search")
    options.add_argument("--rows", type=int, default=10, help="query images to draw")
    chosen = options.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)

    calibration = chosen.output / "calibration.npy"
    np.save(calibration, data.cifar10("train", 300))
    built = edgessl.build(
        MODEL,
        "openvino",
        chosen.output / "bundle",
        precision="int8",
        calibration=str(calibration),
        overwrite=True,
    )
    print(f"{built.path}: {built.parity}")

    images = data.cifar10("test", chosen.images)
    labels = data.cifar10_labels("test", chosen.images)
    print(f"embedding {len(images)} images", file=sys.stderr)
    with edgessl.load(built.path) as session:
        vectors = session.embed(images)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    # one query of each class, so that the sheet is not about frogs alone
    queries = [int(np.argmax(labels == label)) for label in range(len(CLASSES))][: chosen.rows]
    scores = vectors[queries] @ vectors.T
    scores[np.arange(len(queries)), queries] = -np.inf  # not itself
    nearest = np.argsort(-scores, axis=1)[:, :NEIGHBOURS]
    picture = sheet(images, labels, queries, nearest, np.take_along_axis(scores, nearest, axis=1))
    path = chosen.output / "neighbours.png"
    picture.save(path)
    same = (labels[nearest] == labels[queries][:, None]).mean()
    print(f"{path}: {picture.width} x {picture.height}; {same:.0%} of the neighbours drawn are of")
    print("their query's class, which the encoder never saw (chance: 10%)")


def sheet(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    queries: list[int],
    nearest: npt.NDArray[np.intp],
    scores: npt.NDArray[np.float32],
) -> Image.Image:
    """A row for each query: the image, then its *nearest*, each framed by whether the class is
    the query's and labelled with its class and cosine *scores* ``(queries, neighbours)``."""
    step, tall = SIDE + GAP, SIDE + LINE + GAP
    left = GAP + step + 3 * GAP  # where the neighbours begin
    top = GAP + LINE + GAP
    size = (left + step * nearest.shape[1], top + tall * len(queries))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    draw.text((GAP, GAP), "query", INK, font)
    draw.text((left, GAP), "nearest by cosine: same class", RIGHT, font)
    known = draw.textlength("nearest by cosine: same class", font)
    draw.text((left + known + 2 * GAP, GAP), "another class", WRONG, font)

    def place(index: int, x: int, y: int, text: str, frame: tuple[int, int, int] | None) -> None:
        # Smooth enlargement: hard 32-pixel blocks are harder to recognise than a soft picture.
        large = Image.fromarray(images[index]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        if frame:
            draw.rectangle((x - 3, y - 3, x + SIDE + 2, y + SIDE + 2), fill=frame)
        picture.paste(large, (x, y))
        draw.text((x, y + SIDE + 3), text, PALE if frame else INK, font)

    for row, query in enumerate(queries):
        y = top + tall * row
        place(query, GAP, y, CLASSES[labels[query]], None)
        for column, index in enumerate(nearest[row]):
            frame = RIGHT if labels[index] == labels[query] else WRONG
            text = f"{CLASSES[labels[index]]}  {scores[row, column]:.3f}"
            place(int(index), left + step * column, y, text, frame)
    return picture


if __name__ == "__main__":
    main()

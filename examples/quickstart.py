"""The README's few lines, on a real encoder: ``python -m examples.quickstart``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import edgessl
from examples import data

TEXTS = [
    "The food was delicious and the waiters were friendly.",
    "Great meal, and the staff could not have been nicer.",
    "The battery of this phone dies within an hour.",
]


def main() -> None:
    """Build a bundle, open it, and compare three texts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--target", choices=("onnx", "openvino"), default="openvino")
    options.add_argument("--output", type=Path, default=Path("out/quickstart"))
    chosen = options.parse_args()

    built = edgessl.build(data.minilm(), chosen.target, chosen.output, overwrite=True)
    print(f"{built.path}: {built.parity}")

    # From here on nothing needs torch: copy the directory to the device.
    session = edgessl.load(built.path)
    vectors = session.embed(TEXTS)
    print(f"vectors {vectors.shape} {vectors.dtype}, by {session.describe()['runtime']}")

    width = shutil.get_terminal_size().columns - 9
    for row, text in enumerate(TEXTS):
        print(f"{vectors[0] @ vectors[row]:8.4f} {text[:width]}")


if __name__ == "__main__":
    main()

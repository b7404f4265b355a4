"""The main job, on a real encoder: ``make demo``.

Exports all-MiniLM-L6-v2 to OpenVINO (fp32 and int8) and ONNX, compares each bundle with the
original in torch, and answers questions with the int8 bundle.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from pathlib import Path

import numpy as np

import edgessl
from edgessl import parity
from edgessl.gate.latency import interleave
from edgessl.runtimes.session import Session
from examples import data
from examples.torch_backend import torch_session

VARIANTS = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "int8"))
QUERIES = (
    "the battery dies too quickly",
    "delicious food and friendly waiters",
    "I fell asleep during this film",
)


def main() -> None:
    """Run the demonstration; ``--texts`` and ``--rounds`` make it shorter."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, default=Path("out/demo"))
    options.add_argument("--texts", type=int, default=1000, help="sentences to compare on")
    options.add_argument("--rounds", type=int, default=5, help="interleaved rounds of timing")
    chosen = options.parse_args()

    model = data.minilm()
    sentences = data.sentences()
    order = np.random.default_rng(0).permutation(len(sentences))
    texts = [sentences[i] for i in order[: chosen.texts]]
    calibration = chosen.output / "calibration.txt"
    chosen.output.mkdir(parents=True, exist_ok=True)
    # None of the sentences that are measured below.
    rest = [sentences[i] for i in order[chosen.texts :]]
    calibration.write_text("\n".join(rest), encoding="utf-8")

    sessions: dict[str, Session] = {}
    sizes = {}
    for target, precision in VARIANTS:
        name = f"{target} {precision}"
        say(f"exporting all-MiniLM-L6-v2: {name}")
        built = edgessl.build(
            model,
            target,
            chosen.output / name.replace(" ", "-"),
            precision=precision,
            calibration=str(calibration) if precision == "int8" else None,
            overwrite=True,
        )
        say(f"  parity: {built.parity}")
        sizes[name] = sum(entry.size for entry in built.manifest.files.values())
        sessions[name] = edgessl.load(built.path)
    reference = torch_session(model, sessions["onnx fp32"])

    say(f"comparing on {len(texts)} real sentences, {chosen.rounds} interleaved rounds")
    compare(reference, sessions, sizes, texts, chosen.rounds)
    search(sessions["openvino int8"], sentences)


def compare(
    reference: Session,
    sessions: dict[str, Session],
    sizes: dict[str, int],
    texts: list[str],
    rounds: int,
) -> None:
    """Print fidelity, latency and throughput of each bundle beside torch."""
    truth = reference.embed(texts)
    everyone = {"torch fp32": reference, **sessions}
    one = {name: functools.partial(session.embed, texts[:1]) for name, session in everyone.items()}
    many = {name: functools.partial(session.embed, texts) for name, session in everyone.items()}
    latency = interleave(one, rounds=rounds * 4, calls=5, warm_up=5)
    bulk = interleave(many, rounds=rounds, warm_up=0)
    rows = []
    for name, session in everyone.items():
        cosine = parity.cosine(truth, session.embed(texts))
        millis = statistics.median(latency[name]) * 1e3
        rate = len(texts) / statistics.median(bulk[name])
        size = f"{sizes[name] / 1e6:.0f} MB" if name in sizes else "-"
        rows.append(
            (
                name,
                size,
                f"{cosine.mean():.5f}",
                f"{cosine.min():.5f}",
                f"{millis:.2f} ms",
                f"{rate:.0f}/s",
            )
        )
    head = ("", "size", "cosine mean", "cosine min", "one text", "bulk")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    print()
    for row in (head, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def search(session: Session, sentences: list[str]) -> None:
    """Print the nearest sentences to a few questions."""
    corpus = session.embed(sentences)
    print(f"\nnearest of {len(sentences)} review sentences, openvino int8:")
    for query, vector in zip(QUERIES, session.embed(QUERIES), strict=True):
        scores = corpus @ vector
        print(f"\n  {query}")
        for row in np.argsort(-scores)[:3]:
            print(f"    {scores[row]:.2f}  {sentences[row][:90]}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""What the peers' environment runs, as a program of its own: it knows nothing of edgessl.

    optimum_job.py quantize MODEL TEXTS OUT      export, then full int8 post-training quantization
    optimum_job.py embed MODEL TEXTS OUT HINT    vectors of an exported model, as .npy

``optimum-cli export openvino --quant-mode int8`` takes only data sets of the hub (wikitext2, c4)
and skips texts of fewer than 128 tokens, so the same job goes through optimum-intel's Python API
with the same texts that edgessl calibrates with.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MAX_LENGTH = 256  # the encoder's own


def quantize(model: str, texts: list[str], out: str) -> None:
    import nncf
    from optimum.intel import (
        OVConfig,
        OVModelForFeatureExtraction,
        OVQuantizationConfig,
        OVQuantizer,
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    exported = OVModelForFeatureExtraction.from_pretrained(model, export=True, compile=False)
    samples = [
        dict(tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="np"))
        for text in texts
    ]
    config = OVConfig(quantization_config=OVQuantizationConfig(bits=8, num_samples=len(texts)))
    OVQuantizer.from_pretrained(exported).quantize(
        calibration_dataset=nncf.Dataset(samples), ov_config=config, save_directory=out
    )
    tokenizer.save_pretrained(out)


def embed(model: str, texts: list[str], out: str, hint: str) -> None:
    import numpy as np
    from optimum.intel import OVModelForFeatureExtraction
    from transformers import AutoTokenizer

    options: dict[str, Any] = {} if hint == "default" else {"INFERENCE_PRECISION_HINT": hint}
    opened = OVModelForFeatureExtraction.from_pretrained(model, ov_config=options)
    tokenizer = AutoTokenizer.from_pretrained(model)
    vectors = []
    for text in texts:
        inputs = tokenizer([text], truncation=True, max_length=MAX_LENGTH, return_tensors="np")
        hidden = np.asarray(opened(**inputs).last_hidden_state)
        pooled = hidden.mean(axis=1)  # one text: no padding to leave out
        vectors.append(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
    np.save(out, np.concatenate(vectors))


def main() -> None:
    command, model, texts, *rest = sys.argv[1:]
    lines = Path(texts).read_text(encoding="utf-8").splitlines()
    if command == "quantize":
        quantize(model, lines, rest[0])
    else:
        embed(model, lines, rest[0], rest[1])


if __name__ == "__main__":
    main()

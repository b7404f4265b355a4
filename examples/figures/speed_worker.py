"""One library in a process of its own, told over stdin what to do: it knows nothing of the others.

    speed_worker.py LIBRARY MODEL TEXTS

TEXTS is a JSON list. Each line on stdin is a JSON object, answered by one on stdout:

    {"do": "bulk", "batch": 64}         embed all texts; seconds
    {"do": "single", "rows": [3, 1]}    embed those, one after the other; seconds of each
    {"do": "vectors", "path": "x.npy"}  embed all texts and save the vectors
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Embed = Callable[[Sequence[str], int], Any]  # texts, batch size -> (n, dim)


def edgessl(model: str, mode: str) -> Embed:
    import edgessl as library

    session = library.load(model, mode=mode)
    return lambda texts, batch: session.using(batch_tokens=batch or None).embed(texts)


def edgessl_bulk(model: str) -> Embed:
    return edgessl(model, "throughput")


def edgessl_single(model: str) -> Embed:
    import edgessl as library

    session = library.load(model)
    return lambda texts, batch: session.embed(texts)


def sentence_transformers(model: str, backend: str, **options: Any) -> Embed:
    from sentence_transformers import SentenceTransformer

    opened = SentenceTransformer(model, backend=backend, device="cpu", model_kwargs=options)
    return lambda texts, batch: opened.encode(
        list(texts), batch_size=batch or 32, show_progress_bar=False
    )


def st_torch(model: str) -> Embed:
    return sentence_transformers(model, "torch")


def st_onnx(model: str) -> Embed:
    return sentence_transformers(model, "onnx", provider="CPUExecutionProvider")


def st_onnx_int8(model: str) -> Embed:
    (file,) = Path(model).glob("onnx/*qint8*.onnx")
    options = {"provider": "CPUExecutionProvider", "file_name": f"onnx/{file.name}"}
    return sentence_transformers(model, "onnx", **options)


def st_openvino(model: str) -> Embed:
    return sentence_transformers(model, "openvino")


def st_openvino_int8(model: str) -> Embed:
    return sentence_transformers(
        model, "openvino", file_name="openvino/openvino_model_qint8_quantized.xml"
    )


def fastembed_int8(model: str) -> Embed:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    (file,) = Path(model).glob("onnx/*qint8*.onnx")
    TextEmbedding.add_custom_model(
        model="peer/int8",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="peer/int8"),
        dim=384,
        model_file=f"onnx/{file.name}",
    )
    opened = TextEmbedding("peer/int8", specific_model_path=model)

    def embed(texts: Sequence[str], batch: int) -> Any:
        import numpy as np

        return np.array(list(opened.embed(list(texts), batch_size=batch or 256)))

    return embed


LIBRARIES: dict[str, Callable[[str], Embed]] = {
    "edgessl": edgessl_bulk,
    "edgessl-single": edgessl_single,
    "st-torch": st_torch,
    "st-onnx": st_onnx,
    "st-onnx-int8": st_onnx_int8,
    "st-openvino": st_openvino,
    "st-openvino-int8": st_openvino_int8,
    "fastembed-int8": fastembed_int8,
}


def main() -> None:
    library, model, path = sys.argv[1:]
    texts: list[str] = json.loads(Path(path).read_text(encoding="utf-8"))
    # libraries print: what they say goes to stderr, the answers to where stdout went
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    embed = LIBRARIES[library](model)
    embed(texts[:64], 0)
    print(json.dumps({"ready": library}), file=answers)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), embed, texts)), file=answers)


def _answer(asked: dict[str, Any], embed: Embed, texts: list[str]) -> dict[str, Any]:
    if asked["do"] == "single":
        seconds = []
        for row in asked["rows"]:
            began = time.perf_counter()
            embed([texts[row]], 0)
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}
    began = time.perf_counter()
    vectors = embed(texts, asked.get("batch", 0))
    elapsed = time.perf_counter() - began
    if asked["do"] == "vectors":
        import numpy as np

        np.save(asked["path"], np.asarray(vectors, np.float32))
    return {"seconds": elapsed}


if __name__ == "__main__":
    main()

"""Graph files of any maker, opened by the same code, so that only the file differs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import openvino_core
from edgessl.backend import Arrays
from edgessl.gate.latency import interleave
from edgessl.runtimes.flow import batches
from edgessl.runtimes.ort_session import SLOWER
from edgessl.runtimes.session import Session

THREADS = min(2, os.cpu_count() or 1)  # the same for everyone
OWN = "own"  # OpenVINO's choice of arithmetic where nobody says: bf16 where the processor has it
HIDDEN = "last_hidden_state"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class File:
    """A graph file, who made it and how it is opened.

    ``runtime``: ``onnxruntime`` or ``openvino``. ``hint``: OpenVINO's arithmetic, ``f32``,
    ``bf16``, ``f16`` or ``OWN``.
    """

    path: Path
    runtime: str
    hint: str = ""
    precision: str = "int8"
    peer: bool = False

    def to_json(self) -> dict[str, Any]:
        """All but the path, which is a matter of the machine that measured."""
        beside = (self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        shipped = [file.stat().st_size for file in (self.path, *beside) if file.is_file()]
        facts = {key: value for key, value in vars(self).items() if key != "path"}
        return {"bytes": sum(shipped), **facts}


@dataclass(frozen=True)
class Graph:
    """An opened file. ``run`` takes inputs, more than it needs too, and gives its first output."""

    run: Callable[[Mapping[str, Any]], npt.NDArray[Any]]
    output: str

    def vectors(self, inputs: Arrays) -> Vectors:
        """``(n, d)`` float32; a graph that leaves pooling to its caller is pooled here (mean over
        the tokens that are not padding)."""
        found: Vectors = np.asarray(self.run(with_types(inputs)), np.float32)
        if self.output == HIDDEN:
            real = inputs["attention_mask"][..., None].astype(np.float32)
            found = (found * real).sum(axis=1) / real.sum(axis=1)
        return found


def open_graph(file: File) -> Graph:
    """Open *file* on the CPU, with ``THREADS`` threads."""
    return _open_onnxruntime(file) if file.runtime == "onnxruntime" else _open_openvino(file)


def with_types(inputs: Arrays) -> Arrays:
    """*inputs* with the segment ids that some exporters leave in a text graph and some fold."""
    if "input_ids" not in inputs:
        return inputs
    return {"token_type_ids": np.zeros_like(inputs["input_ids"]), **inputs}


def embed(graph: Graph, like: Session, items: Sequence[Any]) -> Vectors:
    """The vectors of *items*, in batches as *like* makes them."""
    rows: list[int] = []
    found: list[Vectors] = []
    for chosen, inputs in batches(like.preprocessor, items):
        rows += chosen
        found.append(graph.vectors(inputs))
    assert sorted(rows) == list(range(len(items)))
    return np.concatenate(found)[np.argsort(rows)]


def save_samples(like: Session, items: Sequence[Any], path: Path) -> Path:
    """Each of *items* alone as the inputs of a graph; for ``optimum_job``."""
    arrays: Arrays = {}
    for number, item in enumerate(items):
        sample = with_types(like.prepare([item]))
        arrays |= {f"{number}/{name}": array for name, array in sample.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def unit(vectors: Vectors) -> Vectors:
    """Each vector at length 1."""
    found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def nearest(vectors: Vectors) -> npt.NDArray[np.int64]:
    """Row of each unit vector's nearest other one."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.asarray(scores.argmax(axis=1), np.int64)


def time_in_turn(
    opened: Mapping[str, Graph], inputs: Arrays, rounds: int, calls: int
) -> dict[str, list[list[float]]]:
    """name -> round -> seconds of each of *calls* calls.

    The first call of a visit is left out: threads of the one before may still spin.
    """
    given = with_types(inputs)

    def job(graph: Graph) -> Callable[[], object]:
        return lambda: graph.run(given)

    jobs = {name: job(graph) for name, graph in opened.items()}
    flat = interleave(jobs, rounds=rounds, calls=calls + 1, warm_up=2)
    return {
        name: [
            samples[start + 1 : start + 1 + calls] for start in range(0, len(samples), calls + 1)
        ]
        for name, samples in flat.items()
    }


def _open_onnxruntime(file: File) -> Graph:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(
        str(file.path),
        settings,
        providers=["CPUExecutionProvider"],
        # as each one's own runtime opens it
        disabled_optimizers=None if file.peer else SLOWER["cpu"],
    )
    wanted = [spec.name for spec in session.get_inputs()]
    output = session.get_outputs()[0].name

    def run(inputs: Mapping[str, Any]) -> npt.NDArray[Any]:
        (array,) = session.run([output], {name: inputs[name] for name in wanted})
        return np.asarray(array)

    return Graph(run, output)


def _open_openvino(file: File) -> Graph:

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
    if file.hint != OWN:
        settings["INFERENCE_PRECISION_HINT"] = file.hint
    compiled = openvino_core.core("a figure").compile_model(str(file.path), "CPU", settings)
    request = compiled.create_infer_request()
    wanted = [port.any_name for port in compiled.inputs]

    def run(inputs: Mapping[str, Any]) -> npt.NDArray[Any]:
        request.infer({name: inputs[name] for name in wanted}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data)  # the next call writes over it

    return Graph(run, compiled.outputs[0].any_name)

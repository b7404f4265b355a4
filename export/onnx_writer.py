"""``Encoder`` -> ONNX: the waist that every target is built from. The one torch-side file here."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import torch

from edgessl.encoder import Encoder
from edgessl.errors import Unsupported, first_line
from edgessl.export import gelu, opset, reshape


def example_inputs(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Inputs of the right names, dtypes and sizes; the last item of the batch is padded."""
    shapes = encoder.spec.shapes(lambda axis: axis.example)
    tensors = {}
    for spec in encoder.spec.inputs:
        tensors[spec.name] = torch.ones(shapes[spec.name], dtype=getattr(torch, spec.dtype))
        if spec.name == "attention_mask":
            tensors[spec.name][-1, shapes[spec.name][1] // 2 :] = 0
    return tensors


def write(encoder: Encoder, path: Path) -> None:
    """Write *encoder* as an fp32 ONNX file whose dynamic axes stay so.

    Raises:
        Unsupported: torch cannot export this module.
    """
    names = [spec.name for spec in encoder.spec.inputs]
    axes = {name: torch.export.Dim(name) for name in encoder.spec.axes}
    shapes = {
        spec.name: {i: axes[axis] for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
        for spec in encoder.spec.inputs
    }
    chatter = io.StringIO()  # the exporter prints emoji and axis names to both streams
    try:
        with (
            warnings.catch_warnings(),
            _silenced("torch.onnx", "onnxscript", "torch.fx", "torch.export"),
            redirect_stdout(chatter),
            redirect_stderr(chatter),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder.module,
                (),
                kwargs=example_inputs(encoder),
                dynamo=True,
                opset_version=opset.TORCH_OPSET,
                input_names=names,
                output_names=[spec.name for spec in encoder.spec.outputs],
                dynamic_shapes=shapes,
                verbose=False,
            )
            assert program is not None  # with dynamo=True it never is
            program.save(str(path))
    except OSError:
        raise
    except Exception as err:  # torch.onnx raises a dozen unrelated types
        raise Unsupported(
            f"{encoder.provenance.source}: torch cannot export it: {first_line(err)}"
        ) from err
    model = onnx.load(str(path))
    opset.lower(model)
    gelu.plain(model)
    reshape.plain(model)
    _strip(model)
    onnx.save(model, str(path))


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of the building machine: stack traces and file paths."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]


class _silenced:
    """Loggers by name, quiet inside the block."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)

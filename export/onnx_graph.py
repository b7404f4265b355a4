"""The ``onnx`` target: the waist itself is what runs. No torch."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from edgessl.backend import BuildPlan
from edgessl.errors import Unsupported
from edgessl.spec import FEATURES_NAME, PATCH_INDICES

_AXIS = f"{FEATURES_NAME}.axis"  # an initializer that only ``repeat`` makes


def build(onnx: Path, directory: Path, plan: BuildPlan) -> dict[str, Any]:
    """Put the ONNX into *directory* as ``model.onnx``; returns its compatibility facts.

    ``plan.repeat`` is added as an output and the input ``patch_indices`` gets a default, except on
    a device without the ``onnx`` package.
    """
    model = load(onnx)
    changed = model is not None and plan.repeat is not None and repeat(model, plan.repeat)
    if model is not None and PATCH_INDICES in plan.profiles:
        changed |= every_patch(model, plan.profiles[PATCH_INDICES][2][1])
    if changed:
        (directory / "model.onnx").write_bytes(model.SerializeToString())
    else:
        shutil.copyfile(onnx, directory / "model.onnx")
    return {} if model is None else {"opset": opset(model)}


def repeat(model: Any, vector: str) -> bool:
    """Give the output *vector* ``(batch, dim)`` again as ``last_hidden_state``
    ``(batch, 1, dim)``, in place; False where the graph has that already."""
    from onnx import TensorProto, helper

    outputs = {value.name: value for value in model.graph.output}
    if FEATURES_NAME in outputs:
        return False
    batch, width = outputs[vector].type.tensor_type.shape.dim
    shape = [batch.dim_param or batch.dim_value, 1, width.dim_value]
    model.graph.initializer.append(helper.make_tensor(_AXIS, TensorProto.INT64, [1], [1]))
    node = helper.make_node("Unsqueeze", [vector, _AXIS], [FEATURES_NAME], name=FEATURES_NAME)
    model.graph.node.append(node)
    kind = outputs[vector].type.tensor_type.elem_type
    model.graph.output.append(helper.make_tensor_value_info(FEATURES_NAME, kind, shape))
    return True


def every_patch(model: Any, patches: int) -> bool:
    """Let the input ``patch_indices`` be left out: all *patches* by default, in place.

    The default is an initializer of the input's name, which ONNX Runtime lets a caller override;
    OpenVINO and TensorRT would make a constant of it. False where the graph has that already.
    """
    from onnx import TensorProto, helper

    if any(tensor.name == PATCH_INDICES for tensor in model.graph.initializer):
        return False
    images = model.graph.input[0].name
    for node in model.graph.node:  # the batch's size has to come from the images: (1, patches) fits
        if node.op_type == "Shape" and node.input[0] == PATCH_INDICES:
            cut = {attribute.name: attribute.i for attribute in node.attribute}
            if cut.get("start", 0) == 0 and cut.get("end") == 1:
                node.input[0] = images
    numbers = list(range(patches))
    default = helper.make_tensor(PATCH_INDICES, TensorProto.INT64, [1, patches], numbers)
    model.graph.initializer.append(default)
    return True


def copy_without_repeat(onnx: Path, to: Path) -> None:
    """Copy a bundle's ONNX as it was before ``repeat`` and ``every_patch``: what all else is built
    from.

    On a device without the ``onnx`` package it is copied as it is: one output more.
    """
    model = load(onnx)
    added = (_AXIS, PATCH_INDICES)
    if model is None or all(entry.name not in added for entry in model.graph.initializer):
        shutil.copyfile(onnx, to)
        return
    repeated = any(entry.name == _AXIS for entry in model.graph.initializer)
    ours = (*added, FEATURES_NAME) if repeated else added
    for entries in (model.graph.initializer, model.graph.node, model.graph.output):
        kept = [entry for entry in entries if entry.name not in ours]
        del entries[:]
        entries.extend(kept)
    to.write_bytes(model.SerializeToString())


def load(path: Path) -> Any:
    """The ``onnx.ModelProto`` in *path*, or None where the ``onnx`` package is not installed: a
    device that builds from a bundle does without.

    Raises:
        Unsupported: not an ONNX file.
    """
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as err:  # google.protobuf's DecodeError, which onnx does not export
        raise Unsupported(f"{path.name}: not an ONNX file ({err}).") from err


def opset(model: Any) -> int:
    """The version of the default operator set that *model* uses."""
    return max((int(entry.version) for entry in model.opset_import if not entry.domain), default=0)

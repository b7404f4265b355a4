"""``edgessl inspect``: what a model or a bundle is made of."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgessl import bundle, source
from edgessl.backend import Report, silent
from edgessl.bundle import Manifest
from edgessl.errors import MissingDependency
from edgessl.recipe import Recipe

WIDTH = 100  # columns


def inspect(path: str, report: Report = silent) -> dict[str, Any]:
    """Layers, parameters, FLOPs, size, precision and provenance of a model or a bundle.

    A model is loaded with torch. A bundle's graph is read with openvino or onnx; without them
    ``layers`` is None and ``missing`` says what to install.

    Raises:
        EdgesslError: as loading it for an export or opening it would.
    """
    directory = Path(path).expanduser()
    return _bundle(directory, report) if bundle.is_bundle(directory) else _model(path, report)


def _bundle(directory: Path, report: Report) -> dict[str, Any]:
    manifest = bundle.read(directory)
    report(f"reading {directory}")
    return {
        "kind": "bundle",
        "target": manifest.target,
        "precision": manifest.precision,
        "variant": manifest.variant,
        **_encoder_facts(manifest.encoder, manifest.provenance, manifest.compute),
        "size": sum(entry.size for entry in manifest.files.values()),
        "compatibility": manifest.compatibility,
        "parity": manifest.parity,
        "calibration": manifest.calibration,
        **_graph(directory, manifest),
    }


def _graph(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """``operators`` and ``layers``; None and ``missing`` where no library here reads the graph."""
    from edgessl.export import describe

    try:
        if manifest.target == "openvino":
            hint = str(manifest.compatibility["inference_precision"])
            return describe.describe_openvino(directory / "openvino_model.xml", hint)
        return describe.describe_onnx(directory / "model.onnx")
    except MissingDependency as err:
        # All else is in the manifest. The onnx package alone will do: a device wants no torch.
        where = "" if manifest.target == "openvino" else " (or only onnx: pip install onnx)"
        return {"operators": None, "layers": None, "missing": f"{err}{where}"}


def _model(path: str, report: Report) -> dict[str, Any]:
    report(f"loading {path}")
    encoder = source.load_encoder(Recipe(model=path), report)
    from edgessl.encoders import run  # torch's side: there by now

    tensors = dict(encoder.module.backbone.named_parameters())  # type: ignore[union-attr]
    layers: Counter[str] = Counter()
    for name, parameter in tensors.items():
        layers[_block(name)] += parameter.numel()
    return {
        "kind": "model",
        **_encoder_facts(encoder.spec, encoder.provenance, run.compute(encoder)),
        "size": sum(p.numel() * p.element_size() for p in tensors.values()),
        "layers": [{"name": name, "parameters": count} for name, count in layers.items()],
    }


def _block(name: str) -> str:
    """A parameter's layer: the name up to its number, else the first two parts."""
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: position + 1])
    return ".".join(parts[:2])


def _encoder_facts(spec: Any, provenance: Any, compute: dict[str, Any]) -> dict[str, Any]:
    return {"encoder": spec.to_json(), "provenance": vars(provenance).copy(), "compute": compute}


def _passes(passes: Sequence[dict[str, Any]]) -> str:
    if not passes:
        return ""
    names = [
        name for one in passes for name in one if name not in ("edgessl", "source", "revision")
    ]
    return f"{', '.join(names)} of {passes[0]['source']}"


def merging(facts: dict[str, Any]) -> str:
    """What merging tokens did, of a manifest's ``compute``, as a person reads it."""
    tokens = facts["tokens"]
    return (
        f"{tokens[0] - tokens[1]} tokens a layer, {tokens[0]} become {tokens[-1]}; to the encoder "
        f"that merges none, on golden images: cosine {facts['cosine_mean']:.4f} mean, "
        f"{facts['cosine_min']:.4f} lowest"
    )


def render(found: dict[str, Any], layers: bool) -> str:
    """*found* as lines for a person; *layers* adds a row a layer."""
    spec, compute, origin = found["encoder"], found["compute"], found["provenance"]
    at = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in compute["at"].items())
    of_bundle = found["kind"] == "bundle"
    rows = [
        (
            "encoder",
            f"{spec['family']} ({spec['task']}), pooling {spec['pooling']}"
            f"{', normalized' if spec['normalize'] else ''}",
        ),
        ("source", f"{origin['source']}{'@' + origin['revision'] if origin['revision'] else ''}"),
        ("made smaller", _passes(origin["passes"])),
        ("weights", f"sha256 {origin['weights_sha256']}"),
        ("built with", _pairs(origin["versions"])),
        ("input", ", ".join(_tensor(tensor) for tensor in spec["inputs"])),
        ("output", ", ".join(_tensor(tensor) for tensor in spec["outputs"])),
        ("prepared", _pairs(spec["preprocessing"])),
        ("parameters", f"{compute['parameters']:,}"),
        ("FLOPs", f"{compute['flops'] / 1e9:.3f} G at {at}"),
        ("size", f"{found['size'] / 1e6:.1f} MB{'' if of_bundle else ' in fp32'}"),
    ]
    if "merging" in compute:
        rows.append(("merging", merging(compute["merging"])))
    if of_bundle:
        name = f"{found['target']} {found['precision']}, variant {found['variant']}"
        rows = [("bundle", name), *rows, *_bundle_rows(found)]
    else:
        rows += [
            ("layers" if first else "", text)
            for first, text in zip(itertools.chain([True], itertools.repeat(False)), _blocks(found))
        ]
    lines = [line for name, text in rows if text for line in _wrapped(name, text)]
    if layers and found["layers"]:
        lines += ["", *_table(found["layers"])]
    return "\n".join(lines)


def _bundle_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    parity, data = found["parity"], found["calibration"]
    measured = (
        f"cosine {parity['cosine_mean']:.6f} mean, {parity['cosine_min']:.6f} lowest, "
        f"on {parity['ran']['runtime']} {parity['ran']['version']}"
    )
    facts = dict(found["compatibility"])
    arithmetic, graph = facts.pop("int8", None), facts.pop("graph", {})
    notes, sparse = facts.pop("notes", []), facts.pop("sparse_weights", None)
    facts.pop("profiles", None)
    rows = [
        ("made for", _pairs(facts)),
        ("int8", _pairs(arithmetic) if arithmetic else ""),
        ("graph", _pairs(graph)),
        ("2:4 sparse", f"{sparse['sparse']} of {sparse['matrices']} matrices" if sparse else ""),
        ("calibrated", f"on {data['samples']} of {data['source']}" if data else ""),
        *(("note", note) for note in notes),
        ("parity", measured),
    ]
    if found["layers"] is None:
        return [*rows, ("layers", found["missing"])]
    kinds = Counter(f"{layer['type']} {layer['precision']}" for layer in found["layers"])
    operators = Counter(found["operators"])
    return [
        *rows,
        ("layers", f"{len(found['layers'])}: {_counted(kinds.most_common())}"),
        ("operators", f"{operators.total()}: {_counted(operators.most_common(8))}, ..."),
    ]


def _blocks(found: dict[str, Any]) -> list[str]:
    """A model's blocks; a run of equal ones (``encoder.layer.0`` to ``.11``) in one line."""
    lines = []
    for (stem, count), run in itertools.groupby(
        found["layers"], lambda layer: (layer["name"].rstrip("0123456789"), layer["parameters"])
    ):
        names = [layer["name"] for layer in run]
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1].removeprefix(stem)}"
        times = "" if len(names) == 1 else f"{len(names)} x "
        lines.append(f"{name:<40} {times + format(count, ','):>18} parameters")
    return lines


def _table(layers: list[dict[str, Any]]) -> list[str]:
    """A row a layer."""
    cells = [
        (layer["name"], f"{layer['parameters']:>12,}")
        if "parameters" in layer
        else (
            layer["name"],
            f"{layer['precision']:<8}{layer['type']:<16} {_shape(layer['shape'])}",
        )
        for layer in layers
    ]
    width = max(len(name) for name, _ in cells)
    return [f"{name:<{width}}  {facts}".rstrip() for name, facts in cells]


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{name:<11} ",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace="  " not in text,  # else it is laid out in columns
    )


def _pairs(facts: dict[str, Any]) -> str:
    """``name value`` of all that is set, lists with blanks between."""
    texts = {name: _value(value) for name, value in facts.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items() if text)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_pairs(value)})" if value else ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _counted(pairs: list[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in pairs)


def _shape(shape: list[int] | None) -> str:
    return "x".join(map(str, shape)) if shape else ""


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype']} ({', '.join(map(str, tensor['shape']))})"

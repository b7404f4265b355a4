"""``edgessl inspect``: what a model or a bundle is made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgessl import bundle, source
from edgessl.recipe import Recipe


def inspect(path: str) -> dict[str, Any]:
    """Layers, parameters, FLOPs, size, precision and provenance of a model or a bundle.

    A model is loaded with torch; a bundle is read with its target's own library.

    Raises:
        EdgesslError: as loading it for an export or opening it would.
    """
    directory = Path(path).expanduser()
    return _bundle(directory) if bundle.is_bundle(directory) else _model(path)


def _bundle(directory: Path) -> dict[str, Any]:
    from edgessl.export import describe

    manifest = bundle.read(directory)
    ir, onnx = directory / "openvino_model.xml", directory / "model.onnx"
    if ir.is_file():
        hint = str(manifest.compatibility["inference_precision"])
        graph = describe.describe_openvino(ir, hint)
    else:
        graph = describe.describe_onnx(onnx)
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
        **graph,
    }


def _model(path: str) -> dict[str, Any]:
    from edgessl.encoders import run

    encoder = source.load_encoder(Recipe(model=path))
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


def render(found: dict[str, Any], layers: bool) -> str:
    """*found* as lines for a person; *layers* adds a row a layer."""
    spec, compute, origin = found["encoder"], found["compute"], found["provenance"]
    at = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in compute["at"].items())
    rows = [
        (
            "encoder",
            f"{spec['family']} ({spec['task']}), pooling {spec['pooling']}"
            f"{', normalized' if spec['normalize'] else ''}",
        ),
        ("source", f"{origin['source']}{'@' + origin['revision'] if origin['revision'] else ''}"),
        ("weights", f"sha256 {origin['weights_sha256']}"),
        ("input", ", ".join(_tensor(tensor) for tensor in spec["inputs"])),
        ("output", ", ".join(_tensor(tensor) for tensor in spec["outputs"])),
        ("prepared", ", ".join(f"{k} {v}" for k, v in spec["preprocessing"].items() if v)),
        ("parameters", f"{compute['parameters']:,}"),
        ("FLOPs", f"{compute['flops'] / 1e9:.3f} G at {at}"),
        ("size", f"{found['size'] / 1e6:.1f} MB"),
    ]
    if found["kind"] == "bundle":
        parity = found["parity"]
        rows = [
            ("bundle", f"{found['target']} {found['precision']}, variant {found['variant']}"),
            *rows,
            (
                "parity",
                f"cosine {parity['cosine_mean']:.6f} mean, "
                f"{parity['cosine_min']:.6f} lowest, on {parity['ran']['runtime']}",
            ),
            (
                "runs in",
                ", ".join(
                    f"{count} layers {precision}"
                    for precision, count in Counter(
                        layer["precision"] for layer in found["layers"]
                    ).most_common()
                ),
            ),
            (
                "operators",
                ", ".join(
                    f"{name} {count}" for name, count in Counter(found["operators"]).most_common(8)
                ),
            ),
        ]
        if found["calibration"]:
            data = found["calibration"]
            rows.append(("calibrated", f"on {data['samples']} of {data['source']}"))
    lines = [f"{name:<11} {text}" for name, text in rows]
    if layers:
        for layer in found["layers"]:
            size = (
                f"{layer['parameters']:>12,}"
                if "parameters" in layer
                else (f"{layer['precision']:>8}  {layer['type']}")
            )
            lines.append(f"  {layer['name']:<60} {size}")
    return "\n".join(lines)


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype']} ({', '.join(map(str, tensor['shape']))})"

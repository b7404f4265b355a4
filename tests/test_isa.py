"""Which int8 arithmetic a processor has, and which bundles it may open."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from edgessl import isa, machine
from edgessl.bundle import Manifest
from edgessl.errors import DeviceMismatch
from edgessl.isa import FULL, REDUCED, Processor
from edgessl.spec import EncoderSpec, Provenance, TextSpec

HASWELL = "fpu avx avx2 fma"
SKYLAKE = f"{HASWELL} avx512f avx512bw avx512dq avx512vl"
CASCADE_LAKE = f"{SKYLAKE} avx512_vnni"
ALDER_LAKE = f"{HASWELL} avx_vnni"
SAPPHIRE_RAPIDS = f"{CASCADE_LAKE} avx_vnni avx512_bf16 amx_int8 amx_bf16"
CORTEX_A72 = "fp asimd evtstrm crc32"
CORTEX_A78 = f"{CORTEX_A72} asimddp"


def processor(flags: str, architecture: str = "x86_64") -> Processor:
    text = f"flags\t\t: {flags}\n" if flags else ""
    return Processor("Some CPU @ 2.0GHz", architecture, machine.isa(text, architecture))


def manifest(precision: str = "int8", **compatibility: Any) -> Manifest:
    return Manifest(
        target="openvino",
        precision=precision,
        encoder=EncoderSpec("text", "bert", "mean", True, (), (), TextSpec(64)),
        provenance=Provenance("my models/minilm"),
        variant="0" * 16,
        recipe={},
        compatibility=compatibility,
        parity={},
        compute={},
    )


@pytest.mark.parametrize(
    ("flags", "architecture", "kind", "by"),
    [
        (HASWELL, "x86_64", "saturating", "vpmaddubsw"),
        (SKYLAKE, "x86_64", "saturating", "vpmaddubsw"),
        (CASCADE_LAKE, "x86_64", "exact", "avx512_vnni"),
        (ALDER_LAKE, "x86_64", "exact", "avx_vnni"),
        (SAPPHIRE_RAPIDS, "x86_64", "exact", "avx512_vnni, avx_vnni, amx_int8"),
        (CORTEX_A72, "aarch64", "exact", "neon"),
        (CORTEX_A78, "aarch64", "exact", "asimddp"),
        ("", "arm64", "exact", "neon"),  # macOS
        ("", "AMD64", "unknown", ""),  # Windows
        ("", "x86_64", "unknown", ""),
        ("rv64imafdcv", "riscv64", "unknown", ""),
    ],
)
def test_arithmetic(flags: str, architecture: str, kind: str, by: str) -> None:
    found = isa.arithmetic(processor(flags, architecture).flags, architecture)
    assert (found.kind, found.by) == (kind, by)


@pytest.mark.parametrize(
    ("flags", "architecture", "risky"),
    [
        (HASWELL, "x86_64", True),
        (SKYLAKE, "x86_64", True),
        ("", "AMD64", True),
        (ALDER_LAKE, "x86_64", False),
        (SAPPHIRE_RAPIDS, "x86_64", False),
        (CORTEX_A72, "aarch64", False),
    ],
)
def test_which_bundles_are_at_risk(flags: str, architecture: str, risky: bool) -> None:
    here = processor(flags, architecture)
    full, reduced = (json.loads(json.dumps(isa.facts(weights))) for weights in (FULL, REDUCED))
    assert isa.at_risk(manifest(int8=full), here) is risky
    assert isa.at_risk(manifest(), here) is risky  # written before manifests said so
    assert not isa.at_risk(manifest(int8=reduced), here)
    assert not isa.at_risk(manifest("fp32"), here)


def test_a_manifest_may_name_an_instruction_that_this_edgessl_does_not_know() -> None:
    here = Processor("x", "x86_64", {"avx2": True, "avx99_dot": True})
    assert not isa.at_risk(manifest(int8={"weights": FULL, "isa": ["avx99_dot"]}), here)
    assert isa.at_risk(manifest(int8={"weights": FULL, "isa": ["avx98_dot"]}), here)


def test_refusing_says_what_cpu_what_goes_wrong_and_the_command() -> None:
    with pytest.raises(DeviceMismatch) as refused:
        isa.check(manifest(int8=isa.facts(FULL)), lambda: True, processor(HASWELL))
    message = str(refused.value)
    assert "\n" not in message
    assert "(Some CPU @ 2.0GHz) has no VNNI" in message and "would be wrong" in message
    assert message.endswith(
        "edgessl export 'my models/minilm' --target openvino --precision int8 "
        "--calibration DATA --isa any -o NEW"
    )


def test_what_is_measured_decides_where_flags_leave_it_open() -> None:
    asked = []

    def exact() -> bool:
        asked.append(True)
        return False

    isa.check(manifest(), exact, processor(HASWELL))  # an old kernel that does not know avx_vnni
    assert asked == [True]
    isa.check(manifest(), exact, processor(CASCADE_LAKE))
    isa.check(manifest(int8=isa.facts(REDUCED)), exact, processor(HASWELL))
    isa.check(replace(manifest(), precision="fp16"), exact, processor(HASWELL))
    assert asked == [True]


def test_this_processor_is_the_one_of_info() -> None:
    here = isa.this_processor()
    assert here.name == machine.processor()["model"]
    assert here.flags == machine.processor()["isa"]

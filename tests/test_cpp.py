"""examples/cpp: built with this machine's compiler against the OpenVINO of this environment."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import edgessl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("make") is None or shutil.which("g++") is None,
        reason="no make or no g++ on this machine",
    ),
]

SOURCES = Path(__file__).resolve().parents[1] / "examples" / "cpp"
# Latin, Greek, Cyrillic, combining marks, Arabic, Devanagari, kana, Chinese, Hangul, emoji
ALPHABETS = [
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x300, 0x370),
    (0x370, 0x530),
    (0x620, 0x6FF),
    (0x900, 0x97F),
    (0x2010, 0x2028),
    (0x202A, 0x2070),
    (0x3000, 0x30FF),
    (0x4E00, 0x4F00),
    (0xAC00, 0xAD00),
    (0x1F600, 0x1F640),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("cpp")
    flags = "CXXFLAGS=-O1 -Wall -Wextra -Werror"
    command = ["make", "-C", str(SOURCES), f"PYTHON={sys.executable}", f"BUILD={build}", flags]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return build / "embed"


@pytest.fixture(scope="module")
def bundles(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    edgessl.build(minilm, "onnx", folder / "onnx")
    edgessl.build(folder / "onnx", "openvino", folder / "fp32")
    edgessl.build(folder / "onnx", "openvino", folder / "int8", precision="int8", timing=False)
    return folder


def run(
    program: Path, *arguments: object, lines: list[str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    text = "".join(f"{line}\n" for line in lines or [])
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, input=text.encode(), capture_output=True)


def token_ids(program: Path, bundle: Path, lines: list[str]) -> list[list[int]]:
    result = run(program, bundle, "--tokens", lines=lines)
    assert result.returncode == 0, result.stderr
    return [[int(word) for word in line.split()] for line in result.stdout.splitlines()]


def test_token_ids_equal_the_tokenizers(program: Path, bundles: Path, sentences: list[str]) -> None:
    rng = random.Random(1)
    invented = [
        "".join(
            " " if rng.random() < 0.2 else chr(rng.randrange(*rng.choice(ALPHABETS)))
            for _ in range(rng.randrange(40))
        )
        for _ in range(1500)
    ]
    edges = [
        "",
        " ",
        "x" * 100,
        "x" * 101,  # longer than a word may be
        "[MASK] is [SEP]here[CLS]",
        "[SEP]" * 300,
        "word " * 400,
        "İstanbul ΣΑΣ ß ﬁ Ⅷ",
        "tab\tand\x0bother\x85spaces\u2028\u00adsoft\u200bnone\ufeff\ufffd\x7f",
        "\U00020001\U0002b920 한국어 각갂",
    ]
    lines = [line for text in sentences for line in text.splitlines()] + invented + edges
    tokenizer = Tokenizer.from_file(str(bundles / "fp32" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(lines)]
    found = token_ids(program, bundles / "fp32", lines)
    assert len(found) == len(lines)
    assert [pair for pair in zip(lines, found, wanted) if pair[1] != pair[2]] == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_vectors_equal_the_sessions(
    program: Path,
    bundles: Path,
    sentences: list[str],
    precision: str,
    tmp_path: Path,
) -> None:
    path, out = bundles / precision, tmp_path / "vectors.npy"
    texts = [*sentences[::100], "", "Straße, 東京, naïve café", "word " * 400]
    result = run(program, path, "-o", out, lines=texts)
    assert result.returncode == 0 and result.stdout == b"", result.stderr
    found = np.load(out)
    with edgessl.load(path) as session:
        assert result.stderr.decode() == f"variant {session.variant}\n"
        wanted = np.concatenate([session.embed([text]) for text in texts])
    assert found.dtype == np.float32 and found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-5

    printed = run(program, path, lines=texts[:2]).stdout.decode().splitlines()
    rows = [[float(word) for word in line.split()] for line in printed]
    np.testing.assert_allclose(rows, wanted[:2], atol=1e-5)


def test_no_texts(program: Path, bundles: Path, tmp_path: Path) -> None:
    assert run(program, bundles / "fp32", "-o", tmp_path / "none.npy").returncode == 0
    assert np.load(tmp_path / "none.npy").shape == (0, 384)


def said(result: subprocess.CompletedProcess[bytes], code: int) -> str:
    assert result.returncode == code and result.stdout == b"", result
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("embed: ")
    return line


def test_other_bundles_are_refused(program: Path, bundles: Path, mae: Path, tmp_path: Path) -> None:
    assert "target onnx; export it with --target openvino" in said(
        run(program, bundles / "onnx"), 4
    )
    edgessl.build(mae, "onnx", tmp_path / "onnx")
    images = edgessl.build(tmp_path / "onnx", "openvino", tmp_path / "mae").path
    assert "it embeds images" in said(run(program, images), 4)
    assert "manifest.json" in said(run(program, tmp_path), 4)

    copy = shutil.copytree(bundles / "fp32", tmp_path / "copy")
    (copy / "openvino_model.bin").write_bytes(b"short")
    assert "openvino_model.bin is missing or of another size" in said(run(program, copy), 4)


@pytest.mark.parametrize(
    ("arguments", "text", "why"),
    [
        ([], "", "use: embed BUNDLE"),
        (["--help"], "", "cannot use --help"),
        (["fp32"], b"caf\xe9\n", "not valid UTF-8"),
        (["fp32"], b"\xed\xa0\x80\n", "not valid UTF-8"),
    ],
)
def test_wrong_use(
    program: Path, bundles: Path, arguments: list[str], text: bytes, why: str
) -> None:
    given = [str(bundles / name) if name == "fp32" else name for name in arguments]
    result = subprocess.run([program, *given], input=text or b"", capture_output=True)
    assert why in said(result, 1)

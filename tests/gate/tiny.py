"""Subjects that open in no time: a bundle made without torch, and functions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgessl import bundle
from edgessl.bundle import Manifest
from edgessl.spec import EncoderSpec, Provenance, TensorSpec, TextSpec

MAX_LENGTH, WIDTH = 48, 8
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

# FILE.py:FACTORY for tests: each call takes about as long as its name says.
FUNCTIONS = """
import os, sys, time
from pathlib import Path

def quick():
    return lambda items: [0] * len(items)

def slow():
    def call(items):
        time.sleep(0.002)
        return [0] * len(items)
    return call

def prints():
    print("hello from a library")
    return lambda items: [print("more", len(items))] * len(items)

def fails():
    raise ValueError("no model here\\nand more lines")

def returns_nothing():
    return lambda items: None

def is_no_function():
    return 5

def dies():
    def call(items):
        print("Fatal: the library is broken", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 11)
    return call

def hangs():
    return lambda items: time.sleep(600)

class Closed:
    def __call__(self, items):
        return [0] * len(items)
    def close(self):
        Path(os.environ["CLOSED"]).write_text("closed")

def says_its_pid():
    Path(os.environ["PIDS"], str(os.getpid())).touch()
    return slow()
"""


def save_functions(folder: Path) -> Path:
    path = folder / "functions.py"
    path.write_text(FUNCTIONS, encoding="utf-8")
    return path


def save_bundle(folder: Path, seed: int = 0) -> Path:
    """An onnx bundle whose vector of a text is the mean of a random vector for each token."""
    folder.mkdir(parents=True)
    words = [*_SPECIAL, "the", "of", "and", "to", "in"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"pad_token": "[PAD]", "model_max_length": MAX_LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 1, "hidden_size": WIDTH}))
    onnx.save(_graph(len(words), seed), str(folder / "model.onnx"))
    inputs = tuple(
        TensorSpec(name, "int64", ("batch", "sequence")) for name in ("input_ids", "attention_mask")
    )
    spec = EncoderSpec(
        task="text",
        family="bert",
        pooling="mean",
        normalize=False,
        inputs=inputs,
        outputs=(TensorSpec("sentence_embedding", "float32", ("batch", WIDTH)),),
        preprocessing=TextSpec(MAX_LENGTH),
    )
    manifest = Manifest(
        target="onnx",
        precision="fp32",
        encoder=spec,
        provenance=Provenance("tiny"),
        variant="0123456789abcdef",
        recipe={},
        compatibility={},
        parity={},
        compute={"parameters": 72, "flops": 33_000, "at": {"input_ids": [1, 32]}},
        files={name: bundle.file_entry(folder / name) for name in bundle.list_files(folder)},
    )
    (folder / bundle.MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    return folder


def _graph(words: int, seed: int) -> onnx.ModelProto:
    table = np.random.default_rng(seed).normal(size=(words, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["real"]),
        helper.make_node("Mul", ["vectors", "real"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["real", "second"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["sentence_embedding"]),
    ]
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "second"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model

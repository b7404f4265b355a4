"""Checkpoints that people published, beside all-MiniLM-L6-v2 (test_text_encoders.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AlbertModel, PreTrainedTokenizerFast

import edgessl
from examples import data

REACTIONS = [
    "CC(=O)O.OCC>>CC(=O)OCC",
    "BrCCCBr.c1ccccc1[N+](=O)[O-]",
    "C",
]
# The pattern by which the RXNMapper paper (Schwaller et al., 2021) splits SMILES.
SMILES = r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9])"


def with_tokenizer(checkpoint: Path, directory: Path) -> Path:
    """The checkpoint and its vocabulary as a tokenizer.json: its own tokenizer is Python code."""
    shutil.copytree(checkpoint, directory, dirs_exist_ok=True)
    names = (checkpoint / "vocab.txt").read_text().split()
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    library: Any = PreTrainedTokenizerFast
    library(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    ).save_pretrained(directory)
    return directory


def test_albert_of_chemical_reactions(tmp_path: Path) -> None:
    directory = with_tokenizer(data.rxnmapper(), tmp_path / "model")
    library: Any = AlbertModel
    model = library.from_pretrained(directory).eval()
    made = directory
    for target in ("onnx", "openvino"):
        built = edgessl.build(made, target, tmp_path / target)
        made = built.path
        with edgessl.load(made) as session:
            ours = session.embed(REACTIONS)
            for text, row in zip(REACTIONS, ours, strict=True):
                ids = torch.from_numpy(session.prepare([text])["input_ids"])
                with torch.no_grad():
                    hidden = model(input_ids=ids).last_hidden_state
                np.testing.assert_allclose(row, hidden.mean(1)[0].numpy(), atol=1e-4)
    assert not np.allclose(ours[0], ours[1], atol=1e-2)

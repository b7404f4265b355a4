"""The encoder families: a row each. Adding one is a row here and, where it is new, a file."""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.spec import Task


@dataclass(frozen=True)
class Family:
    """A family is what a Hugging Face ``model_type`` says a checkpoint is.

    ``loader`` names a function ``(directory, options, family) -> LoadedEncoder``.
    ``position_offset``: how many rows of the position table no token can use (RoBERTa counts
    positions from ``pad_token_id + 1``).
    """

    model_type: str
    task: Task
    loader: str
    position_offset: int = 0


_TEXT = "edgessl.encoders.bert:load"

FAMILIES: dict[str, Family] = {
    row.model_type: row
    for row in (
        Family("bert", "text", _TEXT),
        Family("roberta", "text", _TEXT, position_offset=2),
        Family("xlm-roberta", "text", _TEXT, position_offset=2),
        Family("camembert", "text", _TEXT, position_offset=2),
        Family("distilbert", "text", _TEXT),
        Family("mpnet", "text", _TEXT, position_offset=2),
        Family("electra", "text", _TEXT),
        Family("albert", "text", _TEXT),
        Family("vit_mae", "image", "edgessl.encoders.vit_mae:load"),
    )
}

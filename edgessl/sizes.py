"""Layers of sizes of their own: what config.json says of them, in transformers' words or in ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgessl.errors import CheckpointError

ENTRY = "edgessl"  # in config.json; transformers keeps it and makes nothing of it
_CHANNELS = ("intermediate_size", "hidden_dim")  # of every layer, as configs call them


@dataclass(frozen=True)
class Sizes:
    """Of each layer: which of the heads that config.json counts it has, and how many channels.
    ``width``: dimensions of the stream; None: as config.json says."""

    heads: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]
    width: int | None = None

    def of(self, kept: Sequence[int]) -> Sizes:
        """Of an encoder that has these of the layers."""
        heads, channels = self.heads, self.channels
        return Sizes(
            tuple(heads[layer] for layer in kept),
            tuple(channels[layer] for layer in kept),
            self.width,
        )


def read(config: Mapping[str, Any]) -> Sizes | None:
    """What config.json says; None: all layers are as transformers makes them.

    Raises:
        CheckpointError: an entry that is damaged.
    """
    entry = config.get(ENTRY)
    if entry is None:
        return None
    try:
        heads = tuple(tuple(int(head) for head in layer) for layer in entry["heads"])
        channels = tuple(int(count) for count in entry["channels"])
        width = int(entry["width"]) if "width" in entry else None
    except (LookupError, TypeError, ValueError) as err:
        raise CheckpointError(
            f"config.json: its entry {ENTRY!r} does not list the heads and channels of layers."
        ) from err
    if len(heads) != len(channels):
        raise CheckpointError(
            f"config.json: its entry {ENTRY!r} has the heads of {len(heads)} layers and the channels "
            f"of {len(channels)}."
        )
    return Sizes(heads, channels, width)


def put(config: Mapping[str, Any], model: Any, sizes: Sizes) -> dict[str, Any]:
    """*config*, the content of a config.json, for layers of *sizes*: in transformers' own words if
    it has them, which is if every layer has all heads and as many channels as the others.

    Args:
        model: what transformers made of *config*.
    """
    rest = {name: value for name, value in config.items() if name != ENTRY}
    heads = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
    key = next((name for name in _CHANNELS if hasattr(model, name)), None)
    complete = all(found == tuple(range(heads)) for found in sizes.heads)
    plain = complete and sizes.width is None
    if plain and len(set(sizes.channels)) == 1 and key is not None:
        return {**rest, key: sizes.channels[0]}
    entry: dict[str, Any] = {
        "heads": [list(found) for found in sizes.heads],
        "channels": list(sizes.channels),
    }
    if sizes.width is not None:
        entry["width"] = sizes.width
    return {**rest, ENTRY: entry}

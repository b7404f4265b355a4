"""Which items are drawn: seeded, distinct, and for texts as long as the whole set is."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgessl.errors import RecipeError
from edgessl.rows.base import MOST_UNUSABLE, Bad, Rows, Tally
from edgessl.rows.encoding import clean_text


@dataclass(frozen=True)
class Drawn:
    """Items in a random order. ``available``: how many there were to draw from."""

    items: list[Any]
    available: int
    tally: Tally


def ticket(content: bytes, seed: int) -> int:
    """64 bits that *seed* shuffles: the lowest of a set are a sample, in whatever order they come."""
    key = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")


def texts(rows: Rows, names: list[str], samples: int, seed: int) -> Drawn:
    """*samples* distinct texts, stripped, one from each of as many equal ranges of length.

    The distinct texts are put in order of length and cut into *samples* runs of equal size (within
    one); each run gives one. So the sample's lengths are spread as those of the whole, and it
    depends on the texts and the seed, not on their order or on how often one is repeated. The rows
    are read twice; 20 bytes of each stay in memory.
    """
    places, tickets, lengths = array("Q"), array("Q"), array("I")
    tally = Tally()
    for number, values in rows.take(names):
        if isinstance(values, Bad):
            tally.add(values)
            continue
        for column, value in enumerate(values):
            text = _clean(value)
            if isinstance(text, Bad):
                tally.add(Bad(f"row {number + 1}", text.reason))
                continue
            tally.good += 1
            if text:
                places.append(number * len(names) + column)
                tickets.append(ticket(text.encode(), seed))
                lengths.append(len(text))
    numbers, first = np.unique(np.frombuffer(tickets, np.uint64), return_index=True)
    drawn = _spread(numbers, np.frombuffer(lengths, np.uint32)[first], samples)
    wanted = {places[int(first[index])]: int(numbers[index]) for index in drawn}
    found: dict[int, str] = {}
    for number, values in rows.take(names, sorted({place // len(names) for place in wanted})):
        for column, value in enumerate([] if isinstance(values, Bad) else values):
            token = wanted.get(number * len(names) + column)
            text = _clean(value)
            if token is not None and isinstance(text, str) and ticket(text.encode(), seed) == token:
                found[token] = text
    if len(found) < len(wanted):
        raise RecipeError("the calibration data changed while it was read; try again.")
    return Drawn([found[token] for token in sorted(found)], len(numbers), tally)


def _clean(value: object) -> str | Bad:
    """The text without the space around it; nothing for a null."""
    text = clean_text("" if value is None else value)
    return text if isinstance(text, Bad) else text.strip()


def _spread(tickets: Any, lengths: Any, samples: int) -> list[int]:
    """Indices of one item, the one with the lowest ticket, of each run of similar length."""
    total = len(tickets)
    samples = min(samples, total)
    order = np.lexsort((tickets, lengths))
    run = np.arange(total, dtype=np.int64) * samples // max(total, 1)
    by_run = order[np.lexsort((tickets[order], run))]
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    return [int(index) for index in by_run[starts]]


def distinct(
    candidates: Iterable[tuple[str, Any]],
    available: int,
    samples: int,
    unusable: Callable[[Any], str | None],
    contents: Callable[[Any], Iterable[bytes]],
) -> Drawn:
    """The first *samples* of (name, item) that are usable and of different content.

    Gives up as soon as the share of unusable ones cannot come down to ``MOST_UNUSABLE`` any more.
    """
    chosen: list[Any] = []
    tally = Tally()
    seen: set[bytes] = set()
    for name, item in candidates:
        hopeless = tally.bad > MOST_UNUSABLE * (max(samples, tally.good) + tally.bad)
        if hopeless or len(chosen) == samples:
            break
        reason = item.reason if isinstance(item, Bad) else unusable(item)
        if reason is not None:
            tally.add(Bad(name, reason))
            continue
        tally.good += 1
        digest = hashlib.blake2b()
        for content in contents(item):
            digest.update(len(content).to_bytes(8, "little") + content)
        if digest.digest() not in seen:
            seen.add(digest.digest())
            chosen.append(item)
    return Drawn(chosen, available, tally)


def shuffled(count: int, seed: int) -> Any:
    """Row numbers in the order in which they are drawn: int64, ``(count,)``."""
    key = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(key).permutation(count)


def fetched(
    rows: Rows, names: list[str], count: int, samples: int, seed: int
) -> Iterator[tuple[str, Any]]:
    """(name, value) of *count* shuffled rows, read in blocks of a few more than *samples*."""
    order = shuffled(count, seed)
    size = samples + samples // 8 + 8
    for start in range(0, len(order), size):
        block = [int(number) for number in order[start : start + size]]
        found = dict(rows.take(names, sorted(block)))
        for number in block:
            values = found[number]
            for value in [values] if isinstance(values, Bad) else values:
                yield f"row {number + 1}", value

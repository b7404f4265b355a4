"""What ``edgessl compress`` says of what it has done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from edgessl.distilling import Distilled
    from edgessl.narrowing import Narrowed
    from edgessl.pruning import Pruned
    from edgessl.shortening import Shortened
    from edgessl.sparsifying import Sparsified
    from edgessl.trimming import Trimmed

    Found = Union[Distilled, Narrowed, Pruned, Shortened, Sparsified, Trimmed]

_WIDTH = 24  # of a bar


def lines(found: Found) -> Iterator[str]:
    """For people to read."""
    yield f"checkpoint  {found.path}"
    yield from _ABOUT[type(found).__name__](found)


def _sizes(found: Narrowed | Pruned | Shortened | Sparsified | Trimmed) -> Iterator[str]:
    saved = 1 - found.bytes_after / found.bytes_before
    yield f"parameters  {found.parameters_before:,} -> {found.parameters_after:,}"
    size = f"{found.bytes_before / 1e6:.1f} -> {found.bytes_after / 1e6:.1f} MB"
    yield f"size        {size} ({saved:.0%} less)"


def _flops(found: Narrowed | Pruned | Shortened) -> str:
    saved = 1 - found.flops_after / found.flops_before
    flops = f"{found.flops_before / 1e9:.2f} -> {found.flops_after / 1e9:.2f} G an item"
    return f"operations  {flops} ({saved:.0%} less)"


def _pruned(found: Pruned) -> Iterator[str]:
    yield from _sizes(found)
    yield _flops(found)
    if found.measured is not None and found.measured_interval is not None:
        low, high = found.measured_interval
        promised = f"; the search promised {1 / found.promised:.2f}x"
        yield (
            f"speed       {1 / found.measured:.2f}x measured ({1 / high:.2f} to {1 / low:.2f})"
            f"{promised if found.budget.startswith('--latency') else ''}"
        )
    yield "layer       heads kept, channels kept"
    for number, (heads, channels) in enumerate(zip(found.heads, found.channels, strict=True)):
        gone = set(found.removed_heads[number])
        marks = "".join("." if head in gone else "#" for head in range(found.heads_before))
        share = round(channels / found.channels_before * _WIDTH)
        bar = "#" * share + "." * (_WIDTH - share)
        yield (
            f"{number:5}       {marks} {heads:3}   {bar} {channels:,} of {found.channels_before:,}"
        )
    yield (
        f"fidelity    cosine {found.cosine_mean:.4f} mean, {found.cosine_p1:.4f} 1st percentile; "
        f"{_ranks(found)}"
    )
    if found.accuracy_before is not None and found.accuracy_after is not None:
        yield f"accuracy    {found.accuracy_before:.4f} -> {found.accuracy_after:.4f} on these items"


def _narrowed(found: Narrowed) -> Iterator[str]:
    yield from _sizes(found)
    yield _flops(found)
    yield (
        f"width       {found.width_before:,} -> {len(found.kept):,}; the vector has "
        f"{found.dimensions:,} numbers"
    )
    if found.own_loader:
        yield "opened by   edgessl alone: transformers has no word for such sizes"
    near = (
        f"cosine {found.cosine_mean:.4f} mean, {found.cosine_p1:.4f} 1st percentile; "
        if found.cosine_mean is not None
        else ""
    )
    yield f"fidelity    {near}{_ranks(found)}"


def _sparsified(found: Sparsified) -> Iterator[str]:
    yield from _sizes(found)
    yield (
        f"2:4 sparse  {len(found.sparse)} linear layers; {found.zeros:.0%} of their weights are 0"
    )
    for name, why in found.left_out:
        yield f"left dense  {name}: {why}"
    yield (
        f"fidelity    cosine {found.cosine_mean:.4f} mean, {found.cosine_p1:.4f} 1st percentile; "
        f"{_ranks(found)}"
    )


def _distilled(found: Distilled) -> Iterator[str]:
    weights = ", ".join(f"{name}={weight:g}" for name, weight in found.objectives.items())
    yield f"taught by   {found.teacher}: {weights}"
    yield (
        f"learning    {found.steps:,} steps in {found.seconds / 60:.1f} min, of {found.items:,} items"
        f"{f'; stopped: {found.stopped}' if found.stopped else ''}"
    )
    for remark in found.remarks:
        yield f"note        {remark}"
    for name, now, then in (
        ("cosine mean", found.after.cosine_mean, found.before.cosine_mean),
        ("1st percentile", found.after.cosine_p1, found.before.cosine_p1),
        ("rank correlation of similarities", *_both(found)),
    ):
        if now is not None and then is not None:
            yield f"fidelity    {name} {then:.4f} -> {now:.4f}"
    yield f"            on {found.held_out} items held out of the data"


def _both(found: Distilled) -> tuple[float, float]:
    return found.after.rank_correlation, found.before.rank_correlation


def _ranks(found: Narrowed | Pruned | Sparsified) -> str:
    return (
        f"rank correlation of similarities {found.rank_correlation:.4f}; on {found.held_out} items "
        f"held out of the data ({found.items} were fitted to)"
    )


def _layers(found: Shortened) -> Iterator[str]:
    yield from _sizes(found)
    yield _flops(found)
    for layer, cosine in found.left_out:
        yield f"without     layer {layer}: cosine {cosine:.4f} to the whole encoder"
    total = len(found.kept) + len(found.left_out)
    yield f"kept        layers {', '.join(map(str, found.kept))} of {total}"
    yield (
        f"fidelity    cosine {found.cosine_mean:.4f} mean, {found.cosine_p1:.4f} 1st percentile, on "
        f"the {found.items} items that chose; measure others with edgessl eval"
    )


def _vocabulary(found: Trimmed) -> Iterator[str]:
    yield from _sizes(found)
    yield (
        f"tokens      {found.tokens_before:,} -> {found.tokens_after:,}; they cover "
        f"{found.covered:.1%} of {found.texts:,} texts"
    )
    yield (
        f"checked     the same tokens for {found.identical_texts:,} covered texts, the same "
        f"vectors, bit for bit, for {found.identical_vectors}"
    )


_ABOUT: dict[str, Callable[[Any], Iterator[str]]] = {
    "Distilled": _distilled,
    "Narrowed": _narrowed,
    "Pruned": _pruned,
    "Shortened": _layers,
    "Sparsified": _sparsified,
    "Trimmed": _vocabulary,
}

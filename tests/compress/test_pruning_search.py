"""What to remove, and what it costs: against the definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.compress import fisher, flow, obs, search
from edgessl.compress.costs import Costs
from edgessl.encoders import structures
from edgessl.errors import RecipeError, Unsupported


def random_part(size: int, out: int, seed: int) -> tuple[fisher.Part, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, gradients = normal(200, size) @ normal(size, size), normal(50, out)
    return fisher.Part(inputs.T @ inputs, gradients.T @ gradients / 50), normal(out, size).float()


@pytest.mark.parametrize("size", [1, 4])
def test_errors_are_those_of_the_best_weights_that_are_left(size: int) -> None:
    part, weight = random_part(24, 6, 3)
    found = obs.removal(part, weight, size)
    gram = part.gram + torch.eye(24) * 1e-2 * part.gram.diagonal().mean()
    metric = part.metric + torch.eye(6) * 1e-3 * part.metric.diagonal().mean()
    assert sorted((*found.order, *found.kept(1))) == list(range(24 // size))
    for gone in (1, 24 // size // 2, len(found.order)):
        kept = found.kept(24 // size - gone)
        rows = [group * size + place for group in kept for place in range(size)]
        # least squares with the others at 0: the normal equations
        best = torch.linalg.solve(gram[rows][:, rows], gram[rows] @ weight.T.double())
        change = weight.T.double().clone()
        change[rows] -= best
        error = torch.trace(metric @ change.T @ gram @ change)
        assert found.errors[gone] == pytest.approx(float(error), rel=1e-3)


def test_the_first_to_go_costs_least() -> None:
    part, weight = random_part(12, 5, 1)
    found = obs.removal(part, weight, 1)
    alone = []
    for channel in range(12):
        order = [channel, *(n for n in range(12) if n != channel)]
        swapped = fisher.Part(part.gram[order][:, order], part.metric)
        inverse = torch.linalg.inv(
            swapped.gram + torch.eye(12) * 1e-2 * part.gram.diagonal().mean()
        )
        column = weight[:, channel].double()
        alone.append(float(column @ part.metric @ column / inverse[0, 0]))
    assert found.order[0] == int(np.argmin(alone))


def test_curvature_is_that_of_the_jacobian() -> None:
    torch.manual_seed(0)
    layer = _Layer()
    inputs = [{"x": torch.randn(3, 4, 6)}]
    module = _Encoder(layer)
    (attention, feed), *_ = fisher.measure(module, [layer.described()], inputs, projections=4000)
    for part, linear in ((attention, layer.out), (feed, layer.down)):
        with flow.tapped([linear]) as (tap,):
            output = module(**inputs[0])[0]
            rows = [
                torch.autograd.grad(output[place], tap.made, retain_graph=True)[0].flatten(0, -2)
                for place in itertools.product(*map(range, output.shape))
            ]
        exact = sum((row.T @ row for row in rows), torch.zeros(6, 6)) / 12
        assert torch.allclose(part.metric.float(), exact, rtol=0.1, atol=float(exact.max()) * 0.05)
        given = tap.given.detach().flatten(0, -2)
        assert torch.allclose(part.gram.float(), given.T @ given, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.4, 1.0))
def test_the_search_finds_what_trying_all_finds(seed: int, fraction: float) -> None:
    rng = np.random.default_rng(seed)

    def removal(groups: int) -> obs.Removal:
        return obs.Removal(
            tuple(range(groups - 1)), (0.0, *rng.exponential(size=groups - 1).cumsum())
        )

    parts = [(removal(3), removal(4)) for _ in range(2)]
    costs = Costs(
        "s",
        float(rng.uniform(0, 1)),
        dict(zip((1, 2, 3), rng.exponential(size=3).cumsum(), strict=True)),
        dict(zip((1, 2, 4), rng.exponential(size=3).cumsum(), strict=True)),
    )
    most, tried = costs.total([3, 3], [4, 4]), []
    for heads in itertools.product(costs.heads, repeat=2):
        for channels in itertools.product(costs.channels, repeat=2):
            if costs.total([*heads], [*channels]) <= fraction * most:
                tried.append(error(parts, heads, channels))
    if not tried:
        with pytest.raises(RecipeError, match="cannot be reached.*the smallest is"):
            search.allocate(parts, costs, fraction, "--latency")
        return
    found = search.allocate(parts, costs, fraction, "--latency")
    assert costs.total(found.heads, found.channels) <= fraction * most * (1 + 1e-6)
    # a bin's width may keep it from what only just fits
    tight = [
        error(parts, h, c)
        for h in itertools.product(costs.heads, repeat=2)
        for c in itertools.product(costs.channels, repeat=2)
        if costs.total([*h], [*c]) <= fraction * most * (1 - 1e-3)
    ]
    got = error(parts, found.heads, found.channels)
    assert got >= min(tried) - 1e-9 and (not tight or got <= min(tight) + 1e-9)


def error(
    parts: list[tuple[obs.Removal, obs.Removal]],
    heads: tuple[int, ...] | list[int],
    channels: tuple[int, ...] | list[int],
) -> float:
    return sum(
        part.errors[len(part.errors) - size]
        for both, *sizes in zip(parts, heads, channels, strict=True)
        for part, size in zip(both, sizes, strict=True)
    )


def test_a_family_without_a_description_is_named() -> None:
    with pytest.raises(Unsupported, match="swin are not described; of: .*bert"):
        structures.find("swin", torch.nn.Linear(1, 1), 2)


class _Layer(torch.nn.Module):
    """As pruning sees a layer: attention that looks at nothing but itself, and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = 3
        self.query, self.key, self.value, self.out = (torch.nn.Linear(6, 6) for _ in range(4))
        self.up, self.down = torch.nn.Linear(6, 10), torch.nn.Linear(10, 6)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        mixed = torch.tanh(self.query(hidden_states) + self.key(hidden_states))
        stream: torch.Tensor = hidden_states + self.out(mixed * self.value(hidden_states))
        made: torch.Tensor = stream + self.down(torch.tanh(self.up(stream)))
        return made

    def described(self) -> structures.Layer:
        names = structures.Names("query", "key", "value", "out", ("up",), "down")
        return structures.Layer(self, names, head_dim=3, queries=1)


class _Encoder(torch.nn.Module):
    def __init__(self, layer: _Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.nn.functional.normalize(self.layer(x).mean(1), dim=-1),)

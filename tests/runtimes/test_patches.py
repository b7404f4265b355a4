"""Which patches are looked at: properties that any choice has, and what each one promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.errors import RecipeError
from edgessl.runtimes import patches
from edgessl.runtimes.patches import PatchChoice
from edgessl.spec import EncoderSpec, ImageSpec, TensorSpec, TextSpec

Pixels = npt.NDArray[np.float32]


def spec(grid: tuple[int, int] | None = (4, 4), family: str = "vit_mae") -> EncoderSpec:
    pixels = TensorSpec("pixel_values", "float32", ("batch", 3, 16, 16))
    indices = TensorSpec("patch_indices", "int64", ("batch", "kept"))
    inputs = (pixels,) if grid is None else (pixels, indices)
    return EncoderSpec("image", family, "mean", False, inputs, (), ImageSpec(16, 16, 3, grid))


def images(count: int, height: int = 16, width: int = 16, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3, height, width)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.floats(0, 1, exclude_min=True),
    st.sampled_from(["grid", "random", "saliency"]),
    st.integers(0, 4),
)
def test_every_choice_has_so_many_different_patches_in_order(
    grid: tuple[int, int], keep: float, how: str, count: int
) -> None:
    rows, columns = grid
    choose = patches.choice(spec(grid), keep, how)
    assert choose is not None
    found = choose(images(count, rows * 3, columns * 2))
    total = rows * columns
    assert found.dtype == np.int64
    assert found.shape == (count, max(1, int(keep * total + 0.5)))
    assert (np.diff(found, axis=1) > 0).all()
    assert found.size == 0 or (found.min() >= 0 and found.max() < total)


def test_none_is_every_patch() -> None:
    for keep in (None, 1, 1.0, np.float32(1)):
        choose = patches.choice(spec(), keep)  # type: ignore[arg-type]
        assert choose is not None
        np.testing.assert_array_equal(choose(images(2)), np.tile(np.arange(16), (2, 1)))


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (6, 10)])
def test_a_grid_takes_one_of_four_and_then_the_one_across(grid: tuple[int, int]) -> None:
    rows, columns = grid
    quarter = np.zeros(grid)
    quarter.flat[PatchChoice(grid, rows * columns // 4)(images(1))[0]] = 1
    blocks = quarter.reshape(rows // 2, 2, columns // 2, 2).sum(axis=(1, 3))
    np.testing.assert_array_equal(blocks, np.ones((rows // 2, columns // 2)))
    half = np.zeros(grid)
    half.flat[PatchChoice(grid, rows * columns // 2)(images(1))[0]] = 1
    board = (np.add.outer(np.arange(rows), np.arange(columns)) + 1) % 2
    np.testing.assert_array_equal(half, board)


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (7, 5)])
def test_a_grid_leaves_no_hole_and_grows_by_adding(grid: tuple[int, int]) -> None:
    total = grid[0] * grid[1]
    places = np.stack(np.divmod(np.arange(total), grid[1]), axis=1)
    before: set[int] = set()
    for kept in range(1, total + 1):
        chosen = PatchChoice(grid, kept)(images(1))[0]
        assert before < set(chosen)
        before = set(chosen.tolist())
        far = np.abs(places[:, None] - places[chosen][None]).max(axis=2).min(axis=1).max()
        assert far <= 2 * (total / kept) ** 0.5  # 1/2 of that is what a regular lattice would have


def test_random_follows_from_the_image_and_the_seed_alone() -> None:
    many = images(64, 32, 32)
    choose = PatchChoice((8, 8), 16, "random", seed=3)
    found = choose(many)
    alone = np.concatenate([choose(image[None]) for image in many[::-1]])[::-1]
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_array_equal(found, choose(np.asfortranarray(many)))
    assert len({tuple(row) for row in found.tolist()}) == 64
    other = PatchChoice((8, 8), 16, "random", seed=4)(many)
    assert (found != other).any(axis=1).all()
    PatchChoice((8, 8), 16, "random", seed=-(2**70))(many)  # any whole number


def test_random_is_even_over_many_images() -> None:
    noise = images(4000, 16, 16, seed=9)
    found = PatchChoice((4, 4), 4, "random")(noise)
    counts = np.bincount(found.ravel(), minlength=16)
    assert (np.abs(counts - 1000) < 5 * 1000**0.5).all()
    pairs = np.zeros((16, 16))
    for row in found:
        pairs[np.ix_(row, row)] += 1
    expected = 4000 * (4 * 3) / (16 * 15)
    beside = pairs[~np.eye(16, dtype=bool)]
    assert (np.abs(beside - expected) < 6 * expected**0.5).all()


def test_contrast_is_what_neighbouring_pixels_differ_by() -> None:
    some = images(2, 13, 11)  # a row and a column more than whole patches have
    found = patches._contrast(some, (3, 2))
    grey = some.sum(axis=1, dtype=np.float64)[:, :12, :10]
    for image in range(2):
        for row in range(3):
            for column in range(2):
                total = 0.0
                for y in range(4 * row, 4 * row + 4):
                    for x in range(5 * column, 5 * column + 5):
                        if x + 1 < 10:
                            total += abs(grey[image, y, x + 1] - grey[image, y, x])
                        if y + 1 < 12:
                            total += abs(grey[image, y + 1, x] - grey[image, y, x])
                assert found[image, 2 * row + column] == pytest.approx(total, rel=1e-5)


def test_saliency_is_half_a_grid_and_half_where_something_is() -> None:
    quiet = np.zeros((1, 3, 32, 32), np.float32)
    busy = [9, 10, 11, 17, 18, 19, 25, 26]
    for patch in busy:
        y, x = 4 * (patch // 8), 4 * (patch % 8)
        quiet[0, :, y : y + 3, x : x + 3] = np.random.default_rng(patch).normal(size=(3, 3, 3)) * 5
    found = set(PatchChoice((8, 8), 16, "saliency")(quiet)[0].tolist())
    grid = set(PatchChoice((8, 8), 8)(quiet)[0].tolist())
    assert grid <= found
    assert len(found - grid) == 8 and set(busy) - grid <= found


@pytest.mark.parametrize("keep", [0, -0.5, 1.01, 2, float("nan"), float("inf"), True, "0.5"])
def test_shares_that_make_no_sense(keep: Any) -> None:
    with pytest.raises(RecipeError, match="keep_patches must be a share above 0 and at most 1"):
        patches.choice(spec(), keep)


def test_other_values_that_make_no_sense() -> None:
    with pytest.raises(RecipeError, match="'gird' is none of .* Did you mean 'grid'"):
        patches.choice(spec(), 0.5, "gird")
    with pytest.raises(RecipeError, match="seed must be a whole number, not 1.5"):
        patches.choice(spec(), 0.5, "random", 1.5)  # type: ignore[arg-type]


def test_encoders_without_the_input() -> None:
    assert patches.choice(spec(None, "vit")) is None
    with pytest.raises(RecipeError, match="is vit, which was not pretrained with patches left out"):
        patches.choice(spec(None, "vit"), 0.5)
    with pytest.raises(RecipeError, match="export it again with --patch-dropping"):
        patches.choice(spec(None), 0.5)
    text = EncoderSpec("text", "bert", "mean", True, (), (), TextSpec(16))
    assert patches.choice(text) is None


def test_inputs_are_completed_and_checked() -> None:
    pixels = {"pixel_values": images(2)}
    every = patches.complete(spec(), pixels)["patch_indices"]
    np.testing.assert_array_equal(every, np.tile(np.arange(16), (2, 1)))
    given_ = {**pixels, "patch_indices": np.array([[3], [2]])}
    assert patches.complete(spec(), given_) == given_
    assert patches.complete(spec(None), pixels) == pixels
    assert patches.complete(spec(), {}) == {}
    patches.check(spec(), given_)
    patches.check(spec(None), pixels)
    for bad in ([[16]], [[-1]]):
        with pytest.raises(RecipeError, match="patches 0 to 15 .4 rows of 4."):
            patches.check(spec(), {**pixels, "patch_indices": np.array(bad)})
    with pytest.raises(RecipeError, match="give at least one"):
        patches.check(spec(), {**pixels, "patch_indices": np.zeros((2, 0), np.int64)})

"""Corruptions do what their names say, by the strength that they name, and always the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mnistjax
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.evaluation import CORRUPTIONS, corrupt, draw_sample, measure_robustness

DIGITS = mnistjax.load_dataset("digits")
IMAGES = DIGITS.test.images[:120]
KEY = jax.random.key(0)
corruptions = pytest.mark.parametrize("name", CORRUPTIONS)


def disc(radius=5.0, level=200):
    """One image of a soft disc in the middle, uint8 [40, 28, 28, 1]."""
    rows, columns = np.mgrid[:28, :28] - 13.5
    image = level * np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    return np.repeat(np.round(image).astype(np.uint8)[None, ..., None], 40, 0)


def centers(images):
    """Center of mass of each image, float [N, 2]."""
    weights = images[..., 0].astype(float)
    grid = np.stack(np.mgrid[:28, :28], -1)
    return np.einsum("nhw,hwa->na", weights, grid) / weights.sum((1, 2))[:, None]


@corruptions
def test_strength_zero_changes_nothing(name):
    np.testing.assert_array_equal(corrupt(IMAGES, name, 0), IMAGES)


@corruptions
def test_shape_and_dtype_stay_and_every_strength_changes_more(name):
    distances = []
    for strength in CORRUPTIONS[name].strengths:
        changed = corrupt(IMAGES, name, strength)
        assert changed.shape == IMAGES.shape
        assert changed.dtype == np.uint8
        distances.append(np.abs(changed.astype(float) - IMAGES).mean())
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert list(CORRUPTIONS[name].strengths) == sorted(set(CORRUPTIONS[name].strengths))


@corruptions
def test_an_image_is_changed_alike_in_every_batch(name):
    strength = CORRUPTIONS[name].strengths[0]
    np.testing.assert_array_equal(
        corrupt(IMAGES, name, strength)[:7], corrupt(IMAGES[:7], name, strength)
    )


@pytest.mark.parametrize("name", ["shift", "rotation", "scaling", "noise", "elastic"])
def test_the_seed_decides_what_is_drawn(name):
    strength = CORRUPTIONS[name].strengths[-1]
    first = corrupt(IMAGES, name, strength, seed=1)
    np.testing.assert_array_equal(first, corrupt(IMAGES, name, strength, seed=1))
    assert (first != corrupt(IMAGES, name, strength, seed=2)).any()


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_shift_moves_the_center_of_mass_by_its_pixels_in_many_directions(pixels):
    moved = centers(corrupt(disc(), "shift", pixels)) - 13.5
    np.testing.assert_allclose(np.hypot(*moved.T), pixels, atol=0.05)
    assert len(np.unique(np.sign(moved), axis=0)) == 4


def test_a_rotation_turns_either_way_by_its_degrees():
    bar = np.zeros((40, 28, 28, 1), np.uint8)
    bar[:, 13:15, 6:22] = 255
    turned = corrupt(bar, "rotation", 30)[..., 0].astype(float)
    rows, columns = np.mgrid[:28, :28] - 13.5
    products = np.einsum("nhw,hw->n", turned, rows * columns)
    spread = np.einsum("nhw,hw->n", turned, columns**2 - rows**2)
    angles = np.degrees(np.arctan2(2 * products, spread) / 2)
    np.testing.assert_allclose(np.abs(angles), 30, atol=1)
    assert set(np.sign(angles)) == {-1, 1}


def test_scaling_makes_larger_or_smaller_by_its_percentage():
    before, after = disc().sum((1, 2, 3)), corrupt(disc(), "scaling", 20).sum((1, 2, 3))
    factors = np.sqrt(after / before)
    np.testing.assert_allclose(np.abs(factors - 1), 0.2, atol=0.02)
    assert factors.min() < 1 < factors.max()


def test_blur_keeps_the_light_and_widens_a_point_to_its_deviation():
    point = np.zeros((1, 28, 28, 1), np.uint8)
    point[0, 13, 13] = 255
    light = corrupt(point, "blur", 1.5)[0, ..., 0].astype(float)
    rows = np.arange(28) - 13
    variance = (light.sum(1) * rows**2).sum() / light.sum()
    assert np.sqrt(variance) == pytest.approx(1.5, rel=0.05)
    assert light.sum() == pytest.approx(255, rel=0.1)


def test_noise_is_gaussian_of_its_deviation_and_differs_between_images():
    gray = np.full((40, 28, 28, 1), 128, np.uint8)
    noisy = corrupt(gray, "noise", 10).astype(float) - 128
    assert noisy.std() == pytest.approx(25.5, rel=0.02)
    assert noisy.mean() == pytest.approx(0, abs=0.5)
    assert (noisy[0] != noisy[1]).any()


def test_lost_contrast_keeps_the_mean_and_narrows_the_range():
    dull = corrupt(disc(), "contrast", 75).astype(float)
    assert dull.mean() == pytest.approx(disc().mean(), abs=0.5)
    assert np.ptp(dull) == pytest.approx(np.ptp(disc()) / 4, abs=1)


def test_full_inversion_is_the_negative():
    np.testing.assert_array_equal(corrupt(IMAGES, "inversion", 100), 255 - IMAGES)


def test_elastic_bending_is_smooth_and_of_its_size():
    ramp = np.broadcast_to(4 * np.arange(28, dtype=np.uint8)[:, None], (28, 28))
    bent = corrupt(np.repeat(ramp[None, ..., None], 100, 0), "elastic", 1.0)[..., 0]
    # Away from the border a ramp shows the displacement itself.
    moves = (bent.astype(float) - ramp)[:, 8:20, 8:20] / 4
    assert moves.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(moves, axis=2)).max() < 1.5


def test_the_table_has_a_row_for_each_strength_and_begins_with_none(digits_network):
    rows = measure_robustness(digits_network, DIGITS.test, max_images=150, seed=5)
    expected = [("none", 0.0, "")]
    for name, corruption in CORRUPTIONS.items():
        expected += [(name, strength, corruption.unit) for strength in corruption.strengths]
    assert [(row.corruption, row.strength, row.unit) for row in rows] == expected
    assert {row.count for row in rows} == {150}
    sample = draw_sample(DIGITS.test, 150, seed=5)
    assert rows[0].accuracy == accuracy(digits_network, sample)


def accuracy(network, split):
    return mnistjax.evaluate(network, split).summary()["accuracy"]


def test_the_rows_are_accuracies_on_what_corrupt_gives(digits_network):
    split = draw_sample(DIGITS.test, 100)
    rows = measure_robustness(digits_network, split, seed=3)
    assert rows == measure_robustness(digits_network, split, seed=3)
    assert rows[0].accuracy == accuracy(digits_network, split)
    assert rows[0].count == len(split)
    for row in [rows[index] for index in (4, 9, -1)]:
        images = corrupt(split.images, row.corruption, row.strength, seed=3)
        changed = mnistjax.Split(images, split.labels)
        assert row.accuracy == accuracy(digits_network, changed)
    assert rows[0].accuracy > 0.8 > min(row.accuracy for row in rows)


def test_a_corruption_is_compiled_once_for_all_strengths_and_lengths():
    from mnistjax.evaluation.robustness import _jitted_corruption

    corrupt(IMAGES, "blur", 1)
    before = _jitted_corruption("blur")._cache_size()
    for strength, count in ((0.3, 120), (2, 7), (1.7, 0)):
        assert len(corrupt(IMAGES[:count], "blur", strength)) == count
    assert _jitted_corruption("blur")._cache_size() == before


def test_impossible_wishes_are_errors(digits_network):
    with pytest.raises(UnknownNameError, match="unknown corruption 'blurr': did you mean"):
        corrupt(IMAGES, "blurr", 1)
    with pytest.raises(ConfigError, match="max_images must be at least 1, found 0"):
        measure_robustness(digits_network, DIGITS.test, max_images=0)


@corruptions
def test_a_corruption_can_be_traced_for_float_images_of_any_shape(name):
    images = jax.ShapeDtypeStruct((4, 14, 12, 3), jnp.float32)
    changed = jax.eval_shape(CORRUPTIONS[name].function, images, np.float32(1), key=KEY)
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize(
    "name",
    [
        # Eager operations compile one by one: one corruption stands for all.
        pytest.param(name, marks=[] if name == "contrast" else pytest.mark.full)
        for name in CORRUPTIONS
    ],
)
def test_a_corruption_is_the_same_function_under_jit(name):
    images = (IMAGES[:4] / 255).astype(np.float32)
    function = CORRUPTIONS[name].function
    eager = function(jnp.asarray(images), jnp.float32(1), key=KEY)
    jitted = jax.jit(function)(images, np.float32(1), key=KEY)
    np.testing.assert_allclose(eager, jitted, atol=1e-5)

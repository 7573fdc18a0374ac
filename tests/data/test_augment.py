"""Augmentation: pure functions of a key, which keep what they promise to keep."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnistjax.data.augment import (
    compose,
    cutout,
    elastic,
    gaussian_kernel,
    random_affine,
    random_rotate,
    random_scale,
    random_shift,
    sample,
)

KEY = jax.random.key(7)
AUGMENTS = {
    "shift": partial(random_shift, pixels=3),
    "affine": partial(random_affine, pixels=2.0, degrees=15.0, scale=0.2),
    "rotate": partial(random_rotate, degrees=30.0),
    "scale": partial(random_scale, scale=0.2),
    "cutout": partial(cutout, size=5),
    "elastic": partial(elastic, pixels=1.5),
    "composed": compose(partial(random_shift, pixels=2), partial(cutout, size=4)),
}
IDENTITIES = {
    "shift": partial(random_shift, pixels=0),
    "affine": random_affine,
    "rotate": partial(random_rotate, degrees=0.0),
    "scale": partial(random_scale, scale=0.0),
    "cutout": partial(cutout, size=0),
    "elastic": partial(elastic, pixels=0.0),
    "composed": compose(),
}


def each_of(augments, *, by_default=None):
    """Parametrizes a test; what is not named in `by_default` is left to the full run."""
    names = augments if by_default is None else by_default
    return pytest.mark.parametrize(
        "augment",
        [
            pytest.param(augment, id=name, marks=[] if name in names else pytest.mark.full)
            for name, augment in augments.items()
        ],
    )


augments = each_of(AUGMENTS)
# A rotation and a change of scale are `random_affine` by other names.
DISTINCT = ("shift", "affine", "cutout", "elastic", "composed")


@cache
def jitted(augment):
    """One program for each shape; eagerly, every operation of an augmentation is its own."""
    return jax.jit(lambda images, key: augment(images, key=key))


def noise(count=16, height=16, width=14, channels=2):
    rng = np.random.default_rng(0)
    return rng.uniform(0.1, 1, (count, height, width, channels)).astype(np.float32)


@each_of(IDENTITIES, by_default=DISTINCT)
def test_without_strength_it_is_the_identity(augment):
    np.testing.assert_allclose(jitted(augment)(noise(), KEY), noise(), atol=1e-5)


@augments
def test_shape_dtype_and_range_stay(augment):
    images = jitted(augment)(noise(), KEY)
    assert images.shape == noise().shape
    assert images.dtype == jnp.float32
    values = np.asarray(images)
    assert (values >= 0).all()
    assert (values <= 1 + 1e-6).all()
    assert (values != noise()).any()


@augments
def test_the_key_alone_decides(augment):
    images = np.asarray(jitted(augment)(noise(), KEY))
    np.testing.assert_array_equal(images, jitted(augment)(noise(), jax.random.key(7)))
    assert (images != np.asarray(jitted(augment)(noise(), jax.random.key(8)))).any()


@augments
def test_every_image_is_changed_in_its_own_way(augment):
    images = jitted(augment)(np.repeat(noise(1), 16, axis=0), KEY)
    assert len(np.unique(np.asarray(images), axis=0)) > 8


@each_of(AUGMENTS, by_default=["shift"])  # Eager operations compile one by one.
def test_jit_changes_nothing(augment):
    expected = augment(jnp.asarray(noise()), key=KEY)
    np.testing.assert_allclose(jitted(augment)(noise(), KEY), expected, atol=1e-5)


@each_of(AUGMENTS, by_default=DISTINCT)
def test_vmap_changes_nothing(augment):
    expected = jitted(augment)(noise(), KEY)

    @jax.jit
    @jax.vmap
    def members(seed):
        return augment(jnp.asarray(noise()), key=jax.random.key(seed))

    np.testing.assert_allclose(members(np.array([8, 7]))[1], expected, atol=1e-5)


def test_a_shift_moves_pixels_and_changes_none():
    images = np.pad(noise(32, 6, 5, 1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    shifted = np.asarray(jitted(AUGMENTS["shift"])(images, KEY))
    np.testing.assert_array_equal(
        np.sort(shifted.reshape(32, -1), axis=1), np.sort(images.reshape(32, -1), axis=1)
    )
    shifts = set()
    for image, old in zip(shifted, images, strict=True):
        (found,) = [
            (row, column)
            for row in range(-3, 4)
            for column in range(-3, 4)
            if (np.roll(old, (row, column), (0, 1)) == image).all()
        ]
        shifts.add(found)
    assert len(shifts) > 16
    assert {abs(row) for row, _ in shifts} == {abs(column) for _, column in shifts} == {0, 1, 2, 3}


def test_what_is_shifted_out_is_gone_and_zeros_come_in():
    images = np.ones((64, 6, 6, 1), np.float32)
    shifted = np.asarray(jitted(partial(random_shift, pixels=6))(images, KEY))
    assert set(np.unique(shifted)) == {0.0, 1.0}
    assert shifted.sum((1, 2, 3)).min() < 12


def quarter_turns(size, turns):
    """Where each pixel of an image turned by `turns` quarters comes from."""
    grid = np.stack(np.mgrid[:size, :size], axis=-1).astype(np.float32)
    return np.rot90(grid, turns)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_sampling_at_turned_positions_is_rot90(turns):
    image = noise(1, 9, 9, 2)[0]
    turned = jax.jit(sample)(image, quarter_turns(9, turns))
    np.testing.assert_allclose(turned, np.rot90(image, turns), atol=1e-6)


def test_sampling_is_bilinear_inside_and_zero_outside():
    image = np.array([[[0], [1]], [[2], [3]]], np.float32)
    positions = np.array([[[0.5, 0.5], [0.0, 0.25], [5.0, 0.0], [-2.0, 1.0]]], np.float32)
    found = np.asarray(jax.jit(sample)(image, positions))
    np.testing.assert_allclose(found[0, :, 0], [1.5, 0.25, 0, 0], atol=1e-6)


def largest(key, shape, dtype, minval, maxval):
    """Stands for `jax.random.uniform`: every draw takes its largest value."""
    del key, minval
    return jnp.full(shape, maxval, dtype)


def test_a_rotation_by_a_quarter_is_rot90(monkeypatch):
    """With the draw fixed to its largest value, the whole of the affine map is checked."""
    monkeypatch.setattr(jax.random, "uniform", largest)
    images = noise(2, 9, 9, 1)
    rotate = jax.jit(lambda images, degrees: random_rotate(images, key=KEY, degrees=degrees))
    for degrees, turns in [(90.0, 1), (-90.0, 3), (180.0, 2)]:
        turned = np.asarray(rotate(images, degrees))
        expected = np.rot90(images, turns, axes=(1, 2))
        # Either sense is a rotation; half a turn has but one.
        other = np.rot90(images, -turns, axes=(1, 2))
        assert min(np.abs(turned - expected).max(), np.abs(turned - other).max()) < 1e-4


def test_a_larger_scale_enlarges_around_the_center(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", largest)
    square = np.zeros((1, 21, 21, 1), np.float32)
    square[:, 8:13, 8:13] = 1
    scale = jax.jit(lambda images: random_scale(images, key=KEY, scale=0.8))
    grown = np.asarray(scale(square))[0, :, :, 0]
    np.testing.assert_allclose(grown.sum(), 25 * 1.8**2, rtol=0.1)
    np.testing.assert_allclose(grown, grown[::-1], atol=1e-5)
    np.testing.assert_allclose(grown, grown.T, atol=1e-5)


def test_a_rotation_keeps_the_center_and_the_amount_of_ink():
    y, x = np.mgrid[:21, :21] - 10
    blob = np.exp(-(y**2 / 12 + x**2 / 4)).astype(np.float32)[None, :, :, None]
    rotate = jitted(partial(random_rotate, degrees=180.0))
    turned = np.asarray(rotate(np.repeat(blob, 8, 0), KEY))
    np.testing.assert_allclose(turned.sum((1, 2, 3)), blob.sum(), rtol=0.01)
    np.testing.assert_allclose(turned[:, 10, 10, 0], 1.0, atol=1e-4)


JITTED_CUTOUT = jax.jit(cutout)  # the size is traced, so that one program serves every size


@pytest.mark.parametrize("size", [1, 4, 5, 14])
def test_cutout_blanks_a_square_and_nothing_else(size):
    images = noise(64)
    blanked = np.asarray(JITTED_CUTOUT(images, key=KEY, size=size))
    holes = (blanked == 0).all(-1)
    np.testing.assert_array_equal(blanked[~holes], images[~holes])
    areas = holes.sum((1, 2))
    assert areas.min() >= 1
    assert areas.max() <= size**2
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        assert np.ptp(rows) < size
        assert np.ptp(columns) < size
    if size <= 5:
        assert areas.max() == size**2


@jax.jit
def bend_coordinates(pixels):
    """Of images that hold their own coordinates, the change is the displacement."""
    images = jnp.asarray(np.tile(np.mgrid[:40, :40].transpose(1, 2, 0), (64, 1, 1, 1)), jnp.float32)
    return (elastic(images, key=KEY, pixels=pixels) - images)[:, 12:-12, 12:-12]


@pytest.mark.parametrize("pixels", [0.5, 2.0])
def test_an_elastic_displacement_has_the_asked_size(pixels):
    inner = np.asarray(bend_coordinates(pixels))
    for axis in range(2):
        np.testing.assert_allclose(np.sqrt(np.mean(inner[..., axis] ** 2)), pixels, rtol=0.1)
    assert abs(inner.mean()) < 0.2 * pixels


def test_an_elastic_displacement_is_smooth():
    inner = np.asarray(bend_coordinates(1.0))
    assert np.sqrt(np.mean(np.diff(inner, axis=1) ** 2)) < 0.35


def test_composition_is_in_order_and_each_has_its_own_key():
    keys = []

    def record(images, *, key):
        keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return 2 * images + 1

    np.testing.assert_allclose(compose(record, record)(np.ones((1, 2, 2, 1)), key=KEY), 7.0)
    assert len(set(keys)) == 2
    halved = compose(record, lambda images, *, key: images / 2)
    np.testing.assert_allclose(halved(np.ones((1, 2, 2, 1)), key=KEY), 1.5)


def test_no_two_draws_share_a_key_and_no_drawn_key_is_split(monkeypatch):
    """`split(key)[i]` is `fold_in(key, i)`, so a key that also draws could draw twice."""
    names = {"uniform": "drawn", "normal": "drawn", "randint": "drawn"}
    names |= {"split": "split", "fold_in": "split"}
    used = {"drawn": [], "split": []}

    def record(name, keys):
        function = getattr(jax.random, name)

        def recorded(key, *args, **kwargs):
            keys.append(jax.random.key_data(key))
            return function(key, *args, **kwargs)

        monkeypatch.setattr(jax.random, name, recorded)

    for name, use in names.items():
        record(name, used[use])

    @jax.jit
    def used_keys(images, key):
        compose(*AUGMENTS.values())(images, key=key)
        return used

    found = jax.device_get(used_keys(noise(), KEY))
    drawn, split = ([key.tobytes() for key in found[use]] for use in ("drawn", "split"))
    assert len(drawn) == len(set(drawn)) == 1 + 3 + 3 + 3 + 2 + 1 + (1 + 2)
    assert not set(drawn) & set(split)


@each_of(AUGMENTS, by_default=DISTINCT)
def test_with_64_bits_images_stay_float32_and_draws_the_same(augment):
    expected = jitted(augment)(noise(), KEY)
    with jax.enable_x64(True):
        found = jitted(augment)(noise(), KEY)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("norm", [1, 2])
def test_a_gaussian_kernel_has_rows_of_unit_norm_and_the_asked_width(norm):
    jitted_kernel = jax.jit(gaussian_kernel, static_argnums=0, static_argnames="norm")
    kernel = np.asarray(jitted_kernel(41, 2.5, norm=norm))
    assert kernel.dtype == np.float32
    np.testing.assert_allclose((kernel**norm).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], rtol=1e-5)
    middle = kernel[20] / kernel[20].sum()
    np.testing.assert_allclose(middle @ np.arange(41), 20, rtol=1e-5)
    np.testing.assert_allclose(middle @ (np.arange(41) - 20) ** 2, 2.5**2, rtol=1e-4)

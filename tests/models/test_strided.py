"""A strided convolution is lax's own, in value and in gradient; and the network that has one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mnistjax.errors import ConfigError
from mnistjax.models import MODELS, create_model
from mnistjax.models.ops import conv, conv_pool

NHWC = ("NHWC", "HWIO", "NHWC")


def lax_conv(x, kernel, *, padding, stride):
    """Every `stride`-th row and column of the convolution with stride 1."""
    whole = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NHWC)
    return whole[:, ::stride, ::stride]


def randoms(seed, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


# Each example compiles two programs.
@settings(max_examples=12)
@given(
    sizes=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(2, 4),
    padding=st.sampled_from(["SAME", "VALID"]),
)
def test_a_strided_convolution_is_that_of_lax(sizes, kernel, channels, stride, padding):
    x, weights = randoms(0, (2, *sizes, channels[0]), (*kernel, *channels))

    def summed(function):
        def loss(x, weights):
            y = function(x, weights, padding=padding, stride=stride)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    for actual, expected in zip(
        jax.tree.leaves(summed(conv)(x, weights)),
        jax.tree.leaves(summed(lax_conv)(x, weights)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pool", [1, 2])
def test_pooling_follows_a_strided_convolution(pool):
    x, weights = randoms(1, (2, 11, 13, 2), (3, 3, 2, 4))
    expected = lax_conv(x, weights, padding="VALID", stride=2)
    if pool == 2:
        sides = (1, 2, 2, 1)
        expected = lax.reduce_window(expected, -jnp.inf, lax.max, sides, sides, "VALID")
    actual = jax.jit(lambda x, k: conv_pool(x, k, padding="VALID", stride=2, pool=pool))(x, weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_fastest_network_sees_the_middle_of_the_image():
    model = create_model("speed")
    (images,) = randoms(2, (3, 28, 28, 1))
    variables = model.init(jax.random.key(0), images)
    assert variables["params"]["Stage_0"]["kernel"].shape == (6, 6, 1, 16)
    logits, _ = jax.jit(model.apply)(variables, images)
    border = np.pad(np.zeros((24, 24), bool), 2, constant_values=True)[..., None]
    changed, _ = jax.jit(model.apply)(variables, np.where(border, 9.0, images))
    np.testing.assert_array_equal(changed, logits)
    assert jax.eval_shape(model.init, jax.random.key(0), images[:, 8:20, 8:20])  # Used whole.
    changed, _ = jax.jit(model.apply)(variables, np.where(border, images, 9.0))
    assert np.all(np.any(changed != logits, axis=-1))


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_that_is_not_positive_is_refused(stride):
    x, weights = randoms(3, (1, 5, 5, 1), (3, 3, 1, 1))
    for function in (conv, conv_pool):
        with pytest.raises(ValueError, match=f"at least 1 pixel, found {stride}"):
            function(x, weights, padding="VALID", stride=stride)


def test_images_that_are_too_small_are_refused():
    model = MODELS["speed"]()
    with pytest.raises((ConfigError, ValueError), match=r"too small|as large as the kernel"):
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)

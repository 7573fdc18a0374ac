"""Layers in bfloat16 lose no precision in the sums of their gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnistjax.models.cnn import Stage
from mnistjax.models.layers import Dense, add_bias

ROWS = 4096  # A sum of ones in bfloat16 stops at 256.


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(Dense(3, dtype=jnp.bfloat16), (ROWS, 2)), (Stage(3, 1, dtype=jnp.bfloat16), (4, 32, 32, 2))],
)
def test_the_gradient_of_a_bias_is_summed_in_float32(layer, shape):
    images = jnp.ones(shape, jnp.bfloat16)
    options = {"train": True} if isinstance(layer, Stage) else {}
    variables = layer.init(jax.random.key(0), images, **options)
    variables = jax.tree.map(lambda leaf: jnp.abs(leaf) + 1, variables)  # No ReLU is at zero.

    def total(variables):
        out = layer.apply(variables, images, **options)
        assert out.dtype == jnp.bfloat16
        return jnp.sum(out.astype(jnp.float32))

    gradient = jax.grad(total)(variables)["params"]["bias"]
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, ROWS)


def test_a_dense_layer_is_flax_s_own():
    inputs = jax.random.normal(jax.random.key(1), (5, 4))
    ours, flax = Dense(3), nn.Dense(3)
    variables = ours.init(jax.random.key(0), inputs)
    for name, leaf in flax.init(jax.random.key(0), inputs)["params"].items():
        np.testing.assert_array_equal(variables["params"][name], leaf)
    variables["params"]["bias"] += jnp.arange(3.0)
    np.testing.assert_array_equal(ours.apply(variables, inputs), flax.apply(variables, inputs))


def test_a_bias_is_added_along_the_last_axis():
    x, bias = jnp.zeros((2, 1, 3), jnp.bfloat16), jnp.arange(3.0)
    added = add_bias(x, bias)
    assert added.dtype == jnp.bfloat16
    assert added.tolist() == [[[0, 1, 2]], [[0, 1, 2]]]

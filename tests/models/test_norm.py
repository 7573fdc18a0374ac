"""Batch normalisation: against Flax's own, and exact under masks and over devices."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from mnistjax import BatchNorm

SHAPES = [(12, 5), (12, 3, 4, 5)]


def make(shape, seed=0):
    """Activations, and variables that are not those of the start."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(1.5, 2.0, shape), jnp.float32)

    def vector(low, high):
        return jnp.asarray(rng.uniform(low, high, shape[-1]), jnp.float32)

    variables = {
        "params": {"scale": vector(-2, 2), "bias": vector(-1, 1)},
        "batch_stats": {"mean": vector(-1, 1), "var": vector(0.5, 2)},
    }
    return x, variables


def normalise(variables, x, *, train=True, mask=None, axis_name=None):
    return BatchNorm().apply(
        variables, x, train=train, mask=mask, axis_name=axis_name, mutable=["batch_stats"]
    )


def flax_normalise(variables, x, *, train=True):
    norm = nn.BatchNorm(momentum=0.99, epsilon=1e-3)
    return norm.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])


def value_and_grads(function, variables, x):
    """The output, the new statistics, and the gradient of a loss that weighs all outputs unlike."""

    def loss(params, x):
        y, stats = function({**variables, "params": params}, x)
        weights = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return jnp.sum(weights * jnp.square(y)), (y, stats)

    grads, aux = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)
    return aux, grads


def assert_close(actual, expected, rtol=1e-4, atol=1e-4):
    compare = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(compare, actual, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_mask_it_is_flax_s_own(shape):
    x, variables = make(shape)
    ours = value_and_grads(normalise, variables, x)
    assert_close(ours, value_and_grads(flax_normalise, variables, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_takes_the_running_statistics_and_keeps_them(shape):
    x, variables = make(shape)
    y, updates = normalise(variables, x, train=False)
    assert_close(y, flax_normalise(variables, x, train=False)[0])
    stats = updates.get("batch_stats", variables["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


def test_running_statistics_move_a_hundredth_of_the_way():
    x, variables = make((12, 5))
    _, updates = normalise(variables, x)
    for name, now in (("mean", np.mean(x, 0)), ("var", np.var(x, 0))):
        expected = 0.99 * variables["batch_stats"][name] + 0.01 * now
        np.testing.assert_allclose(updates["batch_stats"][name], expected, rtol=1e-5)


@settings(max_examples=6)
@given(mask=st.lists(st.booleans(), min_size=12, max_size=12).filter(any))
def test_masked_rows_are_as_if_they_were_not_there(mask):
    x, variables = make((12, 3, 4, 5))
    mask = np.array(mask)
    # What stands in the masked rows must not matter.
    x = jnp.where(mask[:, None, None, None], x, 1e3)

    def masked(variables, x):
        y, stats = normalise(variables, x, mask=jnp.asarray(mask))
        return y[mask], stats

    outputs, (param_grads, x_grads) = value_and_grads(masked, variables, x)
    expected, (expected_params, expected_x) = value_and_grads(normalise, variables, x[mask])
    assert_close(outputs, expected, rtol=1e-3, atol=1e-3)
    assert_close(param_grads, expected_params, rtol=1e-3, atol=1e-2)
    assert_close(x_grads[mask], expected_x, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(x_grads[~mask], 0)


@pytest.mark.parametrize("kept", [[3, 3, 3, 3], [3, 2, 1, 0], [0, 0, 0, 1]])
def test_devices_with_uneven_masks_are_one_device(kept):
    x, variables = make((12, 3, 4, 5))
    mask = jnp.concatenate([jnp.arange(3) < count for count in kept])
    mesh = Mesh(np.array(jax.devices()[:4]), ("devices",))
    batch = PartitionSpec("devices")
    divided = jax.shard_map(
        lambda variables, x, mask: normalise(variables, x, mask=mask, axis_name="devices"),
        mesh=mesh,
        in_specs=(PartitionSpec(), batch, batch),
        out_specs=(batch, PartitionSpec()),
    )
    outputs, stats = jax.device_get(jax.jit(divided)(variables, x, mask))
    expected, expected_stats = normalise(variables, x, mask=mask)
    kept_rows = np.asarray(mask)
    assert_close(outputs[kept_rows], np.asarray(expected)[kept_rows])
    assert_close(stats, expected_stats)


def test_the_statistics_stay_float32_where_the_output_is_not():
    x, variables = make((12, 5))
    y, updates = BatchNorm(dtype=jnp.bfloat16).apply(
        variables, x.astype(jnp.bfloat16), train=True, mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
    np.testing.assert_allclose(
        y.astype(jnp.float32), normalise(variables, x)[0], rtol=0.05, atol=0.05
    )


def test_a_constant_channel_is_not_divided_by_zero():
    _, variables = make((12, 5))
    y, _ = normalise(variables, jnp.full((12, 5), 1e4))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("train", [True, False])
def test_the_bias_of_the_layer_before_may_be_given_apart(train):
    x, variables = make((12, 3, 4, 5))
    input_bias = jnp.linspace(-2, 2, 5)

    def apart(input_bias):
        outputs = BatchNorm().apply(
            variables, x, train=train, input_bias=input_bias, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.cos(jnp.arange(60)).reshape(3, 4, 5)[None] * outputs[0]), outputs

    gradient, outputs = jax.grad(apart, has_aux=True)(input_bias)
    assert_close(outputs, normalise(variables, x + input_bias[None, None, None], train=train))
    # The batch's own statistics take it out again: to the last bit, not but for rounding.
    assert (gradient == 0).all() == train


def test_a_batch_that_is_all_padding_changes_nothing():
    x, variables = make(SHAPES[1])
    y, updates = normalise(variables, x, mask=jnp.zeros(len(x), bool))
    assert jnp.all(jnp.isfinite(y))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])

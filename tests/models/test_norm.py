"""Batch normalization: against Flax's own, and exact under masks and over devices."""

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

from mnistjax.models import BatchNorm

SHAPES = [(12, 5), (12, 3, 4, 5)]


def make(shape, seed=0):
    """Activations, and variables that are not those of the start."""
    rng = np.random.default_rng(seed)
    x = rng.normal(1.5, 2.0, shape).astype(np.float32)

    def vector(low, high):
        return rng.uniform(low, high, shape[-1]).astype(np.float32)

    variables = {
        "params": {"scale": vector(-2, 2), "bias": vector(-1, 1)},
        "batch_stats": {"mean": vector(-1, 1), "var": vector(0.5, 2)},
    }
    return x, variables


def normalize(variables, x, *, train=True, mask=None, **options):
    return BatchNorm().apply(
        variables, x, train=train, mask=mask, mutable=["batch_stats"], **options
    )


normalize_jit = jax.jit(normalize, static_argnames=("train", "axis_name"))


@functools.partial(jax.jit, static_argnames="train")
def normalize_in_parts(variables, x, *, train, mask=None):
    """The four pixels of each 2x2 window apart, and put together again."""

    def apply(norm):
        parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        normalized = [*map(norm.normalizer(parts, train=train, mask=mask), parts)]
        rows = [jnp.stack(pair, 3) for pair in (normalized[:2], normalized[2:])]
        return jnp.stack(rows, 2).reshape(x.shape)

    return nn.apply(apply, BatchNorm(), mutable=["batch_stats"])(variables)


@functools.partial(jax.jit, static_argnames="train")
def flax_normalize(variables, x, *, train=True):
    norm = nn.BatchNorm(momentum=0.99, epsilon=1e-3)
    return norm.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])


@functools.partial(jax.jit, static_argnames="function")
def value_and_grads(function, variables, x, *args):
    """The output, the new statistics, and the gradient of a loss that weighs all outputs unlike."""

    def loss(params, x):
        y, stats = function({**variables, "params": params}, x, *args)
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
    ours = value_and_grads(normalize, variables, x)
    assert_close(ours, value_and_grads(flax_normalize, variables, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_takes_the_running_statistics_and_keeps_them(shape):
    x, variables = make(shape)
    y, updates = normalize_jit(variables, x, train=False)
    assert_close(y, flax_normalize(variables, x, train=False)[0])
    stats = updates.get("batch_stats", variables["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


@pytest.mark.parametrize("train", [True, False])
def test_the_statistics_of_parts_are_those_of_all_of_them_together(train):
    x, variables = make((12, 4, 6, 5))
    mask = np.arange(12) < 9
    parts = normalize_in_parts(variables, x, train=train, mask=mask)
    assert_close(parts, normalize_jit(variables, x, train=train, mask=mask), rtol=1e-5, atol=1e-5)


def test_running_statistics_move_a_hundredth_of_the_way():
    x, variables = make((12, 5))
    _, updates = normalize_jit(variables, x)
    for name, now in (("mean", np.mean(x, 0)), ("var", np.var(x, 0))):
        expected = 0.99 * variables["batch_stats"][name] + 0.01 * now
        np.testing.assert_allclose(updates["batch_stats"][name], expected, rtol=1e-5)


def normalize_kept(variables, x, kept):
    """Normalizes under a mask of the rows `kept`, int [K], and returns these alone."""
    mask = jnp.zeros(len(x), bool).at[kept].set(True)
    y, stats = normalize(variables, x, mask=mask)
    return y[kept], stats


# Two numbers of rows, so that there are but two programs to compile.
@settings(max_examples=12)
@given(order=st.permutations(range(12)), count=st.sampled_from([1, 7]))
def test_masked_rows_are_as_if_they_were_not_there(order, count):
    x, variables = make((12, 3, 4, 5))
    kept, masked = np.array(order[:count]), np.array(order[count:])
    # What stands in the masked rows must not matter.
    x[masked] = 1e3
    found = value_and_grads(normalize_kept, variables, x, kept)
    outputs, (param_grads, x_grads) = jax.device_get(found)
    expected, (expected_params, expected_x) = value_and_grads(normalize, variables, x[kept])
    assert_close(outputs, expected, rtol=1e-3, atol=1e-3)
    assert_close(param_grads, expected_params, rtol=1e-3, atol=1e-2)
    assert_close(x_grads[kept], expected_x, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(x_grads[masked], 0)


@functools.cache
def divided():
    """`(variables, x, mask) -> (outputs, statistics)` on four devices."""
    batch = PartitionSpec("devices")
    mapped = jax.shard_map(
        lambda variables, x, mask: normalize(variables, x, mask=mask, axis_name="devices"),
        mesh=Mesh(np.array(jax.devices()[:4]), ("devices",)),
        in_specs=(PartitionSpec(), batch, batch),
        out_specs=(batch, PartitionSpec()),
    )
    return jax.jit(mapped)


@pytest.mark.parametrize("kept", [[3, 3, 3, 3], [3, 2, 1, 0], [0, 0, 0, 1]])
def test_devices_with_uneven_masks_are_one_device(kept):
    x, variables = make((12, 3, 4, 5))
    mask = np.concatenate([np.arange(3) < count for count in kept])
    outputs, stats = jax.device_get(divided()(variables, x, mask))
    expected, expected_stats = normalize_jit(variables, x, mask=mask)
    assert_close(outputs[mask], np.asarray(expected)[mask])
    assert_close(stats, expected_stats)


def test_the_statistics_stay_float32_where_the_output_is_not():
    x, variables = make((12, 5))
    norm = BatchNorm(dtype=jnp.bfloat16)
    apply = jax.jit(functools.partial(norm.apply, train=True, mutable=["batch_stats"]))
    y, updates = apply(variables, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
    np.testing.assert_allclose(np.float32(y), normalize_jit(variables, x)[0], rtol=0.05, atol=0.05)


def test_a_constant_channel_is_not_divided_by_zero():
    _, variables = make((12, 5))
    y, _ = normalize_jit(variables, np.full((12, 5), 1e4, np.float32))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("train", [True, False])
def test_the_bias_of_the_layer_before_may_be_given_apart(train):
    x, variables = make((12, 3, 4, 5))
    input_bias = np.linspace(-2, 2, 5, dtype=np.float32)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def apart(input_bias):
        outputs = normalize(variables, x, train=train, input_bias=input_bias)
        return jnp.sum(jnp.cos(jnp.arange(60)).reshape(3, 4, 5)[None] * outputs[0]), outputs

    gradient, outputs = apart(input_bias)
    assert_close(outputs, normalize_jit(variables, x + input_bias, train=train))
    # The batch's own statistics cancel it exactly, not only up to rounding.
    assert (np.asarray(gradient) == 0).all() == train


def test_a_batch_that_is_all_padding_changes_nothing():
    x, variables = make(SHAPES[1])
    y, updates = normalize_jit(variables, x, mask=np.zeros(len(x), bool))
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])

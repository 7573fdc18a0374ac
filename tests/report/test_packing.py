"""Weights that are packed into a page: how far they are rounded, and which are refused."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import make_network

import mnistjax
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.report import choose_dtype, packing, render_draw_page, round_weights

DIGITS = mnistjax.load_dataset("digits")


def unpacked(packed):
    """What `network.js` makes of packed weights, in NumPy."""
    code = {"float32": "<f4", "float16": "<f2", "int8": "<i1"}[packed["dtype"]]
    numbers = np.frombuffer(base64.b64decode(packed["data"]), code).astype(np.float32)
    if "scale" not in packed:
        return numbers
    scale = np.frombuffer(base64.b64decode(packed["scale"]), "<f4")
    return (numbers.reshape(-1, len(scale)) * scale).ravel()


@given(
    seed=st.integers(0, 1000),
    size=st.floats(1e-3, 1e3),
    shape=st.sampled_from([(7, 3), (3, 3, 2, 5), (1, 1)]),
    dtype=st.sampled_from(packing.DTYPES),
)
def test_rounded_weights_are_what_is_unpacked_and_near_the_exact_ones(seed, size, shape, dtype):
    weights = np.random.default_rng(seed).normal(0, size, shape).astype(np.float32)
    rounded = packing._rounded(weights, dtype)
    np.testing.assert_array_equal(unpacked(packing._pack(weights, dtype)), rounded.ravel())
    largest = np.abs(weights).reshape(-1, shape[-1]).max(0)
    limits = {
        "float32": np.zeros_like(weights),
        "float16": np.maximum(np.abs(weights) * 2**-11, 2**-24),
        "int8": np.broadcast_to(largest / 127 * 0.501, shape),
    }
    assert (np.abs(rounded - weights) <= limits[dtype]).all()


def test_a_channel_of_zeros_stays_zero():
    weights = np.zeros((4, 3), np.float32)
    weights[:, 1] = [1, -1, 0.5, 0]
    rounded = packing._rounded(weights, "int8")
    np.testing.assert_array_equal(rounded[:, [0, 2]], 0)
    np.testing.assert_allclose(rounded[:, 1], weights[:, 1], atol=0.004)


@pytest.mark.parametrize("name", ["mlp-50-50", "cnn-bn"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 0.02)])
def test_a_network_of_rounded_weights_computes_nearly_the_same(name, dtype, tolerance):
    network = make_network(name)
    exact, rounded = (
        mnistjax.predict_logits(one, DIGITS.test.images[:8])
        for one in (network, round_weights(network, dtype))
    )
    np.testing.assert_allclose(rounded, exact, rtol=tolerance, atol=tolerance)


def test_int8_costs_little_accuracy(digits_network):
    before, after = (
        mnistjax.evaluate(network, DIGITS.test).summary()["accuracy"]
        for network in (digits_network, round_weights(digits_network, "int8"))
    )
    assert before > 0.9
    assert abs(after - before) < 0.01


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("softmax", "float32"), ("cnn", "float32"), ("mlp", "float16"), ("cnn-bn", "int8")],
)
def test_larger_networks_are_rounded_more(name, dtype):
    assert choose_dtype(make_network(name)) == dtype


def test_weights_that_a_dtype_cannot_hold_are_refused():
    network = make_network("softmax")
    params = network.variables["params"]["Dense_0"]
    for value, dtype, match in (
        (1e5, "float16", r"expected weights that float16 can hold, found one of 100000"),
        (np.inf, "int8", r"expected weights that int8 can hold, found one of inf"),
        (np.nan, "float32", r"expected weights that float32 can hold, found one of nan"),
    ):
        kernel = np.array(params["kernel"])
        kernel[3, 2] = value
        changed = {"params": {"Dense_0": {**params, "kernel": kernel}}, "batch_stats": {}}
        large = dataclasses.replace(network, variables=changed)
        for use in (round_weights, lambda network, dtype: render_draw_page(network, dtype=dtype)):
            with pytest.raises(ConfigError, match=match):
                use(large, dtype)
    with pytest.raises(UnknownNameError, match="unknown dtype 'float8': did you mean 'float32'"):
        render_draw_page(network, dtype="float8")

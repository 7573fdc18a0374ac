"""The fast convolution and pooling are lax's own, in value and in every derivative."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from mnistjax.models.ops import (
    conv,
    conv_general_dilated,
    conv_pool,
    conv_windows,
    max_pool,
    max_windows,
)

NHWC = ("NHWC", "HWIO", "NHWC")
# One shape for each road: 3x3 with channels to sum over, 3x3 of one channel, any other.
ROADS = {"winograd": (3, 8), "direct": (3, 1), "im2col": (5, 2)}


def lax_conv(x, kernel, *, padding):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NHWC)


def lax_pool(x, window=2):
    size = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, size, size, "VALID")


def lax_conv_pool(x, kernel, *, padding):
    return lax_pool(lax_conv(x, kernel, padding=padding))


def windows_pool(x, kernel, *, padding):
    return max_windows(conv_windows(x, kernel, padding=padding))


def randoms(seed, *shapes, dtype=jnp.float32):
    generator = np.random.default_rng(seed)
    return [jnp.asarray(generator.standard_normal(shape), dtype) for shape in shapes]


@functools.partial(jax.jit, static_argnames="f")
def value_and_gradients(f, *args):
    """The value, and the gradients of its sum weighted unevenly."""
    value, pull = jax.vjp(f, *args)
    weights = jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
    return value, pull(weights.astype(value.dtype))


def assert_close(actual, expected, tolerance=2e-5):
    """Equal to `tolerance` of the largest entry, for every leaf; shapes and dtypes too."""
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert [(a.shape, a.dtype) for a in actual] == [(e.shape, e.dtype) for e in expected]
    for a, e in zip(actual, expected, strict=True):
        exact = np.asarray(e, np.float64)
        limit = tolerance * (1 + np.abs(exact).max(initial=0))
        np.testing.assert_allclose(np.asarray(a, np.float64), exact, rtol=0, atol=limit)


@st.composite
def convolutions(draw):
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 4), (3, 1), (2, 2)]))
    batch, h, w = draw(st.sampled_from([1, 2, 5])), draw(st.integers(5, 9)), draw(st.integers(5, 9))
    channels, features = draw(st.sampled_from([1, 3, 8, 16])), draw(st.sampled_from([1, 4]))
    return (batch, h, w, channels), (*kernel, channels, features)


@settings(max_examples=16)
@given(convolutions(), st.sampled_from(["SAME", "VALID"]), st.integers(0, 9))
@example(((3, 7, 8, 8), (3, 3, 8, 4)), "SAME", 0)
@example(((3, 8, 7, 8), (3, 3, 8, 4)), "VALID", 0)
@example(((2, 6, 7, 2), (2, 4, 2, 3)), "SAME", 0)
def test_conv_is_that_of_lax(shapes, padding, seed):
    x, kernel = randoms(seed, *shapes)
    ours = value_and_gradients(functools.partial(conv, padding=padding), x, kernel)
    theirs = value_and_gradients(functools.partial(lax_conv, padding=padding), x, kernel)
    assert_close(ours, theirs)


@settings(max_examples=8)
@given(convolutions(), st.sampled_from(["SAME", "VALID"]), st.integers(0, 9))
@example(((3, 13, 13, 8), (3, 3, 8, 4)), "VALID", 0)
@example(((2, 7, 8, 8), (3, 3, 8, 4)), "SAME", 0)
def test_conv_pool_is_pooled_convolution(shapes, padding, seed):
    x, kernel = randoms(seed, *shapes)
    ours = value_and_gradients(functools.partial(conv_pool, padding=padding), x, kernel)
    theirs = value_and_gradients(functools.partial(lax_conv_pool, padding=padding), x, kernel)
    assert_close(ours, theirs)


@settings(max_examples=8)
@given(
    st.sampled_from([1, 2, 3]),
    st.integers(3, 8),
    st.integers(3, 8),
    st.integers(0, 9),
    st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_max_pool_is_that_of_lax_also_in_ties(window, h, w, seed, dtype):
    # Few distinct values: nearly every window has a tie, for which the first entry is chosen.
    x = jnp.asarray(np.random.default_rng(seed).integers(0, 3, (2, h, w, 3)), dtype)
    ours = value_and_gradients(functools.partial(max_pool, window=window), x)
    theirs = value_and_gradients(functools.partial(lax_pool, window=window), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("road", "dtype", "tolerance"),
    [
        ("winograd", jnp.float64, 1e-13),
        ("winograd", jnp.bfloat16, 2e-2),
        ("direct", jnp.bfloat16, 2e-2),
    ],
)
def test_other_dtypes(road, dtype, tolerance):
    size, channels = ROADS[road]
    with jax.enable_x64(True):
        x, kernel = randoms(1, (2, 8, 8, channels), (size, size, channels, 4), dtype=dtype)
        ours = value_and_gradients(functools.partial(conv, padding="SAME"), x, kernel)
        wide = x.astype(jnp.float64), kernel.astype(jnp.float64)
        exact = value_and_gradients(functools.partial(lax_conv, padding="SAME"), *wide)
        assert {a.dtype for a in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
        assert_close(jax.tree.map(lambda a: a.astype(jnp.float64), ours), exact, tolerance)


def problem(road, batch=4):
    size, channels = ROADS[road]
    return randoms(0, (batch, 9, 8, channels), (size, size, channels, 4))


OPS = {conv: lax_conv, conv_pool: lax_conv_pool, windows_pool: lax_conv_pool}


def loss_of(op):
    """A smooth scalar of an op, whose second derivatives mix images and kernel."""
    return lambda x, kernel: jnp.sum(jnp.tanh(op(x, kernel, padding="SAME")))


@pytest.mark.parametrize(("ours", "theirs"), OPS.items())
@pytest.mark.parametrize("road", ROADS)
def test_forward_mode_and_hessian_vector_product(road, ours, theirs):
    x, kernel = problem(road)
    tangents = randoms(5, x.shape, kernel.shape)

    @functools.partial(jax.jit, static_argnames="op")
    def derivatives(op, point, tangents):
        f = loss_of(op)
        return jax.jvp(f, point, tangents), jax.jvp(jax.grad(f, (0, 1)), point, tangents)

    args = ((x, kernel), tuple(tangents))
    assert_close(derivatives(ours, *args), derivatives(theirs, *args), 1e-4)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("road", ROADS)
def test_vmap_over_images_and_kernels_is_a_loop(road, op):
    (x, kernel), (others,) = problem(road), randoms(7, (3, *problem(road)[1].shape))
    gradients = jax.grad(loss_of(op), (0, 1))
    xs, kernels = jnp.stack([x, 2 * x, -x]), others + kernel[None]
    together = jax.jit(jax.vmap(gradients))(xs, kernels)
    alone = jax.jit(gradients)
    for i, (own_x, own_kernel) in enumerate(zip(xs, kernels, strict=True)):
        assert_close([gradient[i] for gradient in together], list(alone(own_x, own_kernel)))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("road", ROADS)
def test_eager_jit_scan_pmap_and_mesh_agree(road, op):
    x, kernel = problem(road, batch=8)
    gradient = jax.grad(loss_of(op), 1)
    expected = jax.jit(gradient)(x, kernel)
    shards = x.reshape(4, 2, *x.shape[1:])

    def scanned(x, kernel):
        def add(total, part):
            return total + gradient(part, kernel), None

        return lax.scan(add, jnp.zeros_like(kernel), x)[0]

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(
        lambda x, kernel: lax.psum(gradient(x, lax.pcast(kernel, "data", to="varying")), "data"),
        mesh=mesh,
        in_specs=(P("data"), P()),
        out_specs=P(),
    )
    sharded = jax.device_put(x, jax.NamedSharding(mesh, P("data")))
    assert_close(gradient(x, kernel), expected)
    assert_close(jax.jit(scanned)(shards, kernel), expected)
    assert_close(jax.pmap(gradient, in_axes=(0, None))(shards, kernel).sum(0), expected)
    assert_close(jax.jit(mapped)(sharded, kernel), expected)
    assert_close(jax.jit(gradient)(sharded, kernel), expected)


def test_no_tracer_leaks():
    with jax.checking_leaks():
        jax.jit(jax.grad(loss_of(conv_pool), (0, 1)))(*problem("winograd"))
        jax.jit(jax.grad(loss_of(conv), (0, 1)))(*problem("im2col"))


def lowered(f, *args, platform):
    return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("op", OPS)
def test_only_gradients_on_the_cpu_take_the_fast_road(op):
    gradient, args = jax.grad(loss_of(op), (0, 1)), problem("winograd")
    assert "stablehlo.convolution" not in lowered(gradient, *args, platform="cpu")
    assert "stablehlo.convolution" in lowered(gradient, *args, platform="cuda")
    assert "stablehlo.convolution" in lowered(gradient, *args, platform="tpu")


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("op", [conv, conv_pool])
def test_without_a_gradient_lax_does_it(op, platform):
    f = functools.partial(op, padding="SAME")
    assert "stablehlo.convolution" in lowered(f, *problem("winograd"), platform=platform)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("road", ROADS)
def test_windows_are_the_pixels_of_the_convolution(road, padding):
    x, kernel = problem(road)
    whole = lax_conv(x, kernel, padding=padding)
    height, width = (side // 2 * 2 for side in whole.shape[1:3])
    expected = [whole[:, a:height:2, b:width:2] for a in range(2) for b in range(2)]
    assert_close(conv_windows(x, kernel, padding=padding), expected)


@pytest.mark.parametrize("moving", [0, 1])
def test_direct_road_with_one_argument_at_rest(moving):
    point = problem("direct")
    derivative = [jax.grad(loss_of(op), moving)(*point) for op in (conv_pool, lax_conv_pool)]
    assert_close(*derivative)


def test_unknown_padding_is_refused():
    x, kernel = problem("direct")
    for op in (conv, conv_pool):
        with pytest.raises(ValueError, match="'SAME' or 'VALID', found 'FULL'"):
            op(x, kernel, padding="FULL")


def test_kernel_larger_than_the_images_is_refused():
    _, kernel = problem("direct")
    for op in (conv, conv_pool):
        with pytest.raises(
            ValueError, match=r"large as the kernel \(3, 3, 1, 4\), found \(2, 5, 2"
        ):
            op(jnp.ones((2, 5, 2, 1)), kernel, padding="VALID")


@pytest.mark.parametrize("road", ROADS)
def test_smallest_images(road):
    size, channels = ROADS[road]
    x, kernel = randoms(6, (1, size, size, channels), (size, size, channels, 4))
    assert_close(conv(x, kernel, padding="VALID"), lax_conv(x, kernel, padding="VALID"))
    assert conv_pool(x, kernel, padding="VALID").shape == (1, 0, 0, 4)


@pytest.mark.parametrize(
    ("options", "fast"),
    [
        ({}, True),
        ({"padding": "VALID"}, True),
        ({"padding": 1}, False),
        ({"strides": 2}, False),
        ({"padding": 1, "input_dilation": 2}, False),
        ({"kernel_dilation": 2}, False),
        ({"feature_group_count": 4}, False),
        ({"precision": "highest"}, False),
    ],
)
def test_flax_layer_with_the_adapter(options, fast):
    x, _ = problem("winograd")
    ours = nn.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated, **options)
    theirs = nn.Conv(8, (3, 3), **options)
    variables = theirs.init(jax.random.key(0), x)
    assert_close(ours.apply(variables, x), theirs.apply(variables, x))
    gradient = jax.grad(lambda x: jnp.sum(ours.apply(variables, x)))
    assert ("stablehlo.convolution" in lowered(gradient, x, platform="cpu")) != fast


def test_adapter_leaves_other_ranks_and_layouts_to_lax():
    (signal, taps) = randoms(3, (2, 10, 3), (3, 3, 4))
    numbers = ("NWC", "WIO", "NWC")
    ours = conv_general_dilated(signal, taps, (1,), "SAME", dimension_numbers=numbers)
    theirs = lax.conv_general_dilated(signal, taps, (1,), "SAME", dimension_numbers=numbers)
    np.testing.assert_array_equal(ours, theirs)
    images, kernel = randoms(4, (2, 3, 8, 8), (4, 3, 3, 3))
    ours = conv_general_dilated(images, kernel, (1, 1), "VALID")
    np.testing.assert_array_equal(ours, lax.conv_general_dilated(images, kernel, (1, 1), "VALID"))

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

from mnistjax.models.ops import conv, conv_general_dilated, conv_pool, max_pool

NHWC = ("NHWC", "HWIO", "NHWC")
# A kernel's side and channels for each method: 3x3 with channels to sum over, 3x3 of one channel,
# any other.
METHODS = {"winograd": (3, 8), "direct": (3, 1), "im2col": (5, 2)}


def lax_conv(x, kernel, *, padding):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NHWC)


def lax_pool(x, window=2):
    size = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, size, size, "VALID")


def lax_conv_pool(x, kernel, *, padding, pool=2, between=lambda parts: lambda part: part):
    y = lax_conv(x, kernel, padding=padding)
    return lax_pool(between([y])(y), pool)


def center(parts):
    """Falls where a part rises, and tells whether a pixel of an image is left out or seen twice."""
    means = [jnp.mean(part, (1, 2), keepdims=True) for part in parts]
    return lambda part: sum(means) / len(means) - part


def wave(parts):
    """Is not linear, so that two computations of it may be rounded differently."""
    return lambda part: jnp.sin(center(parts)(part))


def center_pool(x, kernel, *, padding):
    return conv_pool(x, kernel, padding=padding, between=center)


def lax_center_pool(x, kernel, *, padding):
    return lax_conv_pool(x, kernel, padding=padding, between=center)


def randoms(seed, *shapes, dtype=jnp.float32):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


@functools.partial(jax.jit, static_argnames="functions")
def values_and_gradients(functions, *args):
    """For each function the value, and the gradients of its sum weighted unevenly."""

    def value_and_gradients(f):
        value, pull = jax.vjp(f, *args)
        weights = jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        return value, pull(weights.astype(value.dtype))

    return [value_and_gradients(f) for f in functions]


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
    batch, h, w = draw(st.sampled_from([1, 2, 5])), draw(st.integers(7, 9)), draw(st.integers(7, 9))
    channels, features = draw(st.sampled_from([1, 3, 8, 16])), draw(st.sampled_from([1, 4]))
    return (batch, h, w, channels), (*kernel, channels, features)


@settings(max_examples=3)
@given(convolutions(), st.sampled_from(["SAME", "VALID"]), st.integers(0, 9))
@example(((3, 7, 8, 8), (3, 3, 8, 4)), "SAME", 0)
@example(((3, 8, 7, 8), (3, 3, 8, 4)), "VALID", 0)
@example(((2, 6, 7, 2), (2, 4, 2, 3)), "SAME", 0)
def test_conv_is_that_of_lax(shapes, padding, seed):
    functions = [functools.partial(op, padding=padding) for op in (conv, lax_conv)]
    assert_close(*values_and_gradients(tuple(functions), *randoms(seed, *shapes)))


@settings(max_examples=3)
@given(
    convolutions(),
    st.sampled_from(["SAME", "VALID"]),
    st.sampled_from([1, 2, 2, 3]),
    st.sampled_from([None, center, wave]),
    st.integers(0, 9),
)
@example(((3, 13, 13, 8), (3, 3, 8, 4)), "VALID", 2, None, 0)
@example(((2, 7, 8, 8), (3, 3, 8, 4)), "SAME", 2, center, 0)
@example(((2, 8, 6, 8), (3, 3, 8, 4)), "SAME", 2, center, 0)
@example(((2, 8, 6, 1), (3, 3, 1, 4)), "VALID", 2, center, 0)
@example(((2, 7, 8, 8), (3, 3, 8, 4)), "SAME", 2, wave, 0)
def test_conv_pool_is_pooled_convolution(shapes, padding, pool, between, seed):
    options = {"padding": padding, "pool": pool, **({"between": between} if between else {})}
    functions = [functools.partial(op, **options) for op in (conv_pool, lax_conv_pool)]
    assert_close(*values_and_gradients(tuple(functions), *randoms(seed, *shapes)))


@settings(max_examples=5)
@given(
    st.sampled_from([1, 2, 3]),
    st.integers(3, 8),
    st.integers(3, 8),
    st.integers(0, 9),
    st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_max_pool_is_that_of_lax_also_in_ties(window, h, w, seed, dtype):
    # Few distinct values: nearly every window has a tie, for which the first entry is chosen.
    x = np.random.default_rng(seed).integers(0, 3, (2, h, w, 3)).astype(dtype)
    functions = [functools.partial(op, window=window) for op in (max_pool, lax_pool)]
    ours, theirs = values_and_gradients(tuple(functions), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("method", "dtype", "tolerance"),
    [
        ("winograd", jnp.float64, 1e-13),
        ("winograd", jnp.bfloat16, 2e-2),
        ("direct", jnp.bfloat16, 2e-2),
    ],
)
@pytest.mark.usefixtures("x64")
def test_other_dtypes(method, dtype, tolerance):
    size, channels = METHODS[method]
    x, kernel = randoms(1, (2, 8, 8, channels), (size, size, channels, 4), dtype=dtype)
    (ours,) = values_and_gradients((functools.partial(conv, padding="SAME"),), x, kernel)
    wide = x.astype(np.float64), kernel.astype(np.float64)
    (exact,) = values_and_gradients((functools.partial(lax_conv, padding="SAME"),), *wide)
    assert {a.dtype for a in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    assert_close(jax.tree.map(np.float64, ours), exact, tolerance)


def problem(method, batch=4):
    size, channels = METHODS[method]
    return randoms(0, (batch, 8, 6, channels), (size, size, channels, 4))


OPS = {conv: lax_conv, conv_pool: lax_conv_pool, center_pool: lax_center_pool}
# What is lowered unlike one another: `conv` knows no direct method.
LOWERINGS = [(op, method) for op in OPS for method in METHODS if (op, method) != (conv, "direct")]
# One of each op and of each method, for what composes them as any other function.
SOME_LOWERINGS = [(conv, "im2col"), (conv_pool, "direct"), (center_pool, "winograd")]
OTHER_LOWERINGS = [
    pytest.param(*pair, marks=pytest.mark.full) for pair in LOWERINGS if pair not in SOME_LOWERINGS
]


def loss_of(op):
    """A smooth scalar of an op, whose second derivatives mix images and kernel."""
    return lambda x, kernel: jnp.sum(jnp.tanh(op(x, kernel, padding="SAME")))


@pytest.mark.parametrize(("op", "method"), SOME_LOWERINGS + OTHER_LOWERINGS)
def test_forward_mode_and_hessian_vector_product(op, method):
    x, kernel = problem(method)
    tangents = tuple(randoms(5, x.shape, kernel.shape))

    @jax.jit
    def derivatives(point, tangents):
        def both(op):
            f = loss_of(op)
            return jax.jvp(f, point, tangents), jax.jvp(jax.grad(f, (0, 1)), point, tangents)

        return both(op), both(OPS[op])

    assert_close(*derivatives((x, kernel), tangents), 1e-4)


@pytest.mark.parametrize(("op", "method"), SOME_LOWERINGS)
def test_vmap_over_images_and_kernels_is_a_loop(op, method):
    (x, kernel), (others,) = problem(method), randoms(7, (3, *problem(method)[1].shape))
    gradients = jax.grad(loss_of(op), (0, 1))
    xs, kernels = np.stack([x, 2 * x, -x]), others + kernel[None]
    together = jax.jit(jax.vmap(gradients))(xs, kernels)
    alone = jax.jit(functools.partial(lax.map, lambda both: gradients(*both)))((xs, kernels))
    assert_close(together, alone)


def test_eager_and_jit_agree():
    gradient, args = jax.grad(loss_of(center_pool), 1), problem("winograd")
    assert_close(gradient(*args), jax.jit(gradient)(*args))


@pytest.mark.parametrize(("op", "method"), SOME_LOWERINGS)
def test_jit_scan_pmap_and_mesh_agree(op, method):
    x, kernel = problem(method, batch=8)
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
    assert_close(jax.jit(scanned)(shards, kernel), expected)
    assert_close(jax.pmap(gradient, in_axes=(0, None))(shards, kernel).sum(0), expected)
    assert_close(jax.jit(mapped)(sharded, kernel), expected)
    assert_close(jax.jit(gradient)(sharded, kernel), expected)


def test_no_tracer_leaks():
    with jax.checking_leaks():
        for op, method in LOWERINGS:
            jax.jit(jax.grad(loss_of(op), (0, 1))).trace(*problem(method))


def lowered(f, *args, platform):
    return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("op", OPS)
def test_only_gradients_on_the_cpu_are_lowered_to_matmuls(op):
    gradient, args = jax.grad(loss_of(op), (0, 1)), problem("winograd")
    assert "stablehlo.convolution" not in lowered(gradient, *args, platform="cpu")
    assert "stablehlo.convolution" in lowered(gradient, *args, platform="cuda")
    assert "stablehlo.convolution" in lowered(gradient, *args, platform="tpu")


CENTER_FORWARD = functools.partial(conv_pool, between=center, differentiated=False)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("op", [conv, conv_pool, CENTER_FORWARD])
def test_without_a_gradient_lax_does_it(op, platform):
    f = functools.partial(op, padding="SAME")
    assert "stablehlo.convolution" in lowered(f, *problem("winograd"), platform=platform)


@pytest.mark.parametrize("differentiated", [True, False])
def test_what_is_said_of_gradients_changes_only_the_speed(differentiated):
    options = {"padding": "VALID", "between": center, "differentiated": differentiated}
    op = functools.partial(conv_pool, **options)
    theirs = functools.partial(lax_center_pool, padding="VALID")
    assert_close(*values_and_gradients((op, theirs), *problem("winograd")))


@pytest.mark.parametrize("moving", [0, 1])
def test_direct_method_with_one_argument_at_rest(moving):
    point = problem("direct")

    @jax.jit
    def derivatives(*point):
        return [jax.grad(loss_of(op), moving)(*point) for op in (conv_pool, lax_conv_pool)]

    assert_close(*derivatives(*point))


def test_unknown_padding_is_refused():
    x, kernel = problem("direct")
    for op in (conv, conv_pool):
        with pytest.raises(ValueError, match="'SAME' or 'VALID', found 'FULL'"):
            op(x, kernel, padding="FULL")


def test_images_smaller_than_the_kernel_are_refused():
    _, kernel = problem("direct")
    for op in (conv, conv_pool):
        with pytest.raises(ValueError, match="as large as the kernel, 3x3 pixels, found 5x2"):
            op(np.ones((2, 5, 2, 1), np.float32), kernel, padding="VALID")


def test_images_smaller_than_the_pooling_window_are_refused():
    x, kernel = randoms(6, (1, 4, 3, 1), (3, 3, 1, 4))
    for between in (None, center):
        with pytest.raises(ValueError, match="at least 2x2 pixels to pool, found 2x1"):
            conv_pool(x, kernel, padding="VALID", between=between)
    with pytest.raises(ValueError, match="at least 4x4 pixels to pool, found 4x3"):
        max_pool(x, 4)
    with pytest.raises(ValueError, match="window of at least 1 pixel, found 0"):
        max_pool(x, 0)


@pytest.mark.parametrize("method", METHODS)
def test_smallest_images(method):
    size, channels = METHODS[method]
    x, kernel = randoms(6, (1, size, size, channels), (size, size, channels, 4))
    functions = tuple(functools.partial(op, padding="VALID") for op in (conv, lax_conv))
    assert_close(*values_and_gradients(functions, x, kernel))


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
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(theirs.init, jax.random.key(0), x))
    bias, kernel = randoms(2, *jax.tree.leaves(shapes, is_leaf=lambda x: isinstance(x, tuple)))
    variables = {"params": {"bias": bias, "kernel": kernel}}
    if fast:
        assert_close(jax.jit(ours.apply)(variables, x), jax.jit(theirs.apply)(variables, x))
    else:
        jaxprs = [str(jax.make_jaxpr(layer.apply)(variables, x)) for layer in (ours, theirs)]
        assert jaxprs[0] == jaxprs[1]
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

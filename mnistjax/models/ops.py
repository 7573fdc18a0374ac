"""Convolution and pooling, lowered on each platform to the fastest implementation.

On CPU, XLA computes convolution and `reduce_window` fast, but their gradients slowly. Where they
are differentiated on CPU, the operations of `lowering`, whose gradients are fast, replace them. All
else, and everything on GPU and TPU, uses `lax`. The functions are plain JAX: jit, vmap, jvp, higher
derivatives and sharding work as usual.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from mnistjax.models.lowering import (
    cut_windows,
    first_max,
    matmul_conv,
    matmul_conv_pool,
    matmul_windows,
    split_pool,
)

_NHWC = ("NHWC", "HWIO", "NHWC")

Function = Callable[..., Array]

_AS_MATMULS = contextvars.ContextVar("_AS_MATMULS", default=False)


@contextlib.contextmanager
def lower_to_matmuls() -> Iterator[None]:
    """Has convolutions that are traced in this context computed as on CPU, on every platform.

    Under `vmap` over kernels, a native convolution becomes a grouped one, whose gradient is slow on
    GPU (https://github.com/jax-ml/jax/issues/13800), and those of `lowering` become batched
    matmuls.
    """
    token = _AS_MATMULS.set(True)
    try:
        yield
    finally:
        _AS_MATMULS.reset(token)


def _by_platform(x: Array, kernel: Array, *, cpu: Callable[..., Any], default: Any) -> Any:
    if _AS_MATMULS.get():
        return cpu(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def conv(lhs: Array, kernel: Array, *, padding: str, stride: int = 1) -> Array:
    """Convolves images with a kernel.

    `out[b, y, x, o] = sum over i, j, c of lhs[b, s y + i, s x + j, c] * kernel[i, j, c, o]`, where
    s is the stride and `lhs` is padded first.

    Args:
        lhs: images, float [B, H, W, C].
        kernel: weights, float [KH, KW, C, O], of the dtype of `lhs`.
        padding: "SAME" (zeros around, H' = H) or "VALID" (H' = H - KH + 1).
        stride: of the rows and columns of the output, every `stride`-th is computed, from the first
            one on.

    Returns:
        Float [B, ceil(H' / stride), ceil(W' / stride), O].

    Raises:
        ValueError: `padding` is neither of the two, the kernel is larger than the images, or
            `stride` is less than 1.

    Example:
        >>> import jax.numpy as jnp, mnistjax
        >>> images, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2, 1))
        >>> mnistjax.ops.conv(images, kernel, padding="VALID").item()
        18.0
    """
    _check_stride(stride)
    native: Function = _native_conv if stride == 1 else partial(_native_conv, stride=stride)
    cpu: Function = _cpu_conv if stride == 1 else partial(_strided_conv, stride=stride)
    return _by_platform(_pad(lhs, kernel, padding), kernel, cpu=cpu, default=native)


def conv_pool(
    lhs: Array,
    kernel: Array,
    *,
    padding: str,
    stride: int = 1,
    pool: int = 2,
    between: Callable[[Sequence[Array]], Function] | None = None,
    differentiated: bool = True,
) -> Array:
    """Computes `max_pool(between([x])(x), pool)` of `x = conv(lhs, kernel)`, faster on CPU.

    Add bias and ReLU to the result: they are monotonic, so it is the same as adding them before the
    pooling, but on a fraction of the pixels.

    Args:
        lhs: images, float [B, H, W, C].
        kernel: weights, float [KH, KW, C, O], of the dtype of `lhs`.
        padding: "SAME" or "VALID", as for `conv`.
        stride: stride of the convolution, as for `conv`.
        pool: height, width and stride of the pooling window; 1 disables pooling.
        between: `(parts) -> function`, as `BatchNorm.normalizer`: takes the output of the
            convolution as a list of arrays, float [B, ..., O] each, which together hold every pixel
            once, and returns a function that is applied to each of these arrays.
        differentiated: whether a gradient will be taken through `between`; a hint that affects
            only the speed. Ignored without `between`, where it is detected.

    Returns:
        Float [B, H' // pool, W' // pool, O] of a convolution to H' rows and W' columns.

    Raises:
        ValueError: `padding` is neither of the two, the images are too small for the kernel or
            for the pooling, or `stride` is less than 1.

    Example:
        >>> import functools, jax, jax.numpy as jnp, mnistjax
        >>> def center(parts):
        ...     mean = sum(part.mean() for part in parts) / len(parts)
        ...     return lambda part: part - mean
        >>> stage = functools.partial(mnistjax.ops.conv_pool, padding="VALID", between=center)
        >>> jax.jit(stage)(jnp.ones((1, 6, 6, 1)), jnp.ones((3, 3, 1, 4))).shape
        (1, 2, 2, 4)
    """
    _check_stride(stride)
    padded = _pad(lhs, kernel, padding)
    sides = zip(padded.shape[1:3], kernel.shape[:2], strict=True)
    height, width = ((n - k) // stride + 1 for n, k in sides)
    _check_window(pool, height, width)
    fused = stride == 1 and pool == 2
    if fused and between is None:
        return _by_platform(padded, kernel, cpu=_cpu_conv_pool, default=_native_conv_pool)
    if fused and between and differentiated and height % 2 == width % 2 == 0:
        # Every pixel is in a window, so the statistics of the windows are those of all pixels.
        windows = _by_platform(padded, kernel, cpu=matmul_windows, default=_native_windows)
        return first_max(*map(between(windows), windows))
    x = conv(lhs, kernel, padding=padding, stride=stride)
    x = x if between is None else between([x])(x)
    return x if pool == 1 else max_pool(x, pool)


def max_pool(x: Array, window: int = 2) -> Array:
    """Takes the maximum of each window; the stride is the window.

    Rows and columns that do not fill a window are cropped. Where several entries of a window are
    equal, the first gets the whole gradient, as with `lax.reduce_window`.

    Args:
        x: float [B, H, W, C].
        window: height and width of the window, in pixels.

    Returns:
        Float [B, H // window, W // window, C].

    Raises:
        ValueError: the window is larger than the images, or smaller than one pixel.

    Example:
        >>> import jax.numpy as jnp, mnistjax
        >>> mnistjax.ops.max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).tolist()
        [[[[5.0], [7.0]], [[13.0], [15.0]]]]
    """
    _check_window(window, *x.shape[1:3])
    return _forward(partial(_native_pool, window=window), partial(split_pool, window=window))(x)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """Computes `lax.conv_general_dilated`, using `conv` where it applies.

    Meant for `flax.linen.Conv(conv_general_dilated=...)`. Calls with strides, dilation, groups,
    other layouts, an explicit precision or other paddings are passed to `lax` unchanged.

    Args:
        lhs: images [B, H, W, C], or as `dimension_numbers` specifies.
        rhs: kernel [KH, KW, C, O], or as `dimension_numbers` specifies.
        window_strides: stride of each spatial dimension.
        padding: "SAME", "VALID" or the explicit (low, high) pairs.
        **options: the keyword arguments of `lax.conv_general_dilated`.

    Returns:
        The result of `lax.conv_general_dilated`, up to rounding.

    Example:
        >>> import flax.linen as nn, jax, mnistjax
        >>> layer = nn.Conv(4, (3, 3), conv_general_dilated=mnistjax.ops.conv_general_dilated)
        >>> images = jax.numpy.zeros((2, 6, 6, 1))
        >>> output, _ = jax.jit(layer.init_with_output)(jax.random.key(0), images)
        >>> output.shape
        (2, 6, 6, 4)
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    plain = (
        lhs.ndim == 4
        and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _NHWC)
        and padding in ("SAME", "VALID")
        and all(n == 1 for n in (*window_strides, *dilations))
        and options.get("feature_group_count", 1) == options.get("batch_group_count", 1) == 1
        and options.get("precision") is None
        and options.get("preferred_element_type") in (None, lhs.dtype)
    )
    if plain:
        return conv(lhs, rhs, padding=str(padding))
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def _forward(native: Function, differentiated: Function) -> Function:
    """Returns a function computed as `native`, or as `differentiated` under differentiation."""
    function = jax.custom_jvp(native)

    @partial(function.defjvp, symbolic_zeros=True)
    def rule(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        # Only arguments with a tangent: the first layer needs no gradient of its input.
        moves = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]

        def of_moving(*moved: Array) -> Array:
            values = dict(zip(moves, moved, strict=True))
            return differentiated(*(values.get(i, x) for i, x in enumerate(primals)))

        moving = tuple(primals[i] for i in moves), tuple(tangents[i] for i in moves)
        return jax.jvp(of_moving, *moving)

    return function


def _pad(x: Array, kernel: Array, padding: str) -> Array:
    """Adds the zeros of "SAME", an odd one below or to the right, and checks the sizes."""
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME' or 'VALID', found {padding!r}")
    if padding == "SAME":
        rows, cols = (((k - 1) // 2, k // 2) for k in kernel.shape[:2])
        return jnp.pad(x, ((0, 0), rows, cols, (0, 0)))
    if x.shape[1] < kernel.shape[0] or x.shape[2] < kernel.shape[1]:
        raise ValueError(
            f"expected images at least as large as the kernel, {kernel.shape[0]}x{kernel.shape[1]} "
            f"pixels, found {x.shape[1]}x{x.shape[2]}"
        )
    return x


def _check_stride(stride: int) -> None:
    if stride < 1:
        raise ValueError(f"expected a stride of at least 1 pixel, found {stride}")


def _check_window(window: int, height: int, width: int) -> None:
    if window < 1:
        raise ValueError(f"expected a pooling window of at least 1 pixel, found {window}")
    if min(height, width) < window:
        raise ValueError(
            f"expected feature maps of at least {window}x{window} pixels to pool, found "
            f"{height}x{width}: the images are too small for this network"
        )


def _native_conv(x: Array, kernel: Array, *, stride: int = 1) -> Array:
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=_NHWC)


def _strided_conv(x: Array, kernel: Array, *, stride: int) -> Array:
    """Computes a strided convolution as one of stride 1 on blocks of `stride` x `stride` pixels."""
    cells = [-(-k // stride) for k in kernel.shape[:2]]  # The kernel's sides in blocks.
    outputs = [(n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True)]
    rows, cols = ((n + k - 1) * stride for n, k in zip(outputs, cells, strict=True))
    # No output sees what is cut off, and no pixel of the image meets the zeros of the kernel.
    x = x[:, :rows, :cols]
    x = jnp.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, cols - x.shape[2]), (0, 0)))
    (kh, kw), (height, width) = cells, kernel.shape[:2]
    missing = ((0, kh * stride - height), (0, kw * stride - width), (0, 0), (0, 0))
    kernel = _to_depth(jnp.pad(kernel, missing)[None], stride)[0]
    return _cpu_conv(_to_depth(x, stride), kernel)


def _to_depth(x: Array, block: int) -> Array:
    """Moves the pixels of each block to the channels.

    [B, H, W, C] becomes [B, H / block, W / block, block * block * C], and [1, H, W, C, O] likewise.
    """
    batch, height, width, channels, *rest = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels, *rest)
    x = x.swapaxes(2, 3)
    return x.reshape(*x.shape[:3], block * block * channels, *rest)


def _native_pool(x: Array, window: int = 2) -> Array:
    sides = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")


def _native_conv_pool(x: Array, kernel: Array) -> Array:
    return _native_pool(_native_conv(x, kernel))


def _native_windows(x: Array, kernel: Array) -> list[Array]:
    return cut_windows(_native_conv(x, kernel))


_cpu_conv = _forward(_native_conv, matmul_conv)
_cpu_conv_pool = _forward(_native_conv_pool, matmul_conv_pool)

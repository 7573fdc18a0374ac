"""Convolution and pooling, lowered the fast way for each platform.

On CPU, XLA computes a convolution and `reduce_window` fast, but their gradients naively. So what is
differentiated comes from `lowering`, whose parts have gradients of the same kind as themselves;
everything else, and all on GPU and TPU, stays `lax`. It is plain JAX: jit, vmap, jvp, grad of grad
and sharding work as for any other function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def conv(lhs: Array, kernel: Array, *, padding: str) -> Array:
    """Convolve images with a kernel, stride 1.

    Args:
        lhs: images, float [B, H, W, C].
        kernel: weights, float [KH, KW, C, O], of the dtype of `lhs`.
        padding: "SAME" (zeros around, H' = H) or "VALID" (H' = H - KH + 1).

    Returns:
        Float [B, H', W', O].

    Raises:
        ValueError: if `padding` is neither of the two, or the kernel larger than the images.
    """
    return lax.platform_dependent(
        _pad(lhs, kernel, padding), kernel, cpu=_cpu_conv, default=_native_conv
    )


def conv_pool(lhs: Array, kernel: Array, *, padding: str) -> Array:
    """`max_pool(conv(lhs, kernel))` with 2x2 windows, faster on CPU: nothing is interleaved.

    Add bias and ReLU after it: they are monotonic, so the result is the same, on a quarter of the
    pixels.

    Args:
        lhs: images, float [B, H, W, C].
        kernel: weights, float [KH, KW, C, O], of the dtype of `lhs`.
        padding: "SAME" or "VALID", as for `conv`.

    Returns:
        Float [B, H' // 2, W' // 2, O].

    Raises:
        ValueError: if `padding` is neither of the two, or the kernel larger than the images.
    """
    return lax.platform_dependent(
        _pad(lhs, kernel, padding), kernel, cpu=_cpu_conv_pool, default=_native_conv_pool
    )


def conv_windows(lhs: Array, kernel: Array, *, padding: str) -> list[Array]:
    """Convolve, and return the four pixels of each 2x2 window as arrays of their own.

    What stands between a convolution and its pooling can work on the four (batch normalisation
    does), and `max_windows` ends the pooling: nothing is interleaved to be taken apart again.

    Args:
        lhs: images, float [B, H, W, C].
        kernel: weights, float [KH, KW, C, O], of the dtype of `lhs`.
        padding: "SAME" or "VALID", as for `conv`.

    Returns:
        Four floats [B, H' // 2, W' // 2, O]: upper left, upper right, lower left, lower right.

    Raises:
        ValueError: if `padding` is neither of the two, or the kernel larger than the images.
    """
    return lax.platform_dependent(
        _pad(lhs, kernel, padding), kernel, cpu=matmul_windows, default=_native_windows
    )


def max_windows(windows: Sequence[Array]) -> Array:
    """Take the maximum of the pixels that `conv_windows` gave, [B, H' // 2, W' // 2, O]."""
    return first_max(*windows)


def max_pool(x: Array, window: int = 2) -> Array:
    """Take the maximum of each window; the stride is the window.

    Rows and columns that fill no window are cropped. Where several entries of a window are equal,
    the first has the whole gradient, as with `lax.reduce_window`.

    Args:
        x: float [B, H, W, C].
        window: height and width of the window, in pixels.

    Returns:
        Float [B, H // window, W // window, C].
    """
    return _forward(partial(_native_pool, window=window), partial(split_pool, window=window))(x)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """`lax.conv_general_dilated` that takes the fast road of `conv` where it can.

    Made for `flax.linen.Conv(conv_general_dilated=...)`. Strides, dilation, groups, other layouts,
    an explicit precision and other paddings go to `lax` unchanged.

    Args:
        lhs: images [B, H, W, C], or whatever `dimension_numbers` says.
        rhs: kernel [KH, KW, C, O], likewise.
        window_strides: stride of each spatial dimension.
        padding: "SAME", "VALID" or the explicit (low, high) pairs.
        **options: the keyword arguments of `lax.conv_general_dilated`.

    Returns:
        The convolution, as `lax.conv_general_dilated` gives it.
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
    """A function that is computed as `native`, but as `differentiated` for a derivative."""
    function = jax.custom_jvp(native)

    @partial(function.defjvp, symbolic_zeros=True)
    def rule(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        # Only what moves: the gradient by the pixels of the first layer is nobody's business.
        moves = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]

        def of_moving(*moved: Array) -> Array:
            values = dict(zip(moves, moved, strict=True))
            return differentiated(*(values.get(i, x) for i, x in enumerate(primals)))

        moving = tuple(primals[i] for i in moves), tuple(tangents[i] for i in moves)
        return jax.jvp(of_moving, *moving)

    return function


def _pad(x: Array, kernel: Array, padding: str) -> Array:
    """Add the zeros that "SAME" stands for; of an odd number the last goes below or right."""
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME' or 'VALID', found {padding!r}")
    if padding == "SAME":
        rows, cols = (((k - 1) // 2, k // 2) for k in kernel.shape[:2])
        return jnp.pad(x, ((0, 0), rows, cols, (0, 0)))
    if x.shape[1] < kernel.shape[0] or x.shape[2] < kernel.shape[1]:
        raise ValueError(f"expected images as large as the kernel {kernel.shape}, found {x.shape}")
    return x


def _native_conv(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_NHWC)


def _native_pool(x: Array, window: int = 2) -> Array:
    sides = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")


def _native_conv_pool(x: Array, kernel: Array) -> Array:
    return _native_pool(_native_conv(x, kernel))


def _native_windows(x: Array, kernel: Array) -> list[Array]:
    return cut_windows(_native_conv(x, kernel))


_cpu_conv = _forward(_native_conv, matmul_conv)
_cpu_conv_pool = _forward(_native_conv_pool, matmul_conv_pool)

"""Convolution and pooling, lowered the fast way for each platform.

Inside a compiled loop on CPU, XLA's convolution is naive and so is the gradient of `reduce_window`.
Here both are built from matmuls, slices and selects, which are fast there; GPU and TPU keep `lax`.
Everything is plain JAX: jit, vmap, jvp, grad of grad and sharding work as for any other function.

Two roads lead from convolution to matmul. *im2col* lays the patch under each output pixel into one
row and multiplies by the kernel. *Winograd's* F(2x2, 3x3) makes the four outputs of a 2x2 tile from
a 4x4 patch with 16 multiplications instead of 36 (Lavin & Gray, arXiv:1509.09308):
Y = A' [(G k G') * (B' d B)] A, where * becomes a matmul over channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_NHWC = ("NHWC", "HWIO", "NHWC")
_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

Grid = list[list[Array]]


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
        _pad(lhs, kernel, padding), kernel, cpu=_matmul_conv, default=_native_conv
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
        _pad(lhs, kernel, padding), kernel, cpu=_matmul_conv_pool, default=_native_conv_pool
    )


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
    height, width = (n // window * window for n in x.shape[1:3])
    return _first_max(*chain(*_cells(x[:, :height, :width], window)))


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


@jax.custom_jvp
def _first_max(*xs: Array) -> Array:
    """The elementwise maximum of arrays of one shape; among equals the first counts."""
    return reduce(jnp.maximum, xs)


@_first_max.defjvp
def _first_max_jvp(xs: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    largest = _first_max(*xs)
    tangent = tangents[-1]
    for x, t in zip(xs[-2::-1], tangents[-2::-1], strict=True):
        tangent = jnp.where(x == largest, t, tangent)
    return largest, tangent


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


def _native_conv_pool(x: Array, kernel: Array) -> Array:
    return max_pool(_native_conv(x, kernel))


def _matmul_conv(x: Array, kernel: Array) -> Array:
    """VALID convolution by Winograd's tiles where they serve, else by im2col."""
    if not _suits_winograd(kernel):
        return _im2col(x, kernel)
    height, width = x.shape[1] - 2, x.shape[2] - 2
    tiles = _winograd(x, kernel, (height + 1) // 2, (width + 1) // 2)
    rows = jnp.stack([jnp.stack(row, axis=3) for row in tiles], axis=2)
    batch, h, _, w, _, channels = rows.shape
    return rows.reshape(batch, 2 * h, 2 * w, channels)[:, :height, :width]


def _matmul_conv_pool(x: Array, kernel: Array) -> Array:
    """VALID convolution and 2x2 pooling: Winograd's tiles are the windows."""
    if not _suits_winograd(kernel):
        return max_pool(_im2col(x, kernel))
    tiles = _winograd(x, kernel, (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2)
    return _first_max(*chain(*tiles))


def _dot(x: Array, matrix: Array) -> Array:
    """Multiply the channels; flat, as the gradient of a matmul over 4-D arrays is transposed."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _im2col(x: Array, kernel: Array) -> Array:
    """VALID convolution as one matmul over the patches."""
    kh, kw, channels, features = kernel.shape
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    shifted = [x[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)]
    return _dot(jnp.concatenate(shifted, -1), kernel.reshape(kh * kw * channels, features))


def _suits_winograd(kernel: Array) -> bool:
    """Winograd pays for 3x3 with channels to sum over, and costs digits that bfloat16 lacks."""
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] >= 8 and kernel.dtype.itemsize >= 4


def _winograd(x: Array, kernel: Array, h: int, w: int) -> Grid:
    """The 2x2 outputs of each of h x w tiles, as a 2x2 grid of [B, h, w, O]."""
    g = jnp.asarray(_G, kernel.dtype)
    u = jnp.einsum("ai,bj,ijco->abco", g, g, kernel)
    zero = jnp.zeros((), x.dtype)
    rows, cols = 2 * h + 2 - x.shape[1], 2 * w + 2 - x.shape[2]
    cells = _kept(_cells(lax.pad(x, zero, ((0, 0, 0), (0, rows, 0), (0, cols, 0), (0, 0, 0))), 2))
    patch = [
        [cells[a % 2][b % 2][:, a // 2 : a // 2 + h, b // 2 : b // 2 + w] for b in range(4)]
        for a in range(4)
    ]
    v = _sandwich(_B, patch)
    products = [[_dot(v[a][b], u[a, b]) for b in range(4)] for a in range(4)]
    return _kept(_sandwich(_A, products))


def _sandwich(matrix: np.ndarray, grid: Grid) -> Grid:
    """`matrix @ grid @ matrix.T` for a grid of arrays and a matrix of -1, 0 and 1."""

    def combine(row: np.ndarray, xs: Sequence[Array]) -> Array:
        return reduce(jnp.add, [x if c > 0 else -x for c, x in zip(row, xs, strict=True) if c])

    columns = [[combine(row, column) for row in matrix] for column in zip(*grid, strict=True)]
    return [[combine(row, xs) for row in matrix] for xs in zip(*columns, strict=True)]


def _cells(x: Array, n: int) -> Grid:
    """Entry (i, j) holds pixel (i, j) of each n x n window: [B, H // n, W // n, C]."""
    batch, h, w, channels = x.shape
    shape = (batch, h // n, w // n, channels)
    windows = x.reshape(batch, h // n, n, w // n, n, channels)
    # Split rather than slice: the gradient of slices is a slow sum of padded arrays.
    rows = lax.split(windows, (1,) * n, axis=2)
    return [[cell.reshape(shape) for cell in lax.split(row, (1,) * n, axis=4)] for row in rows]


def _kept(grid: Grid) -> Grid:
    """The same grid, computed once: XLA would fuse its arithmetic into each place of use.

    The barrier keeps XLA from undoing the stack, and the stack is what it does not fuse through.
    """
    stacked = lax.optimization_barrier(jnp.stack([x for row in grid for x in row]))
    flat = iter(lax.split(stacked, (1,) * stacked.shape[0], axis=0))
    return [[jnp.squeeze(next(flat), 0) for _ in row] for row in grid]

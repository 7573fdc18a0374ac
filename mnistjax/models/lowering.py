"""Convolution and pooling made of matmuls, slices and selects, whose gradients are fast on CPU.

There are three methods. *im2col* copies the patch under each output pixel into one row and
multiplies it by the kernel. *Winograd's* F(2x2, 3x3) computes the four outputs of a 2x2 tile from a
4x4 patch with 16 multiplications instead of 36 (Lavin and Gray, https://arxiv.org/abs/1509.09308):
Y = A' [(G k G') * (B' d B)] A, where ' transposes and * becomes a matmul over channels. For images
of one channel, where a matmul would have little to sum over, the *direct* method sums shifted
images, which stay in the processor's cache until the maximum of each window is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from itertools import chain, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

Grid = list[list[Array]]


@jax.custom_jvp
def first_max(*xs: Array) -> Array:
    """Returns the elementwise maximum; among equal values, the first gets the gradient."""
    return reduce(jnp.maximum, xs)


@first_max.defjvp
def _first_max_jvp(xs: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    return _select_first_max(xs, tangents)


def _select_first_max(xs: Sequence[Array], values: Sequence[Array]) -> tuple[Array, Array]:
    """Returns the elementwise maximum of `xs`, and of `values` the one at the first maximum."""
    # `x == largest` could select none: XLA may compute `x` twice, with different rounding.
    largest, selected = xs[0], values[0]
    for x, value in zip(xs[1:], values[1:], strict=True):
        selected = jnp.where(x > largest, value, selected)
        largest = jnp.maximum(largest, x)
    return largest, selected


def cut_windows(x: Array, window: int = 2) -> list[Array]:
    """Returns one array per pixel of a window; pixels that do not fill a window are cropped."""
    height, width = (n // window * window for n in x.shape[1:3])
    return list(chain(*_cells(x[:, :height, :width], window)))


def split_pool(x: Array, window: int = 2) -> Array:
    """Returns the maximum of each window."""
    return first_max(*cut_windows(x, window))


def matmul_conv(x: Array, kernel: Array) -> Array:
    """Computes a VALID convolution by Winograd's method where it is faster, else by im2col."""
    if not _suits_winograd(kernel):
        return _im2col(x, kernel)
    height, width = x.shape[1] - 2, x.shape[2] - 2
    tiles = _kept(_winograd(x, kernel, (height + 1) // 2, (width + 1) // 2))
    rows = jnp.stack([jnp.stack(row, axis=3) for row in tiles], axis=2)
    batch, h, _, w, _, channels = rows.shape
    return rows.reshape(batch, 2 * h, 2 * w, channels)[:, :height, :width]


def matmul_windows(x: Array, kernel: Array) -> list[Array]:
    """Computes a VALID convolution as the four pixels of each 2x2 window, [B, h, w, O] each."""
    if _suits_direct(kernel):
        return _direct_by_matmul(x, kernel)
    if _suits_winograd(kernel):
        tiles = _winograd(x, kernel, (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2)
        return list(chain(*_kept(tiles)))
    return cut_windows(_im2col(x, kernel))


def matmul_conv_pool(x: Array, kernel: Array) -> Array:
    """Computes a VALID convolution and 2x2 pooling."""
    if _suits_direct(kernel):
        return _direct_conv_pool(x, kernel)
    return first_max(*matmul_windows(x, kernel))


def _suits_direct(kernel: Array) -> bool:
    """Returns whether the direct method is faster and accurate; in bfloat16 it loses digits."""
    return kernel.shape[:3] == (3, 3, 1) and kernel.dtype.itemsize >= 4


@jax.custom_jvp
def _direct_conv_pool(x: Array, kernel: Array) -> Array:
    """Convolves one channel, VALID with 3x3, and pools 2x2, as a sum of shifted images."""
    return first_max(*_direct(x, kernel))


@partial(_direct_conv_pool.defjvp, symbolic_zeros=True)
def _direct_conv_pool_jvp(
    primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    outputs = _direct(x, kernel)
    # The gradient needs only the index of the maximum.
    indices = [jnp.full_like(output, i) for i, output in enumerate(outputs)]
    largest, place = _select_first_max(outputs, indices)
    ((largest, place),) = _kept([[largest, place]])
    moves = [jnp.zeros_like(largest)] * 4
    if not isinstance(dkernel, SymbolicZero):
        moves = _direct_by_matmul(x, dkernel)
    if not isinstance(dx, SymbolicZero):
        moves = [move + by_x for move, by_x in zip(moves, _direct(dx, kernel), strict=True)]
    tangent = moves[3]
    for i in (2, 1, 0):
        tangent = jnp.where(place == i, moves[i], tangent)
    return largest, tangent


def _direct(x: Array, kernel: Array) -> list[Array]:
    """Returns the four outputs of each pooling window, [B, h, w, O] each."""
    patch = _patches(x, (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2)
    weights = kernel.reshape(3, 3, 1, 1, 1, -1)

    def output(a: int, b: int) -> Array:
        offsets = product(range(3), range(3))
        return reduce(jnp.add, [patch[a + i][b + j] * weights[i][j] for i, j in offsets])

    return [output(a, b) for a, b in product(range(2), range(2))]


def _direct_by_matmul(x: Array, kernel: Array) -> list[Array]:
    """Computes the same by four matmuls, so that the gradient of the kernel is matmuls, too."""
    patch = _patches(x, (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2)
    rows = jnp.stack([pixel.ravel() for row in patch for pixel in row])
    shape = (*patch[0][0].shape[:3], kernel.shape[3])

    def output(a: int, b: int) -> Array:
        spread = jnp.pad(kernel[:, :, 0], ((a, 1 - a), (b, 1 - b), (0, 0))).reshape(16, -1)
        return (rows.T @ spread).reshape(shape)

    return [output(a, b) for a, b in product(range(2), range(2))]


def _dot(x: Array, matrix: Array) -> Array:
    """Multiplies the channels in 2-D, because the gradient of a 4-D matmul copies a transpose."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _im2col(x: Array, kernel: Array) -> Array:
    """Computes a VALID convolution as one matmul over the patches."""
    kh, kw, channels, features = kernel.shape
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    shifted = [x[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)]
    return _dot(jnp.concatenate(shifted, -1), kernel.reshape(kh * kw * channels, features))


def _suits_winograd(kernel: Array) -> bool:
    """Returns whether Winograd's method is faster and accurate; in bfloat16 it loses digits."""
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] >= 8 and kernel.dtype.itemsize >= 4


def _winograd(x: Array, kernel: Array, h: int, w: int) -> Grid:
    """Returns the 2x2 outputs of each of h x w tiles, as a 2x2 grid of [B, h, w, O]."""
    u = _sandwich(_G, [list(row) for row in kernel])
    v = _sandwich(_B, _patches(x, h, w))
    products = [[_dot(v[a][b], u[a][b]) for b in range(4)] for a in range(4)]
    return _sandwich(_A, products)


def _patches(x: Array, h: int, w: int) -> Grid:
    """Returns pixel (a, b) of the 4x4 patches of h x w tiles, [B, h, w, C], as entry (a, b)."""
    zero = jnp.zeros((), x.dtype)
    rows, cols = 2 * h + 2 - x.shape[1], 2 * w + 2 - x.shape[2]
    cells = _kept(_cells(lax.pad(x, zero, ((0, 0, 0), (0, rows, 0), (0, cols, 0), (0, 0, 0))), 2))
    return [
        [cells[a % 2][b % 2][:, a // 2 : a // 2 + h, b // 2 : b // 2 + w] for b in range(4)]
        for a in range(4)
    ]


def _sandwich(matrix: np.ndarray, grid: Grid) -> Grid:
    """Computes `matrix @ grid @ matrix.T` for a grid of arrays."""

    def combine(row: np.ndarray, xs: Sequence[Array]) -> Array:
        return reduce(jnp.add, [float(c) * x for c, x in zip(row, xs, strict=True) if c])

    columns = [[combine(row, column) for row in matrix] for column in zip(*grid, strict=True)]
    return [[combine(row, xs) for row in matrix] for xs in zip(*columns, strict=True)]


def _cells(x: Array, n: int) -> Grid:
    """Returns pixel (i, j) of each n x n window, [B, H // n, W // n, C], as entry (i, j)."""
    batch, h, w, channels = x.shape
    shape = (batch, h // n, w // n, channels)
    windows = x.reshape(batch, h // n, n, w // n, n, channels)
    # Split rather than slice: the gradient of slices is a slow sum of padded arrays.
    rows = lax.split(windows, (1,) * n, axis=2)
    return [[cell.reshape(shape) for cell in lax.split(row, (1,) * n, axis=4)] for row in rows]


def _kept(grid: Grid) -> Grid:
    """Returns the same grid, computed once; XLA would otherwise recompute it at each use.

    XLA does not fuse through a stack, and the barrier keeps it from removing the stack.
    """
    stacked = lax.optimization_barrier(jnp.stack([x for row in grid for x in row]))
    flat = iter(lax.split(stacked, (1,) * stacked.shape[0], axis=0))
    return [[jnp.squeeze(next(flat), 0) for _ in row] for row in grid]

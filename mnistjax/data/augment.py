"""Random image augmentations, batched and compiled with the step that uses them.

Each is a pure function `(images, *, key, ...) -> images` on float32 images [B, H, W, C]. It draws a
separate change for every image, and reads pixels outside the image as zeros, the background of
MNIST. Set the strength with `functools.partial`, and chain several with `compose`.

Pass a key that nothing else draws from or splits. In JAX, `split(key)[i]` equals `fold_in(key, i)`,
so a draw from `fold_in(key, 0)` elsewhere could give the same random numbers.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


class Augment(Protocol):
    """An augmentation whose strength is already set."""

    def __call__(self, images: jax.Array, *, key: jax.Array) -> jax.Array:
        """Maps float images [B, H, W, C] in [0, 1] to images of the same shape."""


def compose(*augments: Augment) -> Augment:
    """Chains augmentations, each with its own key.

    Args:
        *augments: functions `(images, *, key) -> images`; without any, the result is the identity.

    Returns:
        The function `(images, *, key) -> images`, which gives the i-th augmentation the key
        `fold_in(key, i)`.

    Example:
        >>> from functools import partial
        >>> augment = compose(partial(random_shift, pixels=2), partial(cutout, size=4))
        >>> jax.jit(augment)(jnp.ones((8, 28, 28, 1)), key=jax.random.key(0)).shape
        (8, 28, 28, 1)
    """

    def augment(images: jax.Array, *, key: jax.Array) -> jax.Array:
        for index, step in enumerate(augments):
            images = step(images, key=jax.random.fold_in(key, index))
        return images

    return augment


def random_shift(images: jax.Array, *, key: jax.Array, pixels: int) -> jax.Array:
    """Shifts each image by a whole number of pixels, drawn from -pixels to pixels on each axis.

    Args:
        images: float [B, H, W, C].
        key: PRNG key that is used nowhere else.
        pixels: the largest shift, >= 0.

    Returns:
        float [B, H, W, C].

    Example:
        >>> shift = jax.jit(random_shift, static_argnames="pixels")
        >>> shift(jnp.ones((8, 28, 28, 1)), key=jax.random.key(0), pixels=2).shape
        (8, 28, 28, 1)
    """
    pad = [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)]
    starts = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1, jnp.int32)

    def crop(padded: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(padded, (*start, jnp.int32(0)), images.shape[1:])

    return jax.vmap(crop)(jnp.pad(images, pad), starts)


def random_affine(
    images: jax.Array,
    *,
    key: jax.Array,
    pixels: float = 0.0,
    degrees: float = 0.0,
    scale: float = 0.0,
) -> jax.Array:
    """Rotates, scales and shifts each image around its center, in one bilinear resampling.

    Args:
        images: float [B, H, W, C].
        key: PRNG key that is used nowhere else.
        pixels: the largest shift on each axis, in pixels, fractions included.
        degrees: the largest rotation in either direction.
        scale: the largest relative change of size, below 1: 0.1 draws factors from 0.9 to 1.1.

    Returns:
        float [B, H, W, C].

    Example:
        >>> images = jnp.ones((8, 28, 28, 1))
        >>> jax.jit(random_affine)(images, key=jax.random.key(0), pixels=2.0, degrees=15.0).shape
        (8, 28, 28, 1)
    """
    angle_key, scale_key, shift_key = jax.random.split(key, 3)
    batch = len(images)
    angles = jax.random.uniform(angle_key, (batch,), jnp.float32, -degrees, degrees)
    factors = 1 + jax.random.uniform(scale_key, (batch,), jnp.float32, -scale, scale)
    shifts = jax.random.uniform(shift_key, (batch, 2), jnp.float32, -pixels, pixels)
    return affine(images, degrees=angles, factors=factors, shifts=shifts)


def affine(
    images: jax.Array, *, degrees: jax.Array, factors: jax.Array, shifts: jax.Array
) -> jax.Array:
    """Rotates, scales and shifts each image around its center by given amounts, bilinearly.

    Args:
        images: float [B, H, W, C].
        degrees: float [B], counterclockwise rotation.
        factors: float [B], ratio of the new size to the old one, positive.
        shifts: float [B, 2], rows down and columns right, in pixels, fractions included.

    Returns:
        float [B, H, W, C].
    """
    height, width = images.shape[1:3]

    def warp_one(
        image: jax.Array, angle: jax.Array, factor: jax.Array, shift: jax.Array
    ) -> jax.Array:
        # The inverse map gives the position in the input that each output pixel is read from.
        center = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
        grid = _pixel_grid(height, width) - (center + shift)[None, None]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        inverse = jnp.array([[cos, sin], [-sin, cos]]) / factor
        return sample(image, grid @ inverse.T + center[None, None])

    return jax.vmap(warp_one)(images, jnp.deg2rad(degrees), factors, shifts)


def random_rotate(images: jax.Array, *, key: jax.Array, degrees: float) -> jax.Array:
    """Rotates each image around its center by up to `degrees` in either direction.

    Args:
        images: float [B, H, W, C].
        key: PRNG key that is used nowhere else.
        degrees: the largest rotation.

    Returns:
        float [B, H, W, C].

    Example:
        >>> images = jnp.ones((8, 28, 28, 1))
        >>> jax.jit(random_rotate)(images, key=jax.random.key(0), degrees=15.0).shape
        (8, 28, 28, 1)
    """
    return random_affine(images, key=key, degrees=degrees)


def random_scale(images: jax.Array, *, key: jax.Array, scale: float) -> jax.Array:
    """Scales each image around its center by a factor from 1 - scale to 1 + scale.

    Args:
        images: float [B, H, W, C].
        key: PRNG key that is used nowhere else.
        scale: the largest relative change of size, below 1.

    Returns:
        float [B, H, W, C].

    Example:
        >>> images = jnp.ones((8, 28, 28, 1))
        >>> jax.jit(random_scale)(images, key=jax.random.key(0), scale=0.1).shape
        (8, 28, 28, 1)
    """
    return random_affine(images, key=key, scale=scale)


def cutout(images: jax.Array, *, key: jax.Array, size: int) -> jax.Array:
    """Sets a random square of each image to zero.

    From DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552.

    Args:
        images: float [B, H, W, C].
        key: PRNG key that is used nowhere else.
        size: side of the square in pixels. Its center may be any pixel, so part of the square may
            lie outside the image.

    Returns:
        float [B, H, W, C].

    Example:
        >>> images = jax.jit(cutout)(jnp.ones((1, 28, 28, 1)), key=jax.random.key(0), size=4)
        >>> bool(28 * 28 - 16 <= images.sum() < 28 * 28)
        True
    """
    batch, height, width = images.shape[:3]
    row_key, column_key = jax.random.split(key)

    def strip(key: jax.Array, length: int) -> jax.Array:
        start = jax.random.randint(key, (batch, 1), 0, length, jnp.int32) - size // 2
        offset = jnp.arange(length, dtype=jnp.int32)[None] - start
        return (offset >= 0) & (offset < size)

    hole = strip(row_key, height)[:, :, None] & strip(column_key, width)[:, None, :]
    return jnp.where(hole[..., None], 0.0, images)


def elastic(
    images: jax.Array, *, key: jax.Array, pixels: float | jax.Array, smoothness: float = 4.0
) -> jax.Array:
    """Distorts each image by a smooth random displacement field.

    The displacement along each axis is white noise, smoothed by a Gaussian along rows and columns
    and multiplied by `pixels` (Simard, Steinkraus and Platt, 2003,
    https://doi.org/10.1109/ICDAR.2003.1227801).

    Args:
        images: float [B, H, W, C].
        key: PRNG key that is used nowhere else.
        pixels: root mean square of the displacement along each axis, in pixels.
        smoothness: standard deviation in pixels of the Gaussian that smooths the displacement.

    Returns:
        float [B, H, W, C].

    Example:
        >>> jax.jit(elastic)(jnp.ones((8, 28, 28, 1)), key=jax.random.key(0), pixels=1.5).shape
        (8, 28, 28, 1)
    """
    batch, height, width = images.shape[:3]
    noise = jax.random.normal(key, (batch, 2, height, width), jnp.float32)
    # Rows of unit Euclidean norm keep white noise at unit variance.
    along_rows, along_columns = (gaussian_kernel(n, smoothness, norm=2) for n in (height, width))
    bend = pixels * jnp.einsum("hi,baij,wj->bhwa", along_rows, noise, along_columns)
    return jax.vmap(sample)(images, _pixel_grid(height, width)[None] + bend)


def gaussian_kernel(length: int, sigma: float | jax.Array, *, norm: int = 1) -> jax.Array:
    r"""Returns the matrix that smooths a line of pixels with a Gaussian, applied from the left.

    $w_{ij} \propto \exp(-(i - j)^2 / (2 \sigma^2))$, with each row scaled to unit norm, including
    those near the ends of the line, where the Gaussian is cut off.

    Args:
        length: number of pixels of the line.
        sigma: standard deviation in pixels, positive.
        norm: 1 for rows that sum to 1, which leave a constant line unchanged; 2 for rows whose
            squares sum to 1, which preserve the variance of white noise.

    Returns:
        float32 [length, length].

    Example:
        >>> kernel = jax.jit(gaussian_kernel, static_argnames="length")(length=3, sigma=1.0)
        >>> [round(weight, 2) for weight in kernel[0].tolist()]
        [0.57, 0.35, 0.08]
    """
    positions = jnp.arange(length, dtype=jnp.float32)
    distance = (positions[:, None] - positions[None, :]) / jnp.asarray(sigma, jnp.float32)
    weights = jnp.exp(-0.5 * jnp.square(distance))
    return weights / jnp.linalg.norm(weights, norm, axis=1, keepdims=True)


def sample(image: jax.Array, positions: jax.Array) -> jax.Array:
    """Samples an image at fractional positions by bilinear interpolation, with zeros outside.

    Args:
        image: float [H, W, C].
        positions: float [H', W', 2], row and column in pixels.

    Returns:
        float [H', W', C].

    Example:
        >>> positions = jnp.array([[[0.0, 0.25], [0.0, 9.0]]])
        >>> jax.jit(sample)(jnp.array([[[0.0], [1.0]]]), positions).ravel()
        Array([0.25, 0.  ], dtype=float32)
    """
    rows, columns = positions[..., 0], positions[..., 1]

    def channel(plane: jax.Array) -> jax.Array:
        return map_coordinates(plane, [rows, columns], order=1, mode="constant")

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def _pixel_grid(height: int, width: int) -> jax.Array:
    """Returns the row and column of every pixel, float32 [height, width, 2]."""
    return jnp.stack(jnp.mgrid[:height, :width], axis=-1).astype(jnp.float32)

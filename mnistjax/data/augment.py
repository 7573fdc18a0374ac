"""Random changes of images, batched and compiled with the step that uses them.

Each is a pure function `(images, *, key, ...) -> images` on float images [B, H, W, C], draws anew
for every image, and fills what comes in from outside with zeros, the background of MNIST. Give the
strength with `functools.partial`, and chain several with `compose`.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


class Augment(Protocol):
    """A random change of images, with its strength already given."""

    def __call__(self, images: jax.Array, *, key: jax.Array) -> jax.Array:
        """Maps float images [B, H, W, C] in [0, 1] to images of the same shape."""


def compose(*augments: Augment) -> Augment:
    """Returns the augmentation that applies `augments` one after the other, each with its own key.

    Args:
        *augments: functions `(images, *, key) -> images`; none at all is the identity.
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
        key: PRNG key.
        pixels: the largest shift, >= 0.
    """
    pad = [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)]
    starts = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)

    def crop(padded: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(crop)(jnp.pad(images, pad), starts)


def random_affine(
    images: jax.Array,
    *,
    key: jax.Array,
    pixels: float = 0.0,
    degrees: float = 0.0,
    scale: float = 0.0,
) -> jax.Array:
    """Rotates, scales and shifts each image around its centre, in one bilinear resampling.

    Args:
        images: float [B, H, W, C].
        key: PRNG key.
        pixels: the largest shift on each axis, in pixels and parts of them.
        degrees: the largest rotation either way.
        scale: the largest relative change of size, below 1: 0.1 draws factors from 0.9 to 1.1.
    """
    angle_key, scale_key, shift_key = jax.random.split(key, 3)
    batch = len(images)
    angles = jax.random.uniform(angle_key, (batch,), minval=-degrees, maxval=degrees)
    factors = 1 + jax.random.uniform(scale_key, (batch,), minval=-scale, maxval=scale)
    shifts = jax.random.uniform(shift_key, (batch, 2), minval=-pixels, maxval=pixels)
    return affine(images, degrees=angles, factors=factors, shifts=shifts)


def affine(
    images: jax.Array, *, degrees: jax.Array, factors: jax.Array, shifts: jax.Array
) -> jax.Array:
    """Rotates, scales and shifts each image by its own amounts, around its centre, bilinearly.

    Args:
        images: float [B, H, W, C].
        degrees: float [B], rotation.
        factors: float [B], size after to size before, positive.
        shifts: float [B, 2], rows down and columns right, in pixels and parts of them.
    """
    height, width = images.shape[1:3]

    def warp_one(
        image: jax.Array, angle: jax.Array, factor: jax.Array, shift: jax.Array
    ) -> jax.Array:
        # The inverse map: where in the old image each pixel of the new one comes from.
        centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
        grid = jnp.stack(jnp.mgrid[:height, :width], axis=-1) - (centre + shift)[None, None]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        inverse = jnp.array([[cos, sin], [-sin, cos]]) / factor
        return sample(image, grid @ inverse.T + centre[None, None])

    return jax.vmap(warp_one)(images, jnp.deg2rad(degrees), factors, shifts)


def random_rotate(images: jax.Array, *, key: jax.Array, degrees: float) -> jax.Array:
    """Rotates each image around its centre by up to `degrees` either way."""
    return random_affine(images, key=key, degrees=degrees)


def random_scale(images: jax.Array, *, key: jax.Array, scale: float) -> jax.Array:
    """Scales each image around its centre by a factor from 1 - scale to 1 + scale."""
    return random_affine(images, key=key, scale=scale)


def cutout(images: jax.Array, *, key: jax.Array, size: int) -> jax.Array:
    """Sets a square of each image to zero (DeVries and Taylor, 2017).

    Args:
        images: float [B, H, W, C].
        key: PRNG key.
        size: side of the square in pixels. Its centre lies anywhere, so part of it may fall
            outside.
    """
    batch, height, width = images.shape[:3]
    row_key, column_key = jax.random.split(key)

    def strip(key: jax.Array, length: int) -> jax.Array:
        start = jax.random.randint(key, (batch, 1), 0, length) - size // 2
        offset = jnp.arange(length)[None] - start
        return (offset >= 0) & (offset < size)

    hole = strip(row_key, height)[:, :, None] & strip(column_key, width)[:, None, :]
    return jnp.where(hole[..., None], 0.0, images)


def elastic(
    images: jax.Array, *, key: jax.Array, pixels: float | jax.Array, smoothness: float = 4.0
) -> jax.Array:
    """Bends each image by a smooth random displacement (Simard, Steinkraus and Platt, 2003).

    Args:
        images: float [B, H, W, C].
        key: PRNG key.
        pixels: root mean square of the displacement along each axis.
        smoothness: standard deviation in pixels of the Gaussian that smooths the displacement.
    """
    batch, height, width = images.shape[:3]

    def smoother(length: int) -> jax.Array:
        distance = jnp.arange(length)[:, None] - jnp.arange(length)[None, :]
        weights = jnp.exp(-0.5 * jnp.square(distance / smoothness))
        # Rows of unit Euclidean norm keep white noise at unit variance.
        return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)

    noise = jax.random.normal(key, (batch, 2, height, width))
    bend = pixels * jnp.einsum("hi,baij,wj->bhwa", smoother(height), noise, smoother(width))
    grid = jnp.stack(jnp.mgrid[:height, :width], axis=-1)
    return jax.vmap(sample)(images, grid[None] + bend)


def sample(image: jax.Array, positions: jax.Array) -> jax.Array:
    """Reads an image at positions between its pixels, bilinearly, with zeros outside.

    Args:
        image: float [H, W, C].
        positions: float [H', W', 2], row and column in pixels.

    Returns:
        float [H', W', C].
    """
    rows, columns = positions[..., 0], positions[..., 1]

    def channel(plane: jax.Array) -> jax.Array:
        return map_coordinates(plane, [rows, columns], order=1, mode="constant")

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

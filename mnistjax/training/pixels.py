"""Converts stored pixels to the input of a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def scale_pixels(images: jax.Array | np.ndarray) -> jax.Array:
    """Converts images to the input of a network: float32, with black 0 and white 1.

    Args:
        images: any shape. uint8, from 0 to 255, is divided by 255; bool becomes 0 and 1; floating
            point of any width, from 0 to 1, keeps its values.

    Returns:
        float32 of the same shape.

    Raises:
        TypeError: the dtype is any other, whose range of values is unknown.

    >>> scale_pixels(np.array([0, 255], np.uint8))
    Array([0., 1.], dtype=float32)
    """
    dtype = images.dtype
    if dtype == jnp.uint8:
        return jnp.asarray(images).astype(jnp.float32) / 255
    if dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(images, jnp.float32)
    raise TypeError(
        f"expected images of uint8 (0 to 255), bool or floating point (0 to 1), found {dtype}"
    )

"""Measuring the accuracy of a network on shifted, distorted, noisy or inverted images."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import Split
from mnistjax.data.augment import affine, elastic, gaussian_kernel
from mnistjax.errors import UnknownNameError
from mnistjax.evaluation.sampling import draw_sample
from mnistjax.runs import TrainedModel, evaluate
from mnistjax.training import in_batches, scale_pixels

_BATCH_SIZE = 500


class CorruptFn(Protocol):
    """A function that corrupts images by a given strength; strength 0 changes nothing."""

    def __call__(self, images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
        """Maps float images [B, H, W, C] in [0, 1] to images of the same shape."""


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt images, and the strengths to measure.

    Attributes:
        unit: unit of the strength.
        strengths: the strengths that are measured, in ascending order.
        function: `(images, strength, *, key) -> images`.
    """

    unit: str
    strengths: tuple[float, ...]
    function: CorruptFn


@dataclass(frozen=True)
class Robustness:
    """The accuracy under one corruption at one strength.

    Attributes:
        corruption: its name, a key of `CORRUPTIONS`, or "none".
        strength: how strong the corruption is, in units of `unit`.
        unit: unit of the strength; empty for "none".
        accuracy: fraction of right predictions.
        count: number of images.
    """

    corruption: str
    strength: float
    unit: str
    accuracy: float
    count: int


def _shift(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Shifts each image by `strength` pixels in a random direction."""
    angle = jax.random.uniform(key, (len(images),), maxval=2 * jnp.pi)
    shifts = strength * jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
    still = jnp.zeros(len(images))
    return affine(images, degrees=still, factors=still + 1, shifts=shifts)


def _rotate(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Rotates each image by `strength` degrees, clockwise or counterclockwise at random."""
    degrees = strength * jax.random.rademacher(key, (len(images),), jnp.float32)
    return affine(
        images,
        degrees=degrees,
        factors=jnp.ones(len(images)),
        shifts=jnp.zeros((len(images), 2)),
    )


def _scale(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Enlarges or shrinks each image, at random, by `strength` percent."""
    sign = jax.random.rademacher(key, (len(images),), jnp.float32)
    return affine(
        images,
        degrees=jnp.zeros(len(images)),
        factors=1 + sign * strength / 100,
        shifts=jnp.zeros((len(images), 2)),
    )


def _blur(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Convolves with a Gaussian of standard deviation `strength` pixels."""
    del key
    sigma = jnp.maximum(strength, 1e-3)
    rows, columns = (gaussian_kernel(length, sigma) for length in images.shape[1:3])
    return jnp.einsum("hi,bijc,wj->bhwc", rows, images, columns)


def _noise(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Adds Gaussian noise whose standard deviation is `strength` percent of the range."""
    return images + strength / 100 * jax.random.normal(key, images.shape)


def _lose_contrast(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Moves the pixels of each image toward their mean by `strength` percent."""
    del key
    mean = jnp.mean(images, (1, 2, 3), keepdims=True)
    return images + strength / 100 * (mean - images)


def _invert(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Blends each image with its negative; at 100 percent only the negative remains."""
    del key
    return images + strength / 100 * (1 - 2 * images)


def _bend(images: jax.Array, strength: jax.Array, *, key: jax.Array) -> jax.Array:
    """Distorts each image elastically by a root mean square of `strength` pixels."""
    return elastic(images, key=key, pixels=strength)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "shift": Corruption("pixels", (1, 2, 4, 6), _shift),
        "rotation": Corruption("degrees", (10, 20, 30, 45), _rotate),
        "scaling": Corruption("%", (10, 20, 30, 40), _scale),
        "blur": Corruption("pixels", (0.5, 1, 1.5, 2), _blur),
        "noise": Corruption("%", (10, 20, 30, 40), _noise),
        "contrast": Corruption("%", (25, 50, 75), _lose_contrast),
        "inversion": Corruption("%", (25, 75, 100), _invert),
        "elastic": Corruption("pixels", (0.5, 1, 1.5, 2), _bend),
    }
)
"""The corruptions by name: unit, strengths and function."""


def corrupt(images: np.ndarray, name: str, strength: float, *, seed: int = 0) -> np.ndarray:
    """Corrupts images.

    Args:
        images: uint8 [N, H, W, C].
        name: a key of `CORRUPTIONS`.
        strength: how strong it is, in the unit of the corruption; 0 changes nothing.
        seed: seed of the random directions, noise and distortions; the same for every strength.

    Returns:
        uint8 [N, H, W, C]: the corrupted images, rounded to integers.

    Raises:
        UnknownNameError: there is no corruption of this name.

    >>> images = np.full((1, 28, 28, 1), 55, np.uint8)
    >>> int(corrupt(images, "inversion", 100).max())
    200
    """
    if name not in CORRUPTIONS:
        raise UnknownNameError("corruption", name, CORRUPTIONS)
    key = jax.random.fold_in(jax.random.key(seed), list(CORRUPTIONS).index(name))
    program = functools.partial(_jitted_corruption(name), strength=np.float32(strength), key=key)
    # Each image has a key from its index, so that its result does not depend on the batch size.
    return in_batches(program, images, np.arange(len(images)), batch_size=_BATCH_SIZE)


@functools.cache
def _jitted_corruption(name: str) -> jax.stages.Wrapped:
    function = CORRUPTIONS[name].function

    def one(image: jax.Array, index: jax.Array, strength: jax.Array, key: jax.Array) -> jax.Array:
        changed = function(image[None], strength, key=jax.random.fold_in(key, index))[0]
        return jnp.round(255 * jnp.clip(changed, 0, 1)).astype(jnp.uint8)

    def program(
        images: jax.Array, indices: jax.Array, *, strength: jax.Array, key: jax.Array
    ) -> jax.Array:
        pixels = scale_pixels(images)
        return jax.vmap(one, in_axes=(0, 0, None, None))(pixels, indices, strength, key)

    return jax.jit(program)


def measure_robustness(
    trained: TrainedModel, split: Split, *, seed: int = 0, max_images: int | None = None
) -> tuple[Robustness, ...]:
    """Measures the accuracy under every corruption of `CORRUPTIONS` at each of its strengths.

    Args:
        trained: the network.
        split: the images and their labels.
        seed: seed of the sample and the corruptions; the same seed gives the same rows.
        max_images: number of images to measure on, drawn as a stratified sample; all images if
            None.

    Returns:
        First a row without corruption, named "none", then one per corruption and strength.

    Raises:
        ConfigError: `max_images` is less than 1.
        DataFormatError: the images or labels do not match the network; see `evaluate`.
    """
    sample = draw_sample(split, max_images, seed=seed)

    def row(name: str, strength: float, unit: str, images: np.ndarray) -> Robustness:
        metrics = evaluate(trained, Split(images, sample.labels))
        accuracy = metrics.summary()["accuracy"]
        return Robustness(name, strength, unit, accuracy, len(sample))

    rows = [row("none", 0.0, "", sample.images)]
    for name, corruption in CORRUPTIONS.items():
        for strength in corruption.strengths:
            changed = corrupt(sample.images, name, strength, seed=seed)
            rows.append(row(name, strength, corruption.unit, changed))
    return tuple(rows)

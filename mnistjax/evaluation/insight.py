"""A look inside a network: its first filters, what a decision hangs on, its last hidden layer."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.evaluation.inference import in_batches
from mnistjax.models import Model, Variables
from mnistjax.training import scale_pixels

EMBEDDINGS = ("pca", "tsne")
_TSNE_COLUMNS = 50


def first_layer_filters(
    model: Model, variables: Variables, *, image_shape: tuple[int, int, int] = (28, 28, 1)
) -> np.ndarray:
    """Returns what the first layer looks for: its weights as little images.

    Args:
        model: the network, for its name.
        variables: its parameters and running statistics.
        image_shape: (height, width, channels) of the images that it takes.

    Returns:
        float32 [n, h, w]: the kernels of the first convolution, or the columns of the first dense
        layer in the shape of an image; averaged over the channels of the image.

    Raises:
        ConfigError: no weights of such a shape are found.
    """
    height, width, channels = image_shape
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(variables["params"])]
    for kernel in leaves:
        if kernel.ndim == 4 and kernel.shape[2] == channels:
            return np.moveaxis(kernel.mean(2), -1, 0)
    for matrix in leaves:
        if matrix.ndim == 2 and matrix.shape[0] == height * width * channels:
            return np.moveaxis(matrix.reshape(*image_shape, -1).mean(2), -1, 0)
    raise ConfigError(
        f"expected a first layer for images of shape {image_shape} in model {model.name!r}, found "
        f"weights of shapes {', '.join(str(leaf.shape) for leaf in leaves)}"
    )


def saliency(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    batch_size: int = 100,
) -> np.ndarray:
    """Returns how the logit of a class changes with each pixel (Simonyan et al., 2014).

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: uint8 [N, H, W, C], or float in [0, 1].
        classes: int [N], the class whose logit is looked at, one for each image.
        batch_size: images at a time.

    Returns:
        float32 [N, H, W]: the gradient of the logit by the pixel in [0, 1], signed, summed over
        the channels.
    """
    program = _jitted_saliency(model)
    return in_batches(
        functools.partial(program, variables), images, np.asarray(classes), batch_size=batch_size
    )


@functools.lru_cache(maxsize=32)
def _jitted_saliency(model: Model) -> jax.stages.Wrapped:
    def gradient(variables: Variables, images: jax.Array, classes: jax.Array) -> jax.Array:
        def chosen_logits(pixels: jax.Array) -> jax.Array:
            logits, _ = model.apply(variables, pixels)
            # Each logit depends on its own image alone, so the sum's gradient holds them all.
            return jnp.sum(jnp.take_along_axis(logits, classes[:, None], 1))

        return jnp.sum(jax.grad(chosen_logits)(scale_pixels(jnp.asarray(images))), -1)

    return jax.jit(gradient)


def hidden_features(
    model: Model, variables: Variables, images: np.ndarray, *, batch_size: int = 100
) -> np.ndarray:
    """Returns what the last layer decides on: the activations of the last hidden layer.

    Args:
        model: the network, with its third function `features`, as `from_linen` makes it.
        variables: its parameters and running statistics.
        images: uint8 [N, H, W, C], or float in [0, 1].
        batch_size: images at a time.

    Returns:
        float32 [N, F]. For softmax regression, which hides nothing, these are the pixels.

    Raises:
        ConfigError: the network does not tell its features.
    """
    if model.features is None:
        raise ConfigError(f"expected a model with a function `features`, found {model.name!r}")
    program = _jitted_features(model)
    return in_batches(functools.partial(program, variables), images, batch_size=batch_size)


@functools.lru_cache(maxsize=32)
def _jitted_features(model: Model) -> jax.stages.Wrapped:
    def features(variables: Variables, images: jax.Array) -> jax.Array:
        assert model.features is not None
        return model.features(variables, scale_pixels(jnp.asarray(images)))

    return jax.jit(features)


def embed(
    features: np.ndarray, *, method: Literal["pca", "tsne"] = "pca", seed: int = 0
) -> np.ndarray:
    """Lays features out in the plane, so that what is alike lies close together.

    Args:
        features: float [N, F], N and F at least 2 (N at least 4 for "tsne").
        method: "pca", the two directions of largest variance; or "tsne" (van der Maaten and
            Hinton, 2008), which keeps neighbours together and takes longer: a thousand images a
            few seconds.
        seed: decides what the method draws.

    Returns:
        float [N, 2].

    Raises:
        UnknownNameError: there is no such method.
        ConfigError: too few rows or columns.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if method not in EMBEDDINGS:
        raise UnknownNameError("embedding", method, EMBEDDINGS)
    least = 2 if method == "pca" else 4
    if len(features) < least or features.shape[1] < 2:
        raise ConfigError(
            f"expected features of at least {least} images and 2 columns for {method!r}, "
            f"found {list(features.shape)}"
        )
    if method == "pca":
        return PCA(2, random_state=seed).fit_transform(features)
    # As its authors do: fewer columns first, which costs no neighbourhood and much less time.
    columns = min(_TSNE_COLUMNS, *features.shape)
    reduced = PCA(columns, random_state=seed).fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    # Its threads wait for each other busily: where anything else runs too, ten times as long.
    with threadpool_limits(1):
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)

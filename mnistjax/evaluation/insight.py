"""Inspecting a network: first-layer filters, saliency, features of the last hidden layer."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import Model, Variables
from mnistjax.runs import TrainedModel
from mnistjax.runs.ensemble import is_ensemble
from mnistjax.training import in_batches, scale_pixels

PROJECTIONS = ("pca", "tsne")
_TSNE_COLUMNS = 50
# Half of scikit-learn's: for 500 test images, as the last layer of `speed` sees them, what t-SNE
# minimizes is 0.18 instead of 0.17, and neighbors tell the class as often (99%).
_TSNE_ITERATIONS = 500
_BATCH_SIZE = 100  # Usually only a few images are inspected.


def first_layer_filters(trained: TrainedModel) -> np.ndarray:
    """Returns the weights of the first layer as small images.

    Args:
        trained: the network.

    Returns:
        float32 [n, h, w]: the kernels of the first convolution, or the columns of the first dense
        layer reshaped to images; averaged over the input channels.

    Raises:
        ConfigError: no layer has weights that match the image shape, or the network is an ensemble,
            which has a first layer for each of its networks.

    >>> import mnistjax
    >>> model, info = mnistjax.create_model("softmax"), mnistjax.DatasetInfo("mine", 10)
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> first_layer_filters(TrainedModel(model, variables, info)).shape
    (10, 28, 28)
    """
    if is_ensemble(trained.model):
        raise ConfigError(f"expected one network, found an {trained.model.name}")
    image_shape = tuple(trained.info.image_shape)
    height, width, channels = image_shape
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.variables["params"])]
    for kernel in leaves:
        if kernel.ndim == 4 and kernel.shape[2] == channels:
            return np.moveaxis(kernel.mean(2), -1, 0)
    for matrix in leaves:
        if matrix.ndim == 2 and matrix.shape[0] == height * width * channels:
            return np.moveaxis(matrix.reshape(*image_shape, -1).mean(2), -1, 0)
    shapes = ", ".join(str(leaf.shape) for leaf in leaves)
    raise ConfigError(
        f"expected a first layer for images of shape {image_shape} in model "
        f"{trained.model.name!r}, found weights of shapes {shapes}"
    )


def saliency(
    trained: TrainedModel,
    images: np.ndarray,
    classes: np.ndarray,
    *,
    batch_size: int = _BATCH_SIZE,
) -> np.ndarray:
    """Computes the gradient of the logit of a class with respect to each pixel.

    This is the image-specific class saliency d logit_c / d pixel of Simonyan et al. (2014,
    https://arxiv.org/abs/1312.6034), with its sign kept.

    Args:
        trained: the network.
        images: uint8 [N, H, W, C], or float [N, H, W, C] with pixels in [0, 1].
        classes: int [N], for each image the class whose logit is differentiated.
        batch_size: images per call of the compiled program.

    Returns:
        float32 [N, H, W]: the gradient with respect to pixels in [0, 1], summed over the channels.

    Raises:
        ConfigError: `batch_size` is less than 1.

    >>> import mnistjax
    >>> images = np.zeros((2, 28, 28, 1), np.uint8)
    >>> model, info = mnistjax.create_model("softmax"), mnistjax.DatasetInfo("mine", 10)
    >>> variables = model.init(jax.random.key(0), scale_pixels(images))
    >>> saliency(TrainedModel(model, variables, info), images, np.array([3, 8])).shape
    (2, 28, 28)
    """
    program = functools.partial(_jitted_saliency(trained.model), trained.variables)
    return in_batches(program, images, np.asarray(classes), batch_size=batch_size)


@functools.lru_cache(maxsize=32)
def _jitted_saliency(model: Model) -> jax.stages.Wrapped:
    def gradient(variables: Variables, images: jax.Array, classes: jax.Array) -> jax.Array:
        def chosen_logits(pixels: jax.Array) -> jax.Array:
            logits, _ = model.apply(variables, pixels)
            # Each logit depends on its own image only, so one gradient of the sum gives all.
            return jnp.sum(jnp.take_along_axis(logits, classes[:, None], 1))

        return jnp.sum(jax.grad(chosen_logits)(scale_pixels(images)), -1)

    return jax.jit(gradient)


def hidden_features(
    trained: TrainedModel, images: np.ndarray, *, batch_size: int = _BATCH_SIZE
) -> np.ndarray:
    """Computes the activations of the last hidden layer, the input of the last dense layer.

    Args:
        trained: the network; its model needs the function `features`, which `from_linen` provides.
        images: uint8 [N, H, W, C], or float [N, H, W, C] with pixels in [0, 1].
        batch_size: images per call of the compiled program.

    Returns:
        float32 [N, F]. For softmax regression, which has no hidden layer, these are the pixels.

    Raises:
        ConfigError: the model has no function `features`, or `batch_size` is less than 1.

    >>> import mnistjax
    >>> images = np.zeros((2, 28, 28, 1), np.uint8)
    >>> model, info = mnistjax.create_model("mlp"), mnistjax.DatasetInfo("mine", 10)
    >>> variables = model.init(jax.random.key(0), scale_pixels(images))
    >>> hidden_features(TrainedModel(model, variables, info), images).shape
    (2, 100)
    """
    if trained.model.features is None:
        raise ConfigError(
            f"expected a model with a function `features`, found {trained.model.name!r}"
        )
    program = functools.partial(_jitted_features(trained.model), trained.variables)
    return in_batches(program, images, batch_size=batch_size)


@functools.lru_cache(maxsize=32)
def _jitted_features(model: Model) -> jax.stages.Wrapped:
    def features(variables: Variables, images: jax.Array) -> jax.Array:
        assert model.features is not None
        return model.features(variables, scale_pixels(images))

    return jax.jit(features)


def project_2d(
    features: np.ndarray, *, method: Literal["pca", "tsne"] = "pca", seed: int = 0
) -> np.ndarray:
    """Projects features to two dimensions, so that similar ones lie close together.

    Args:
        features: float [N, F], N and F at least 2 (N at least 4 for "tsne").
        method: "pca" projects onto the two directions of largest variance (Pearson, 1901,
            https://doi.org/10.1080/14786440109462720); "tsne" keeps neighbors together (van der
            Maaten and Hinton, 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html) and
            takes a few seconds for a thousand images.
        seed: seed of the random draws of the method.

    Returns:
        float [N, 2].

    Raises:
        UnknownNameError: `method` is neither "pca" nor "tsne".
        ConfigError: there are too few rows or columns.

    >>> points = project_2d(np.array([[0.0, 0, 0], [3, 4, 0], [6, 8, 0]]))
    >>> np.linalg.norm(points[0] - points[2]).round(3).item()
    10.0
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if method not in PROJECTIONS:
        raise UnknownNameError("projection", method, PROJECTIONS)
    min_rows = 2 if method == "pca" else 4
    if len(features) < min_rows or features.shape[1] < 2:
        raise ConfigError(
            f"expected features of at least {min_rows} images and 2 columns for {method!r}, "
            f"found {list(features.shape)}"
        )
    if method == "pca":
        return PCA(2, random_state=seed).fit_transform(features)
    # As in the paper, PCA reduces the columns first: this keeps neighborhoods and saves time.
    columns = min(_TSNE_COLUMNS, *features.shape)
    reduced = PCA(columns, random_state=seed).fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    # Its threads spin while they wait: beside other busy programs, several take ten times as long.
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=_TSNE_ITERATIONS)
    with threadpool_limits(1):
        return tsne.fit_transform(reduced)

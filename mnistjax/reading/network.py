"""Applying a network: the probability of every class, and a check of the image shape."""

from __future__ import annotations

import numpy as np

from mnistjax.errors import ConfigError
from mnistjax.runs import TrainedModel, predict_logits


def probabilities(trained: TrainedModel, images: np.ndarray) -> np.ndarray:
    """Returns the probability of every class for every image.

    Args:
        trained: the network.
        images: uint8 [N, H, W, C]; N may be 0.

    Returns:
        float32 [N, num_classes]; each row sums to 1.
    """
    from scipy.special import softmax

    return softmax(predict_logits(trained, images), axis=-1)


def check_image_shape(trained: TrainedModel, shape: tuple[int, ...]) -> None:
    """Checks that a network takes images of a shape.

    Args:
        trained: the network.
        shape: (H, W, C) of the images.

    Raises:
        ConfigError: the network takes images of another shape.
    """
    expected, found = tuple(shape), tuple(trained.info.image_shape)
    if found != expected:
        raise ConfigError(f"expected a network for images of shape {expected}, found {found}")

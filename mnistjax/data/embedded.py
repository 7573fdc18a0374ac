"""The digits bundled with scikit-learn: real data that needs no download."""

from __future__ import annotations

import numpy as np


def embedded_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's 1,797 8x8 digits, resized to 20x20 and padded to 28x28 as in MNIST.

    Returns:
        (images, labels): uint8 [1797, 28, 28, 1] and int32 [1797].

    Example:
        >>> images, labels = embedded_digits()
        >>> images.shape, labels[:3]
        ((1797, 28, 28, 1), array([0, 1, 2], dtype=int32))
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(small), 28, 28, 1), np.uint8)
    for image, pixels in zip(images, small, strict=True):
        resized = Image.fromarray(pixels).resize((20, 20), Image.Resampling.BICUBIC)
        image[4:24, 4:24, 0] = np.asarray(resized)
    return images, digits.target.astype(np.int32)

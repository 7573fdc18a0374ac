"""Converting strokes to images in the format of MNIST.

The procedure is that of MNIST (LeCun et al., 1998, https://doi.org/10.1109/5.726791): the
black-and-white digit is scaled to fit a box of 20x20 pixels with its aspect ratio kept, which makes
gray edges, and placed in 28x28 pixels with its center of mass in the middle.
"""

from __future__ import annotations

import numpy as np

from mnistjax.reading.planes import bounding_box, crop, fit_size, resize, stroke_width

SIDE = 28
BOX = 20
CENTER = 14.0  # Row and column of the center of mass; 13.99 and 14.00 were measured in MNIST.

# Stroke widths in pixels of the box; strokes outside of this range are redrawn. In MNIST, 5 % are
# thinner than 1.9 and 5 % are thicker than 4.4; the median is 2.8.
MIN_STROKE, MAX_STROKE = 2.0, 3.8


def is_like_mnist(gray: np.ndarray) -> bool:
    """Returns whether an image already has the format of MNIST.

    Args:
        gray: float [H, W] in [0, 1].
    """
    from scipy import ndimage

    if gray.shape != (SIDE, SIDE):
        return False
    inner = gray[2:-2, 2:-2]
    margin_is_black = float(gray.sum() - inner.sum()) < 0.01 * float(gray.sum())
    if not margin_is_black or gray.max() < 0.5 or np.median(gray) > 0.1:
        return False
    longest = max(side.stop - side.start for side in bounding_box(gray > 0.1))
    off_center = np.abs(np.subtract(ndimage.center_of_mass(gray), CENTER)).max()
    return bool(abs(longest - BOX) <= 2 and off_center <= 1.5)


def normalize_strokes(mask: np.ndarray) -> np.ndarray:
    """Redraws strokes that are far thinner or thicker than those of MNIST.

    Args:
        mask: bool [H, W] of one digit, cropped.

    Returns:
        bool [H', W'], cropped.
    """
    from scipy import ndimage

    for _ in range(2):  # Redrawing changes the size of the digit and so the unit of its width.
        unit = max(mask.shape) / BOX
        width = stroke_width(mask) / unit
        change = (np.clip(width, MIN_STROKE, MAX_STROKE) - width) * unit / 2
        if abs(change) < 0.5:
            break
        if change > 0:
            grown = np.pad(mask, int(np.ceil(change)) + 1)
            mask = crop(ndimage.distance_transform_edt(~grown) <= change)
        else:
            mask = crop(_thinned(mask, -change))
    return mask


def _thinned(mask: np.ndarray, radius: float) -> np.ndarray:
    """Erodes a mask by `radius` but keeps the center line, so that strokes do not break."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ridge = mask & (depth >= ndimage.maximum_filter(depth, 3))
    ridge &= depth > 0.5 * np.median(depth[ridge])  # Without the spurs that run into corners.
    line = ndimage.distance_transform_edt(~ridge) <= MIN_STROKE / 2 * max(mask.shape) / BOX
    return (depth > radius) | (line & mask)


def to_mnist(mask: np.ndarray) -> np.ndarray:
    """Converts the strokes of one digit to an image in the format of MNIST.

    Args:
        mask: bool or float [H, W] of one digit, cropped.

    Returns:
        uint8 [28, 28, 1].

    >>> to_mnist(np.ones((60, 30), bool)).shape
    (28, 28, 1)
    """
    from scipy import ndimage

    shape = fit_size(mask.shape, BOX)
    small = np.clip(resize(mask, shape), 0, 1)
    image = np.zeros((SIDE, SIDE, 1), np.uint8)
    top, left = (
        int(np.clip(round(CENTER - center), 0, SIDE - size))
        for center, size in zip(ndimage.center_of_mass(small), shape, strict=True)
    )
    image[top : top + shape[0], left : left + shape[1], 0] = np.round(small * 255)
    return image

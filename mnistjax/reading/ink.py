"""Telling ink from paper, and turning ink into an image as MNIST has them.

MNIST's own way (LeCun et al., 1998): black-and-white writing is cropped, reduced to a box of 20x20
pixels with its aspect kept, which makes grey edges, and put into 28x28 by its centre of mass.
"""

from __future__ import annotations

import numpy as np

from mnistjax.reading.pictures import resize

SIDE = 28
BOX = 20
CENTRE = 14.0  # Row and column of the centre of mass; measured, 13.99 and 14.00 in MNIST.

# Stroke widths in the box, in pixels, outside of which a stroke is redrawn. In MNIST 5 % are
# thinner than 1.9 and 5 % thicker than 4.4; the median is 2.8.
THINNEST, THICKEST = 2.0, 3.8

LEAST_CONTRAST = 0.02  # Of black to white; below it a picture is of one colour.

NEIGHBOURS = np.ones((3, 3), bool)  # Diagonal pixels touch.


def smooth_background(grey: np.ndarray) -> np.ndarray:
    """Estimates the paper under one digit, as a quadratic surface that ignores the ink.

    The surface is fitted to the rim first, then to all that is not far from it (Tukey's biweight),
    so ink may cover more than half of the picture.

    Args:
        grey: float [H, W].

    Returns:
        float [H, W].
    """
    small = resize(grey, longest=64)
    basis = np.stack([term.ravel() for term in _quadratic_terms(small.shape)], axis=1)
    values = small.ravel().astype(np.float64)
    weights = _rim(small.shape).ravel().astype(np.float64)
    used = 3  # A plane, until the inner part takes part.
    for _ in range(12):
        weighted = basis[:, :used] * weights[:, None]
        fit = np.linalg.lstsq(weighted.T @ basis[:, :used], weighted.T @ values, rcond=None)[0]
        residual = values - basis[:, :used] @ fit
        near = np.abs(residual[weights > 0])
        scale = 4.685 * max(1.4826 * float(np.median(near)), 0.004)
        weights = np.square(np.clip(1 - np.square(residual / scale), 0, None))
        used = basis.shape[1]
    terms = _quadratic_terms(grey.shape)
    return np.tensordot(fit, np.stack(terms), axes=1).astype(np.float32)


def _quadratic_terms(shape: tuple[int, int]) -> list[np.ndarray]:
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    y, x = np.broadcast_arrays(y[:, None], x[None])
    return [np.ones(shape), x, y, x * x, x * y, y * y]


def _rim(shape: tuple[int, int]) -> np.ndarray:
    rim = np.ones(shape, bool)
    depth = max(1, round(0.08 * max(shape)))
    rim[depth:-depth, depth:-depth] = False
    return rim


def local_background(grey: np.ndarray, window: float) -> np.ndarray:
    """Estimates the paper of a page: the median of what is around, which keeps shadows' edges.

    Args:
        grey: float [H, W].
        window: side of the square that the median is taken over, as a share of the longer side.

    Returns:
        float [H, W].
    """
    from scipy import ndimage

    small = resize(grey, longest=96)
    size = max(3, round(window * max(small.shape)))
    median = ndimage.median_filter(small, size=size, mode="nearest")
    return resize(median, shape=grey.shape)


def ink_strength(grey: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Returns how far each pixel is from the paper, in the direction of the ink.

    Whether ink is darker or lighter than its paper is told by what stands out more.

    Args:
        grey: float [H, W].
        background: float [H, W].

    Returns:
        float [H, W], positive in the ink.
    """
    difference = grey - background
    spread = 3 * 1.4826 * float(np.median(np.abs(difference)))
    outliers = difference[np.abs(difference) > spread]
    return difference if outliers.sum() > 0 else -difference


def otsu_threshold(values: np.ndarray) -> float:
    """Returns the value that parts `values` best into two groups (Otsu, 1979).

    Args:
        values: float array of any shape.
    """
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * np.square(sums / below - (sums[-1] - sums) / above)
    return float(centres[np.argmax(np.nan_to_num(between))])


def find_components(mask: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """Labels the connected parts of a mask, counting from 1.

    Args:
        mask: bool [H, W].

    Returns:
        (labels int [H, W], where each part lies).
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask, NEIGHBOURS)
    return labels, ndimage.find_objects(labels)


def stroke_width(mask: np.ndarray) -> float:
    """Returns the mean width of the strokes of a mask in pixels.

    A bar of width w is w / 4 from its nearer edge, on average.

    Args:
        mask: bool [H, W], with at least one pixel set.
    """
    from scipy import ndimage

    return 4 * float(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean())


def crop(mask: np.ndarray) -> np.ndarray:
    """Cuts away the rows and columns around what is set.

    Args:
        mask: bool [H, W], with at least one pixel set.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def normalise_strokes(mask: np.ndarray) -> np.ndarray:
    """Redraws strokes that would be far thinner or thicker than MNIST's.

    Args:
        mask: bool [H, W] of one digit, cropped.

    Returns:
        bool [H', W'], cropped.
    """
    from scipy import ndimage

    for _ in range(2):  # The size of the digit, and with it the unit, changes with its strokes.
        unit = max(mask.shape) / BOX
        width = stroke_width(mask) / unit
        change = (np.clip(width, THINNEST, THICKEST) - width) * unit / 2
        if abs(change) < 0.5:
            break
        if change > 0:
            grown = np.pad(mask, int(np.ceil(change)) + 1)
            mask = crop(ndimage.distance_transform_edt(~grown) <= change)
        else:
            mask = crop(_thinned(mask, -change))
    return mask


def _thinned(mask: np.ndarray, radius: float) -> np.ndarray:
    """Erodes a mask by `radius`, but keeps a thin line in the middle, so that nothing breaks."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ridge = mask & (depth >= ndimage.maximum_filter(depth, 3))
    ridge &= depth > 0.5 * np.median(depth[ridge])  # Not the spurs that run into corners.
    line = ndimage.distance_transform_edt(~ridge) <= THINNEST / 2 * max(mask.shape) / BOX
    return (depth > radius) | (line & mask)


def to_mnist(mask: np.ndarray) -> np.ndarray:
    """Turns the ink of one digit into an image as MNIST has them.

    Args:
        mask: bool or float [H, W] of one digit, cropped.

    Returns:
        uint8 [28, 28, 1].
    """
    height, width = mask.shape
    factor = BOX / max(height, width)
    shape = max(1, round(height * factor)), max(1, round(width * factor))
    small = np.clip(resize(mask.astype(np.float32), shape=shape), 0, 1)
    image = np.zeros((SIDE, SIDE, 1), np.uint8)
    top, left = (
        int(np.clip(round(CENTRE - centre), 0, SIDE - size))
        for centre, size in zip(centre_of_mass(small), shape, strict=True)
    )
    image[top : top + shape[0], left : left + shape[1], 0] = np.round(small * 255)
    return image


def centre_of_mass(plane: np.ndarray) -> tuple[float, float]:
    """Returns the row and the column of the centre of mass of a plane [H, W]."""
    total = float(plane.sum()) or 1.0
    rows, columns = np.arange(plane.shape[0]), np.arange(plane.shape[1])
    return float(plane.sum(axis=1) @ rows) / total, float(plane.sum(axis=0) @ columns) / total

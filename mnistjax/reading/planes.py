"""Operations on one plane [H, W] of a picture: resizing, bounding boxes, connected components."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Box: TypeAlias = tuple[slice, slice]
"""The rows and the columns of a rectangle; `plane[box]` is the part of a plane within it."""

NEIGHBORS = np.ones((3, 3), bool)  # Pixels that touch at a corner are connected.


def fit_size(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """Scales a size to a longer side of `longest`, keeping the aspect ratio.

    Args:
        shape: height and width.
        longest: the longer side of the result.

    Returns:
        Height and width, each at least 1.

    >>> fit_size((300, 600), 20)
    (10, 20)
    """
    factor = longest / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def resize(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes a plane, by averaging to shrink it and by bicubic interpolation to enlarge it.

    Args:
        plane: float [H, W].
        shape: the new height and width.

    Returns:
        float32 of the new shape.
    """
    from PIL import Image as Images

    image = Images.fromarray(np.ascontiguousarray(plane, np.float32))
    grows = shape[0] > plane.shape[0]
    method = Images.Resampling.BICUBIC if grows else Images.Resampling.BOX
    return np.asarray(image.resize(shape[::-1], method))


def shrink(plane: np.ndarray, longest: int) -> np.ndarray:
    """Shrinks a plane to a longer side of at most `longest` pixels; smaller planes keep their size.

    Args:
        plane: float [H, W].
        longest: the largest number of pixels on a side.

    Returns:
        float32 [H', W'].
    """
    return resize(plane, fit_size(plane.shape, min(longest, max(plane.shape))))


def bounding_box(mask: np.ndarray) -> Box:
    """Returns the smallest rectangle that contains all pixels that are set.

    Args:
        mask: bool [H, W], with at least one pixel set.

    Returns:
        The rows and the columns of the rectangle.

    >>> mask = np.zeros((9, 9), bool)
    >>> mask[2:4, 5] = True
    >>> bounding_box(mask)
    (slice(2, 4, None), slice(5, 6, None))
    """
    return bounding_boxes(mask.astype(np.uint8))[0]


def bounding_boxes(labels: np.ndarray) -> list[Box]:
    """Returns the bounding box of every label.

    Args:
        labels: int [H, W], in which each of 1 to N occurs; 0 is the background.

    Returns:
        The N boxes.
    """
    from scipy import ndimage

    boxes: list[Box] = ndimage.find_objects(labels)
    return boxes


def join_boxes(one: Box, other: Box) -> Box:
    """Returns the smallest rectangle that contains two others.

    >>> join_boxes((slice(0, 2), slice(5, 9)), (slice(1, 4), slice(3, 6)))
    (slice(0, 4, None), slice(3, 9, None))
    """
    rows, columns = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, columns


def is_inside(box: Box, shape: tuple[int, ...]) -> bool:
    """Returns whether a box does not touch the border of a plane of this shape.

    >>> is_inside((slice(1, 3), slice(0, 2)), (5, 5))
    False
    """
    return all(side.start > 0 and side.stop < size for side, size in zip(box, shape, strict=True))


def crop(mask: np.ndarray) -> np.ndarray:
    """Crops a mask to its bounding box.

    Args:
        mask: bool [H, W], with at least one pixel set.

    Returns:
        bool [h, w].
    """
    return mask[bounding_box(mask)]


def find_components(mask: np.ndarray) -> tuple[np.ndarray, list[Box]]:
    """Labels the connected components of a mask, counting from 1.

    Args:
        mask: bool [H, W].

    Returns:
        (labels, boxes): int [H, W], 0 without a component; and the bounding box of each component.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask, NEIGHBORS)
    return labels, bounding_boxes(labels)


def stroke_width(mask: np.ndarray) -> float:
    """Returns the mean width of the strokes of a mask, in pixels.

    The pixels of a bar of width w are on average w / 4 away from its nearer edge, so the width is
    four times the mean of the distance transform.

    Args:
        mask: bool [H, W], with at least one pixel set.

    Returns:
        The width.
    """
    from scipy import ndimage

    return 4 * float(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean())

"""Warnings where a picture may not show a digit, or not the one that the network says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnistjax.data import DatasetInfo
from mnistjax.reading import strangers
from mnistjax.reading.mnist_format import BOX
from mnistjax.reading.planes import find_components, stroke_width

# Limits outside of which a picture gets a warning.
MIN_CLARITY = 4.0  # In standard deviations of the paper; noise has 2 to 3, digits 8 and more.
PLAIN_CLARITY = 25.0  # Ink on plain paper alone is so clear; the edges of tables have up to 21.
MAX_SECOND = 0.2  # Fraction of ink in the second largest component; the bar of a broken 5 has less.
MAX_COMPONENTS = 4  # A broken digit has up to 3.
MAX_STROKE = 6.5  # In pixels of the 20x20 box; 99 % of thick digits are below 5.9.
MIN_CONFIDENCE = 0.9

SEVERAL = "several separate shapes (mnistjax read reads rows of digits)"


def stroke_warnings(strokes: np.ndarray, clarity: float = np.inf) -> tuple[str, ...]:
    """Returns reasons to doubt that strokes are a digit.

    The limits were set on synthetic photographs of MNIST's validation digits: 2 of 300 get a
    warning, and so do 96 of 100 pictures of blank paper, all pictures of noise and of several
    digits, and half of the filled rectangles. Letters and scribbles cannot be told from digits
    here; `doubt_warnings` finds them.

    Args:
        strokes: bool [h, w], cropped.
        clarity: as `find_strokes` returns it; by default no reason to doubt.

    Returns:
        The warnings; empty if there is no reason.
    """
    labels, boxes = find_components(strokes)
    areas = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    warnings = []
    if clarity < MIN_CLARITY:
        warnings.append("hardly any contrast between ink and paper")
    several = len(boxes) > 1 and areas[1] > MAX_SECOND * areas.sum()
    if several or len(boxes) > MAX_COMPONENTS:
        warnings.append(SEVERAL)
    if stroke_width(strokes) * BOX / max(strokes.shape) > MAX_STROKE:
        warnings.append("a blot rather than strokes")
    return tuple(warnings)


def doubt_warnings(
    info: DatasetInfo,
    images: np.ndarray,
    rows: np.ndarray,
    found: Sequence[tuple[str, ...]],
) -> tuple[tuple[str, ...], ...]:
    """Returns reasons to doubt that images show what a network takes them for.

    A network for MNIST's digits is compared with a second one, which knows other shapes too
    (`mnistjax.reading.strangers`): if the second is sure of the same digit, the first may be unsure
    of it, and shapes that seem separate are its strokes. Of several digits it is never sure. Any
    other network gets a warning if it is not sure. With a network of the recipe `accuracy`, 99 of
    100 letters that are not written like a digit get a warning, 95 of 100 symbols, 98 of 100
    scribbles, and 2 to 7 of 100 photographs of digits that are read right
    (`benchmarks/pictures.py`).

    Args:
        info: the data set of the network.
        images: uint8 [N, H, W, C], what the network was given.
        rows: float [N, num_classes], the probabilities that it returned.
        found: for each image the warnings about its strokes, from `stroke_warnings`.

    Returns:
        For each image all warnings; empty if there are none.
    """
    if not strangers.knows(info):
        pairs = zip(found, rows, strict=True)
        return tuple(about + confidence_warnings(row) for about, row in pairs)
    likeness = strangers.likeness(images, rows.argmax(axis=1))
    result = []
    for warnings, row, alike in zip(found, rows, likeness, strict=True):
        is_one = alike >= strangers.ONE_LIKENESS
        about = tuple(text for text in warnings if not (is_one and text == SEVERAL))
        stranger = ("perhaps no digit",) if alike < strangers.MIN_LIKENESS else ()
        unsure = confidence_warnings(row) if alike < strangers.SURE_LIKENESS else ()
        result.append(about + stranger + unsure)
    return tuple(result)


def confidence_warnings(row: np.ndarray) -> tuple[str, ...]:
    """Returns a warning if the largest probability is below `MIN_CONFIDENCE`.

    Args:
        row: float [num_classes], the probabilities of an image.

    Returns:
        One warning, or none.
    """
    return ("the network is not sure",) if row.max() < MIN_CONFIDENCE else ()

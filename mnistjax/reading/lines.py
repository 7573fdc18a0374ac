"""Removing the lines of forms from the ink of a page."""

from __future__ import annotations

import numpy as np

from mnistjax.reading.planes import NEIGHBORS, find_components, stroke_width

LINE_ANGLES = range(-8, 9)  # Degrees from the horizontal and the vertical.


def without_lines(mask: np.ndarray, faint: np.ndarray, height: float) -> np.ndarray:
    """Removes the long straight lines of forms, and the separators between their cells.

    The ink where a stroke crosses a line is kept.

    Args:
        mask: bool [H, W], the ink.
        faint: bool [H, W], including weaker ink.
        height: of a digit, in pixels; lines are much longer.

    Returns:
        bool [H, W], the ink without lines.
    """
    from scipy import ndimage

    flat = straight_lines(faint, round(1.8 * height))
    steep = straight_lines(faint.T, round(1.35 * height)).T
    lines = flat | steep
    if not lines.any():
        return mask
    rest = mask & ~lines
    for part, across in ((flat, (1, 0)), (steep, (0, 1))):
        if part.any():
            reach = int(np.ceil(stroke_width(part))) + 3
            shape = [1 + 2 * reach * axis for axis in across]
            rest |= ndimage.binary_closing(rest, np.ones(shape, bool)) & part & mask
    near = ndimage.binary_dilation(lines, NEIGHBORS, iterations=3)
    labels, boxes = find_components(rest)
    for number, box in enumerate(boxes, start=1):
        piece = labels[box] == number
        if (piece & near[box]).any() and _is_remnant(piece, near[box], height):
            rest[box][piece] = False
    return rest


def _is_remnant(piece: np.ndarray, near: np.ndarray, height: float) -> bool:
    """Returns whether ink beside a line is a remnant of it, or a separator between two lines."""
    tall, wide = piece.shape
    if max(tall, wide) < 0.45 * height or min(tall, wide) < 0.06 * height:
        return True
    ends = (piece[:2] & near[:2]).any() or (piece[-2:] & near[-2:]).any()
    return bool(ends and tall > 1.15 * height and piece.sum() / tall < 0.15 * height)


def straight_lines(mask: np.ndarray, length: int) -> np.ndarray:
    """Finds the pixels that are part of a nearly horizontal straight line.

    For each angle the mask is sheared so that lines at this angle become horizontal, and only runs
    of at least `length` pixels are kept. Half the resolution is used, at which ragged lines have no
    gaps. Other gaps are closed only up to a size proportional to `length`, so that no line is found
    through digits that touch.

    Args:
        mask: bool [H, W].
        length: length of the shortest line, in pixels.

    Returns:
        bool [H, W], a subset of `mask`.
    """
    from scipy import ndimage

    padded = np.pad(mask, [(0, size % 2) for size in mask.shape])
    half = padded.reshape(padded.shape[0] // 2, 2, -1, 2).any(axis=(1, 3))
    rows, columns = half.shape
    run, gap = max(8, length // 2), 1 + 2 * int(np.clip(length // 80, 1, 3))
    margin = int(np.ceil(columns * np.tan(np.deg2rad(max(LINE_ANGLES))))) + 1
    source = np.pad(half, ((margin, margin), (0, 0))).astype(np.uint8)
    found = np.zeros_like(source, bool)
    for angle in LINE_ANGLES:
        drop = np.round(np.arange(columns) * np.tan(np.deg2rad(angle))).astype(int)
        index = np.clip(np.arange(len(source))[:, None] + drop, 0, len(source) - 1)
        level = np.take_along_axis(source, index, axis=0)
        level = ndimage.grey_closing(level, (1, gap))  # Closes the gaps that noise makes.
        runs = ndimage.minimum_filter1d(level, run, axis=1, mode="constant")
        if runs.any():
            kept = ndimage.maximum_filter1d(runs, run, axis=1, origin=-(1 - run % 2))
            row, column = np.nonzero(kept)
            found[index[row, column], column] = True
    found = ndimage.binary_dilation(found[margin : margin + rows], np.ones((3, 1), bool))
    large = found.repeat(2, axis=0).repeat(2, axis=1)[: mask.shape[0], : mask.shape[1]]
    return _thin_only(mask & large, mask, length)


def _thin_only(lines: np.ndarray, mask: np.ndarray, length: int) -> np.ndarray:
    """Keeps the lines if they are much longer than thick, because a blot is not a line."""
    if not lines.any():
        return lines
    thick = stroke_width(lines)
    return lines if thick < 0.12 * length else np.zeros_like(lines)

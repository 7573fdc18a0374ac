"""Separating digits that touch: finding cuts through little ink, and choosing among them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

# In units of the height of a digit.
MAX_CUT = 0.4  # The most ink on a cut; with more, it goes through a digit, not between two.
CUT_STEP = 0.12  # Distance between the columns near which cuts are searched.


def find_strips(mask: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a mask into vertical strips, along paths that go through little ink.

    Args:
        mask: bool [h, w], digits that touch.
        height: of a digit, in pixels.

    Returns:
        (strips, costs): int [h, w], the number of the strip of each ink pixel, counting from 1 at
        the left, and 0 where there is no ink; and float [number of strips + 1], the ink on each cut
        in units of `height`. The first and the last cut are the edges of the mask and cost nothing.
    """
    middles = np.arange(0.2 * height, mask.shape[1] - 0.15 * height, CUT_STEP * height)
    seams = _seams(mask, middles, CUT_STEP * height)
    row = np.arange(len(mask))
    costs = mask[row, seams].sum(axis=1) / height
    seams, costs = seams[costs < MAX_CUT], costs[costs < MAX_CUT]
    steps = np.zeros(mask.shape, int)
    np.add.at(steps, (row, seams), 1)
    number = np.cumsum(steps, axis=1)
    # Strips without ink are dropped, and only the cheapest of the cuts around them is kept.
    has_ink = np.bincount(number[mask], minlength=len(seams) + 1) > 0
    renumbered = np.cumsum(has_ink)
    cheapest = np.full(renumbered[-1] + 1, np.inf)
    np.minimum.at(cheapest, renumbered[:-1], costs)
    cheapest[[0, -1]] = 0
    return np.where(mask, renumbered[number], 0), cheapest


def _seams(mask: np.ndarray, middles: np.ndarray, reach: float) -> np.ndarray:
    """Finds the path of least ink from top to bottom near each of K columns.

    The paths are the seams of seam carving (Avidan and Shamir, 2007,
    https://doi.org/10.1145/1276377.1276390), found by dynamic programming for all K at once.

    Args:
        mask: bool [h, w].
        middles: float [K], the columns.
        reach: the distance from the column at which a pixel costs 1/20 of what ink costs.

    Returns:
        int [K, h], the column of each path in each row.
    """
    low = np.maximum(0, (middles - 2 * reach).astype(int))[:, None]
    high = np.minimum(mask.shape[1], (middles + 2 * reach).astype(int)[:, None] + 1)
    column = low + np.arange(int(np.max(high - low, initial=1)))
    away = np.abs(column - low - (middles[:, None] - low)) / reach
    total = mask[:, np.minimum(column, mask.shape[1] - 1)] + 0.05 * np.square(away)
    total[:, column >= high] = np.inf  # [h, K, window]
    for row in range(1, len(total)):
        above = np.pad(total[row - 1], [(0, 0), (1, 1)], constant_values=np.inf)
        aside = np.minimum(above[:, :-2], above[:, 2:]) + 0.05
        total[row] += np.minimum(above[:, 1:-1], aside)
    seam = np.empty(total.shape[:2], int)
    seam[-1] = np.argmin(total[-1], axis=1)
    for row in range(len(total) - 2, -1, -1):
        near = np.clip(seam[row + 1][:, None] + [-1, 0, 1], 0, total.shape[2] - 1)
        best = np.argmin(np.take_along_axis(total[row], near, axis=1), axis=1)
        seam[row] = near[np.arange(len(near)), best]
    return seam.T + low


def best_path(scores: Mapping[tuple[int, int], float], costs: np.ndarray) -> list[tuple[int, int]]:
    """Finds the path from the first cut to the last that maximizes scores minus costs.

    Args:
        scores: the score of each step, keyed by the cuts (from, to) that it connects; the step from
            the first cut to the last is one of them.
        costs: float [K], the cost of each cut.

    Returns:
        The steps of the path, from left to right.

    >>> best_path({(0, 2): -3.0, (0, 1): -1.0, (1, 2): -1.0}, np.zeros(3))
    [(0, 1), (1, 2)]
    """
    best = np.full(len(costs), -np.inf)
    best[0] = 0.0
    previous = np.zeros(len(costs), int)
    for (start, end), score in sorted(scores.items(), key=lambda step: step[0][::-1]):
        value = best[start] + score - costs[end]
        if value > best[end]:
            best[end], previous[end] = value, start
    ends = [len(costs) - 1]
    while ends[-1] > 0:
        ends.append(int(previous[ends[-1]]))
    return list(itertools.pairwise(reversed(ends)))

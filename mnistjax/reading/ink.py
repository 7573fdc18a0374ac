"""Separating the ink of a picture from its paper."""

from __future__ import annotations

import numpy as np

from mnistjax.reading.planes import (
    NEIGHBORS,
    find_components,
    fit_size,
    is_inside,
    resize,
    shrink,
)

# The longer side, in pixels, to which a picture is resized before it is analyzed.
DIGIT_SIDE = 400  # A picture of one digit.
PAGE_SIDE = 1400  # A page.
PAGE_WINDOW = 71  # Of `stroke_contrast`; the strokes of digits a third of a page high are narrower.
NEAR_WINDOW = 71  # In which the strongest contrast is searched; wider than gaps between strokes.
NEAR_SHARE, MIN_SHARE = 0.4, 0.2  # The threshold, as a share of that and of the page's.
MIN_THIN = 0.9  # Share of the ink of a page that must be thin; otherwise it is something else.
MIN_STRIP, MAX_STRIP = 200, 4096  # A long strip: so that its shorter side is 200, at most 4096.
SMOOTH_SIDE, LOCAL_SIDE = 64, 96  # For fitting the surface of the paper, and its median filter.
MEDIAN_WINDOW = 24  # In pixels at `LOCAL_SIDE`; much wider than strokes.
FAINT_LINE, FAINT_STROKE = 0.5, 0.7  # Fractions of the threshold between paper and ink.
# Fractions of the typical contrast of ink; a stain, and the grain of a table, have less.
FAINT_PIECE, FAINT_AT_BORDER = 0.3, 0.7
BORDER_REACH = 0.6  # From what touches the border, in heights of a digit: a table and its grain.
MIN_CONTRAST = 0.02  # On a scale from black 0 to white 1; a picture with less is of one color.
MIN_PAPER = 0.1  # Darker paper is taken to be as bright as this in ratios.
MAD_TO_STD = 1.4826  # Standard deviation of normal noise / its median absolute deviation.


def find_digit_ink(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Separates the ink from the paper in a picture of one digit.

    Args:
        gray: float [H, W].

    Returns:
        (mask, strength, clarity): bool [H', W'] with a longer side of `DIGIT_SIDE` pixels; float
        [H', W'], how much each pixel differs from the paper; and the distance between ink and paper
        in standard deviations of the paper.
    """
    from scipy import ndimage

    gray = resize(gray, fit_size(gray.shape, DIGIT_SIDE))
    strength = ink_strength(gray, smooth_background(gray))
    strength = ndimage.gaussian_filter(strength, 1.5)
    mask = strength > otsu_threshold(strength)
    paper = strength[~mask]
    clarity = float((strength[mask].mean() - paper.mean()) / (paper.std() + 1e-6))
    return mask, strength, clarity


def find_page_ink(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Separates the ink from the paper in a picture of a page.

    Args:
        gray: float [H, W].

    Returns:
        (ink, faint): bool [H', W'] with a longer side of `page_side` pixels. `faint` includes
        weaker ink, such as the lines of forms. On a blank page both are False everywhere.
    """
    from scipy import ndimage

    side = page_side(gray.shape)
    factor, stretch = side / max(gray.shape), side / PAGE_SIDE
    gray = resize(gray, fit_size(gray.shape, side))
    smooth = smooth_background(gray, round(SMOOTH_SIDE * stretch))
    background = smooth + local_background(gray - smooth, round(LOCAL_SIDE * stretch))
    strength = ink_strength(gray, background)
    if np.array_equal(strength, background - gray):
        # Dark ink absorbs a fraction of the light that the paper would reflect.
        strength = strength / np.maximum(background, MIN_PAPER)
    deviation = max(1.0, 0.7 * factor)
    any_ink, _ = _above_noise(ndimage.gaussian_filter(strength, deviation))
    smooth = ndimage.gaussian_filter(gray, deviation)
    dark, light = (
        stroke_contrast(smooth, PAGE_WINDOW, light=light, darkest=MIN_PAPER)
        for light in (False, True)
    )
    is_dark, is_light = (are_strokes(contrast, any_ink, MIN_THIN) for contrast in (dark, light))
    only_paper = is_dark or is_light
    if not only_paper:
        thin = np.maximum(dark, light)
        is_dark = (gray - background)[thin > otsu_threshold(thin)].sum() <= 0
    contrast = dark if is_dark else light
    contrast = contrast - np.median(contrast)
    ink, faint = _above_noise(contrast, local=True)
    return _without_surroundings(ink, contrast, only_paper=only_paper), faint


def _without_surroundings(ink: np.ndarray, contrast: np.ndarray, *, only_paper: bool) -> np.ndarray:
    """Removes what is much paler than most of the ink, and what belongs to the table.

    Where a picture shows only paper, ink at its border may be a digit, if it is strong.
    """
    from scipy import ndimage

    labels, boxes = find_components(ink)
    if not boxes:
        return ink
    numbers = np.arange(1, len(boxes) + 1)
    inside = np.array([is_inside(box, ink.shape) for box in boxes], bool)
    mean = np.asarray(ndimage.mean(contrast, labels, numbers))
    mass = np.asarray(ndimage.sum_labels(contrast, labels, numbers))
    heights = np.array([rows.stop - rows.start for rows, _ in boxes])
    mass = mass if only_paper else mass * inside
    if not mass.any():
        return np.zeros_like(ink)
    typical, height = (
        np.quantile(values, 0.5, weights=mass, method="inverted_cdf") for values in (mean, heights)
    )
    kept = mean > np.where(inside, FAINT_PIECE, FAINT_AT_BORDER) * typical
    if not only_paper and not inside.all():
        outside = np.isin(labels, numbers[~inside])
        near = ndimage.distance_transform_edt(~outside) < BORDER_REACH * height
        kept &= inside & (np.asarray(ndimage.mean(near, labels, numbers)) < 0.5)
    return np.isin(labels, numbers[kept])


def are_strokes(contrast: np.ndarray, mask: np.ndarray, share: float) -> bool:
    """Returns whether ink is thin, unlike a shadow, a reflection or the table beside a sheet.

    Args:
        contrast: float [H, W], what `stroke_contrast` returned.
        mask: bool [H, W], the ink.
        share: smallest share of the ink that has contrast.
    """
    inked = contrast[mask]
    if not inked.size or np.median(inked) <= 0:
        return False
    return bool(np.mean(inked > 0.5 * np.quantile(inked, 0.9)) > share)


def _above_noise(strength: np.ndarray, *, local: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns where there is ink and where there may be; see `find_page_ink`.

    A local threshold follows the strongest ink nearby, because a reflection bleaches ink and board.
    """
    from scipy import ndimage

    otsu = otsu_threshold(strength)
    noise = MAD_TO_STD * float(np.median(np.abs(strength)))
    if otsu < max(2 * noise, MIN_CONTRAST):
        return np.zeros(strength.shape, bool), np.zeros(strength.shape, bool)
    threshold = np.asarray(otsu, np.float32)
    if local:
        nearby = strongest_nearby(strength, NEAR_WINDOW, 2)
        threshold = np.clip(NEAR_SHARE * nearby, max(4 * noise, MIN_SHARE * otsu), otsu)
    floor = np.minimum(3 * noise, threshold)
    sure, faint = strength > threshold, strength > np.maximum(FAINT_LINE * threshold, floor)
    # Thin strokes are paler, so weaker ink counts where it is connected with certain ink.
    likely = strength > np.maximum(FAINT_STROKE * threshold, floor)
    return ndimage.binary_propagation(sure, NEIGHBORS, likely), faint


def strongest_nearby(contrast: np.ndarray, window: int, deviation: float) -> np.ndarray:
    """Returns the strongest contrast near each pixel, which a reflection weakens as it does ink.

    Args:
        contrast: float [H, W].
        window: side of the square, in pixels, in which the strongest is searched and averaged.
        deviation: of the Gaussian, in pixels, that removes noise before.

    Returns:
        float [H, W].
    """
    from scipy import ndimage

    highest = ndimage.maximum_filter(ndimage.gaussian_filter(contrast, deviation), window)
    return np.asarray(ndimage.uniform_filter(highest, window))


def page_side(shape: tuple[int, int]) -> int:
    """Returns the longer side, in pixels, at which a page is analyzed.

    It is `PAGE_SIDE`, or more for a long strip, in which digits would otherwise be too small.

    Args:
        shape: height and width of the picture, in either order.

    Returns:
        The longer side.

    >>> page_side((300, 400)), page_side((100, 1000))
    (1400, 2000)
    """
    strip = min(MAX_STRIP, MIN_STRIP * max(shape) / min(shape))
    return max(PAGE_SIDE, round(strip))


def smooth_background(gray: np.ndarray, longest: int = SMOOTH_SIDE) -> np.ndarray:
    """Estimates the paper under one digit by a quadratic surface that ignores the ink.

    The surface is fitted by iteratively reweighted least squares with Tukey's biweight
    w = (1 - (r / c)^2)^2 of the residual r, where c is 4.685 robust standard deviations (Beaton and
    Tukey, 1974, https://doi.org/10.2307/1267936). The first fit uses only the border, so that ink
    may cover more than half of the picture.

    Args:
        gray: float [H, W].
        longest: the longer side, in pixels, to which the picture is reduced for the fit.

    Returns:
        float [H, W], the paper.
    """
    small = shrink(gray, longest)
    basis = np.stack([term.ravel() for term in _quadratic_terms(small.shape)], axis=1)
    values = small.ravel().astype(np.float64)
    weights = _border(small.shape).ravel().astype(np.float64)
    used = 3  # Terms: a plane for the border, a quadratic surface from the second fit on.
    for _ in range(12):
        weighted = basis[:, :used] * weights[:, None]
        fit = np.linalg.lstsq(weighted.T @ basis[:, :used], weighted.T @ values, rcond=None)[0]
        residual = values - basis[:, :used] @ fit
        near = np.abs(residual[weights > 0])
        scale = 4.685 * max(MAD_TO_STD * float(np.median(near)), 0.004)
        weights = np.square(np.clip(1 - np.square(residual / scale), 0, None))
        used = basis.shape[1]
    terms = _quadratic_terms(gray.shape)
    return np.tensordot(fit, np.stack(terms), axes=1).astype(np.float32)


def _quadratic_terms(shape: tuple[int, int]) -> list[np.ndarray]:
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    y, x = np.broadcast_arrays(y[:, None], x[None])
    return [np.ones(shape), x, y, x * x, x * y, y * y]


def _border(shape: tuple[int, int]) -> np.ndarray:
    border = np.ones(shape, bool)
    depth = max(1, round(0.08 * min(shape)))
    border[depth:-depth, depth:-depth] = False
    return border


def local_background(gray: np.ndarray, longest: int) -> np.ndarray:
    """Estimates the paper of a page by a median filter, which preserves the edges of shadows.

    Args:
        gray: float [H, W].
        longest: the longer side, in pixels, to which the picture is reduced for the filter.

    Returns:
        float [H, W], the paper.
    """
    from scipy import ndimage

    median = ndimage.median_filter(shrink(gray, longest), size=MEDIAN_WINDOW, mode="nearest")
    return resize(median, gray.shape)


def stroke_contrast(
    gray: np.ndarray, window: int, *, light: bool, darkest: float = MIN_CONTRAST
) -> np.ndarray:
    """Returns the contrast of strokes, which is nearly 0 at edges, however strong those are.

    A morphological closing fills the dark structures that are narrower than its window and leaves
    edges as they are, so it differs from the picture in strokes (the top-hat transform: Serra,
    1982, Image Analysis and Mathematical Morphology, chapter XII). The contrast is a ratio, because
    a shadow dims paper and ink alike.

    Args:
        gray: float [H, W].
        window: side of the square window in pixels; strokes are narrower.
        light: whether strokes are lighter than what lies on both sides of them, or darker.
        darkest: what is darker counts as this bright, so that noise in black has no contrast.

    Returns:
        float [H, W], 1 - dark / bright, from 0 to 1.
    """
    from scipy import ndimage

    gray = np.maximum(gray, darkest)
    if light:
        eroded = ndimage.minimum_filter(gray, window)
        return np.asarray(1 - ndimage.maximum_filter(eroded, window) / gray)
    dilated = ndimage.maximum_filter(gray, window)
    return np.asarray(1 - gray / ndimage.minimum_filter(dilated, window))


def ink_strength(gray: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Returns how much each pixel differs from the paper, in the direction of the ink.

    The sign of the sum of the outliers decides whether the ink is lighter or darker than the paper.

    Args:
        gray: float [H, W].
        background: float [H, W], the paper.

    Returns:
        float [H, W], positive in the ink.
    """
    difference = gray - background
    spread = 3 * MAD_TO_STD * float(np.median(np.abs(difference)))
    outliers = difference[np.abs(difference) > spread]
    return difference if outliers.sum() > 0 else -difference


def otsu_threshold(values: np.ndarray) -> float:
    """Returns the threshold that separates values best into two groups, by Otsu's method.

    It maximizes the variance between the groups, w0 * w1 * (m0 - m1)^2 for their sizes w and
    means m (Otsu, 1979, https://doi.org/10.1109/TSMC.1979.4310076).

    Args:
        values: float array of any shape.

    Returns:
        The threshold.

    >>> 1 < otsu_threshold(np.array([0.0, 1.0, 8.0, 9.0])) < 8
    True
    """
    counts, edges = np.histogram(values, bins=256)
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * np.square(sums / below - (sums[-1] - sums) / above)
    return float(centers[np.argmax(np.nan_to_num(between))])

"""Reducing a picture of any mode to gray: the mixture of its colors that shows most detail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnistjax.reading.planes import shrink

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 2048
"""Larger pictures are reduced to this many pixels on the longer side, enough to read digits."""

_DEEP = ("I", "F")  # Modes with more than eight bits per pixel, whose range is unknown.


def to_gray(image: Image, longest: int = MAX_SIDE) -> np.ndarray:
    """Reduces a picture to gray.

    Gray is not the luminance but the mixture of red, green and blue that shows most detail, so that
    red ink on green paper of the same luminance stands out. Transparent pictures get a plain
    background, and pictures of more than 8 bits are scaled by the range of their values.

    Args:
        image: a `PIL.Image.Image`, upright.
        longest: the largest number of pixels on a side of the result.

    Returns:
        float32 [H, W], about 0 to 1.
    """
    if image.mode == "LAB":  # Pillow cannot convert it; its first channel is the lightness.
        image = image.getchannel(0)
    if image.mode.startswith(_DEEP):
        return shrink(_unit_range(np.asarray(image, np.float32)), longest)
    if image.has_transparency_data:
        colors = _on_plain_ground(_reduced(image.convert("RGBA"), longest))
    elif image.mode in ("1", "L"):
        return np.asarray(_reduced(image.convert("L"), longest), np.float32) / 255
    else:
        colors = np.asarray(_reduced(image.convert("RGB"), longest), np.float32) / 255
    return _most_detailed_mixture(colors)


def _reduced(image: Image, longest: int) -> Image:
    if max(image.size) <= longest:
        return image
    image = image.copy()
    image.thumbnail((longest, longest))
    return image


def _unit_range(values: np.ndarray) -> np.ndarray:
    # The range of float32 values may be too large for a float32.
    wide = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    if not high > low:
        return np.zeros_like(values)
    return ((wide - low) / (high - low)).astype(np.float32)


def _on_plain_ground(image: Image) -> np.ndarray:
    """Blends an RGBA picture with the background on which it is most legible.

    A drawing in one color gets black or white, whichever differs more from it. A photograph with
    transparent corners gets its own median color, which adds no edge that looks like ink.
    """
    pixels = np.asarray(image, np.float32) / 255
    colors, alpha = pixels[..., :3], pixels[..., 3:]
    opaque = colors[alpha[..., 0] > 0.5]
    ground: np.ndarray = np.ones(3, np.float32)
    if len(opaque):
        middle = np.median(opaque, axis=0)
        one_color = np.abs(opaque - middle).mean() < 0.05
        if one_color or 2 * len(opaque) < alpha.size:
            ground *= middle.mean() < 0.5
        else:
            ground = middle
    return ground + (colors - ground) * alpha


def _most_detailed_mixture(colors: np.ndarray) -> np.ndarray:
    """Projects colors [H, W, 3] onto the direction in which they vary most from pixel to pixel.

    This is the first principal component of the picture minus its Gaussian blur.
    """
    from scipy import ndimage

    step = max(1, max(colors.shape) // 128)
    small = colors[::step, ::step]
    width = max(small.shape) / 8
    detail = (small - ndimage.gaussian_filter(small, (width, width, 0))).reshape(-1, 3)
    weights = np.linalg.eigh(detail.T @ detail)[1][:, -1]
    weights = weights * (np.sign(weights.sum()) or 1) / np.abs(weights).sum()
    return (colors @ weights).astype(np.float32)

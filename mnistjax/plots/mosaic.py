"""Many small images in one figure, row by row, each in a frame with its caption below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnistjax.plots.style import FRAME, WIDTH, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LETTERS = 7.5  # Points.
# In inches: the height of a line, the width of a letter, and the layout.
_LINE = 1.25 * _LETTERS / 72
_LETTER = 0.62 * _LETTERS / 72
_MARGIN, _TITLE, _KEY, _LARGEST = 0.08, 0.3, 0.5, 0.75


def as_gray(images: np.ndarray) -> np.ndarray:
    """Averages uint8 images [N, H, W, C] over channels; returns float [N, H, W] in [0, 1]."""
    return images.mean(-1) / 255


def draw_mosaic(
    images: np.ndarray,
    captions: Sequence[str] = (),
    *,
    title: str,
    columns: int,
    places: Sequence[int] | None = None,
    row_names: Sequence[str] = (),
    limits: tuple[float, float] = (0.0, 1.0),
    colormap: str = "Greys",
    key: tuple[str, str] | None = None,
) -> Figure:
    """Draws images in a grid; the data coordinates of the first axes are inches.

    Args:
        images: float [N, H, W], or RGBA float [N, H, W, 4].
        captions: N texts of one or more lines each, or none.
        title: a line above the images.
        columns: images per row.
        places: the position of each image in the grid, in row-major order; 0 to N - 1 if None.
        row_names: a name for each row, or none. If given, they determine the number of rows.
        limits: the values drawn in the first and in the last color of `colormap`.
        colormap: name of a matplotlib colormap.
        key: labels of the two limits on a color bar below; no color bar if None.

    Returns:
        The figure.
    """
    height, width = images.shape[1:3]
    where = np.arange(len(images)) if places is None else np.asarray(places, int)
    rows = len(row_names) or int(where.max(initial=0)) // columns + 1
    left = _MARGIN + max((len(name) + 1 for name in row_names), default=0) * _LETTER
    cell = (WIDTH - left - _MARGIN) / columns
    side = min(0.9 * cell, _LARGEST)
    scale = min(side / width, 2 * _LARGEST / height)
    lines = max((text.count("\n") + 1 for text in captions), default=0)
    pitch = scale * height + lines * _LINE + (0.1 * side if not lines else 0.6 * _LINE)
    figure = new_figure(height=_TITLE + rows * pitch + _MARGIN + (_KEY if key else 0))
    axes = _inch_axes(figure)
    axes.text(_MARGIN, 0.5 * _TITLE, title, size=9.5, weight="bold", va="center")
    for row, name in enumerate(row_names):
        middle = _TITLE + row * pitch + scale * height / 2
        axes.text(left - _LETTER, middle, name, size=_LETTERS + 0.5, ha="right", va="center")
    for index, (image, place) in enumerate(zip(images, where, strict=True)):
        row, column = divmod(int(place), columns)
        middle, top = left + (column + 0.5) * cell, _TITLE + row * pitch
        corner = (middle - scale * width / 2, top)
        _draw_image(axes, image, corner, scale, limits, colormap)
        if captions:
            below = top + scale * height + 0.15 * _LINE
            text = captions[index]
            axes.text(middle, below, text, size=_LETTERS, ha="center", va="top", linespacing=1.15)
    if key:
        _draw_key(figure, limits, colormap, key)
    return figure


def _inch_axes(figure: Figure) -> Axes:
    """Returns axes over the whole figure, in inches from its upper left corner."""
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def _draw_image(
    axes: Axes,
    image: np.ndarray,
    corner: tuple[float, float],
    scale: float,
    limits: tuple[float, float],
    colormap: str,
) -> None:
    from matplotlib.image import AxesImage
    from matplotlib.patches import Rectangle

    (left, top), (height, width) = corner, scale * np.array(image.shape[:2])
    extent = (left, left + width, top + height, top)
    # Not axes.imshow, which would change the aspect and limits of the axes for each image.
    drawn = AxesImage(axes, cmap=colormap, interpolation="nearest", extent=extent)
    drawn.set_data(image)
    drawn.set_clim(*limits)
    axes.add_image(drawn)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=FRAME, linewidth=0.6))


def _draw_key(
    figure: Figure, limits: tuple[float, float], colormap: str, key: tuple[str, str]
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height = figure.get_figheight()
    strip = figure.add_axes((0.3, 0.28 / height, 0.4, 0.1 / height))
    low, high = limits
    scale = ScalarMappable(Normalize(*limits), colormap)
    bar = figure.colorbar(scale, cax=strip, orientation="horizontal")
    bar.set_ticks([low, (low + high) / 2, high], labels=[key[0], "0", key[1]])
    bar.outline.set_linewidth(0.6)

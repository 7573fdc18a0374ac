"""The style of all plots, and rendering to a PNG file."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")

# In inches, the width of a column of text: letters of 9 points stay legible on a phone.
WIDTH = 5.2
# A dark and a light tone, which differ in gray and for any kind of color vision.
DARK, LIGHT, GRAY, FRAME = "#12355b", "#cf8a1d", "#5f6672", "#c9cdd4"
SIGNED = "cividis"  # Blue, gray, yellow; from dark to light in black and white.

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dfe2e7",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.7,
    # Names of classes and data sets are free text: a dollar sign must not start a formula.
    "text.parse_math": False,
}


def styled(plot: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorates a plot so that it uses this style, whatever the matplotlib settings are."""

    @functools.wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        from matplotlib import style

        with style.context(_STYLE, after_reset=True):
            return plot(*args, **kwargs)

    return draw


def new_figure(width: float = WIDTH, height: float = 3.2) -> Figure:
    """Returns an empty figure of `width` by `height` inches, outside of pyplot."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.07))


def render_png(figure: Figure, *, dots_per_inch: int = 160) -> bytes:
    """Renders a figure as the content of a PNG file; equal figures give equal bytes.

    Args:
        figure: a figure that a function of `mnistjax.plots` returned.
        dots_per_inch: resolution; figures are at least 5.2 inches wide.

    Returns:
        The bytes of the file.

    >>> from mnistjax import plots
    >>> history = [{"epoch": 1.0, "train_loss": 0.3, "train_accuracy": 0.9}]
    >>> plots.render_png(plots.learning_curves(history))[1:4]
    b'PNG'
    """
    from matplotlib import style

    buffer = io.BytesIO()
    with warnings.catch_warnings(), style.context(_STYLE, after_reset=True):
        # Characters that the font lacks, for example in class names, are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def shorten(name: str, length: int) -> str:
    """Returns `name` as one line of at most `length` characters, cut with an ellipsis."""
    line = " ".join(name.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def draw_message(text: str) -> Figure:
    """Returns a figure that holds only a sentence, for when there is nothing to draw."""
    figure = new_figure(height=1.2)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", size=11, transform=axes.transAxes)
    return figure

"""What all plots share: their look, and the way to a PNG file."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")

# Inches; a column of text. At this width letters of 9 points stay legible on a phone.
WIDTH = 5.2
# A dark and a light tone: told apart in grey, and with any kind of colour vision.
DARK, LIGHT, GREY, FRAME = "#12355b", "#cf8a1d", "#5f6672", "#c9cdd4"
SIGNED = "cividis"  # Blue, grey, yellow; in black and white from dark to light.

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dfe2e7",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.7,
    # Names of classes and data sets are anybody's: a dollar sign in one opens no formula.
    "text.parse_math": False,
}


def styled(plot: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Makes a plot look as it does here, whatever the caller has set matplotlib to."""

    @functools.wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        from matplotlib import style

        with style.context(_STYLE, after_reset=True):
            return plot(*args, **kwargs)

    return draw


def new_figure(width: float = WIDTH, height: float = 3.2) -> Figure:
    """Returns an empty figure, `width` by `height` inches, that belongs to no window."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.07))


def render_png(figure: Figure, *, dots_per_inch: int = 160) -> bytes:
    """Returns a figure as the bytes of a PNG file; the same numbers, drawn anew, give the same."""
    from matplotlib import style

    buffer = io.BytesIO()
    with warnings.catch_warnings(), style.context(_STYLE, after_reset=True):
        # A class name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def shorten(name: str, length: int) -> str:
    """Returns `name` in one line of at most `length` letters; an ellipsis stands for the rest."""
    line = " ".join(name.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def draw_message(text: str) -> Figure:
    """Returns a figure that says, in one sentence, why there is nothing to see."""
    figure = new_figure(height=1.2)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", size=11, transform=axes.transAxes)
    return figure

"""Plots with axes: classes, learning curves, confusion matrix, reliability, robustness, points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from mnistjax.data import Dataset, DatasetInfo
from mnistjax.evaluation.analysis import Analysis, wilson_interval
from mnistjax.evaluation.comparison import ComparisonRow
from mnistjax.evaluation.robustness import Robustness
from mnistjax.plots.style import (
    DARK,
    GRAY,
    LIGHT,
    SIGNED,
    WIDTH,
    draw_message,
    new_figure,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^Dv<>PX*"
_HATCHED: Any = {"color": LIGHT, "edgecolor": "black", "linewidth": 0.5, "hatch": "////"}
_CURVES: Mapping[str, Mapping[str, Any]] = {
    "train": {"label": "training", "color": DARK, "marker": "o"},
    "validation": {
        **{"label": "validation", "color": LIGHT, "marker": "s", "linestyle": "--"},
        **{"markeredgecolor": "black", "markeredgewidth": 0.5},
    },
}


@styled
def class_distribution(dataset: Dataset) -> Figure:
    """Draws a bar chart of the number of training and test images per class.

    Args:
        dataset: the data set.

    Returns:
        The figure.
    """
    from matplotlib.ticker import MaxNLocator

    info = dataset.info
    names = [shorten(name, 22) for name in info.class_names]
    upright = max(map(len, names)) <= 3 and info.num_classes <= 26
    length = 1 + 0.17 * info.num_classes
    figure = new_figure(max(WIDTH, length), 2.9) if upright else new_figure(height=1 + length)
    axes = figure.subplots()
    places = np.arange(info.num_classes)
    looks: Sequence[Mapping[str, Any]] = ({"color": DARK}, _HATCHED)
    splits = {"training": dataset.train, "test": dataset.test}
    for index, (name, split) in enumerate(splits.items()):
        counts = np.bincount(split.labels, minlength=info.num_classes)
        where = places + 0.4 * (index - 0.5)
        draw = axes.bar if upright else axes.barh
        draw(where, counts, 0.4, label=f"{name} ({len(split):,})", **looks[index])
    along, across = (axes.xaxis, axes.yaxis) if upright else (axes.yaxis, axes.xaxis)
    along.set_ticks(places, names)
    along.grid(visible=False)
    across.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10)))
    across.set_major_formatter("{x:,.0f}")
    across.set_label_text("images")
    axes.margins(0.02 if upright else 0.05)
    axes.set_xlim(None if upright else 0)
    if not upright:
        axes.set_ylim(info.num_classes - 0.4, -0.6)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws loss and accuracy per epoch, for training and, if measured, for validation.

    Args:
        history: one row of metrics per epoch, as in `trained.history`.

    Returns:
        The figure.

    >>> history = [{"epoch": 1.0, "train_loss": 0.3, "train_accuracy": 0.9}]
    >>> [axes.get_ylabel() for axes in learning_curves(history).axes]
    ['loss (cross-entropy)', 'accuracy in %']
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(height=4.4)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, what in zip(panels, ("loss", "accuracy"), strict=True):
        factor = 100 if what == "accuracy" else 1
        for split, look in _CURVES.items():
            rows = [row for row in history if row.get(f"{split}_{what}") is not None]
            values = [factor * row[f"{split}_{what}"] for row in rows]
            if rows:
                axes.plot([row["epoch"] for row in rows], values, **look)
    loss, accuracy = panels
    _scale_loss(loss)
    loss.set(ylabel="loss (cross-entropy)")
    loss.legend()
    accuracy.set(ylabel="accuracy in %", xlabel="epoch")
    accuracy.xaxis.set_major_locator(MaxNLocator("auto", integer=len(history) > 1))
    if len(history) == 1:
        accuracy.set_xlim(0, 2 * history[0]["epoch"])
    return figure


def _scale_loss(axes: Axes) -> None:
    """Makes the scale logarithmic if the losses span more than a factor of five."""
    from matplotlib.ticker import LogLocator, NullLocator

    values = np.concatenate([line.get_ydata() for line in axes.lines] or [np.ones(1)])
    if values.min() > 0 and values.max() > 5 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


@styled
def confusion(analysis: Analysis) -> Figure:
    """Draws the confusion matrix: the number of images per true class and predicted class.

    Cells are shaded by their number of mistakes. The diagonal, which counts the right predictions,
    is not shaded: its large counts would hide the mistakes. With more than thirty classes the
    numbers are omitted.

    Args:
        analysis: what `analyze` returned.

    Returns:
        The figure.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    classes = len(analysis.confusion)
    side = min(9.0, max(WIDTH, 1.2 + 0.3 * classes))
    figure = new_figure(side, 0.94 * side)
    axes = figure.subplots()
    mistakes = np.where(np.eye(classes, dtype=bool), 0, analysis.confusion)
    most = max(int(mistakes.max()), 1)
    norm = PowerNorm(0.5, 0, most)
    shades = axes.imshow(mistakes, cmap="Greys", norm=norm)
    for label in range(classes):
        axes.add_patch(Rectangle((label - 0.5, label - 0.5), 1, 1, color="#dfe6ee", lw=0))
    size = min(9.0, 100 / classes)
    if classes <= 30:
        for (true, predicted), count in np.ndenumerate(analysis.confusion):
            if count:
                dark = true != predicted and norm(count) > 0.55
                color, weight = "white" if dark else "black", "bold" if true == predicted else None
                axes.text(
                    predicted, true, f"{count}", size=size, color=color, weight=weight,
                    ha="center", va="center",
                )  # fmt: skip
    names = [shorten(name, 12) for name in analysis.class_names]
    upright = max(map(len, names)) <= 2
    size = 8 if classes <= 30 else 6
    axes.set_xticks(range(classes), names, rotation=0 if upright else 90, size=size)
    axes.set_yticks(range(classes), names, size=size)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(True)
    if mistakes.any():
        bar = figure.colorbar(shades, shrink=0.6, aspect=30, label="mistakes")
        bar.set_ticks(sorted({0, most} | {round(most * share) for share in (0.1, 0.4)}))
        bar.ax.minorticks_off()
    return figure


@styled
def reliability(analysis: Analysis) -> Figure:
    """Draws a reliability diagram: accuracy against confidence, and the number of images per bin.

    Args:
        analysis: what `analyze` returned.

    Returns:
        The figure.
    """
    calibration = analysis.calibration
    filled = calibration.counts > 0
    figure = new_figure(height=4.6)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 100], [0, 100], color=GRAY, linestyle=":", label="perfectly calibrated")
    confidence, accuracy = 100 * calibration.confidence[filled], 100 * calibration.accuracy[filled]
    intervals = [
        wilson_interval(round(share * count / 100), int(count))
        for share, count in zip(accuracy, calibration.counts[filled], strict=True)
    ]
    spread = np.abs(100 * np.transpose(intervals) - accuracy[None])
    curve.errorbar(
        confidence, accuracy, spread, color=DARK, marker="o", elinewidth=0.8, capsize=2,
        label="this network, 95 % interval", clip_on=False,
    )  # fmt: skip
    curve.set(ylabel="right in %", xlim=(0, 100), ylim=(-3, 103))
    curve.set_title(f"Expected calibration error {calibration.ece:.2%}")
    curve.legend(loc="lower right")
    edges = 100 * calibration.edges
    counts.bar(edges[:-1], calibration.counts, np.diff(edges), align="edge", **_HATCHED)
    counts.set_yscale("log", nonpositive="clip")
    counts.set_ylim(0.7, 2 * calibration.counts.max())
    counts.yaxis.set_major_formatter("{x:,.0f}")
    counts.minorticks_off()
    counts.set(ylabel="images", xlabel="confidence in %")
    return figure


@styled
def robustness(rows: Sequence[Robustness]) -> Figure:
    """Draws accuracy against the strength of each corruption, one panel per corruption.

    Args:
        rows: what `measure_robustness` returned.

    Returns:
        The figure.

    >>> rows = [Robustness("blur", strength, "pixels", 0.9, 100) for strength in (0.5, 1)]
    >>> robustness(rows).axes[0].get_xlabel()
    'pixels'
    """
    clean = next((row for row in rows if row.corruption == "none"), None)
    others = [row for row in rows if row.corruption != "none"]
    kinds = {name: list(some) for name, some in groupby(others, lambda row: row.corruption)}
    if not kinds:
        return draw_message("No corruption was measured")
    high = -(-len(kinds) // 2)
    figure = new_figure(height=0.4 + 1.45 * high)
    panels = figure.subplots(high, 2, sharey=True, squeeze=False).ravel()
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    for axes, (name, some) in zip(panels, kinds.items(), strict=False):
        points = [(row.strength, 100 * row.accuracy) for row in some]
        if clean:
            points.insert(0, (0.0, 100 * clean.accuracy))
            axes.axhline(100 * clean.accuracy, color=GRAY, linestyle=":", linewidth=1)
        axes.plot(*zip(*points, strict=True), color=DARK, marker="o")
        axes.set(title=name, ylim=(0, 103), yticks=(0, 50, 100))
        axes.set_xlabel(some[0].unit, labelpad=1)
        axes.set_xticks([strength for strength, _ in points])
        axes.xaxis.set_major_formatter("{x:g}")
    figure.supylabel("accuracy in %", size=9)
    return figure


@styled
def projection(points: np.ndarray, labels: np.ndarray, info: DatasetInfo) -> Figure:
    """Draws images as points in the plane, with a marker, a shade and a name per class.

    Args:
        points: float [N, 2], as `project_2d` returns them.
        labels: int [N], the classes of the images.
        info: the data set, which has the names of the classes.

    Returns:
        The figure.
    """
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    figure = new_figure(height=WIDTH)
    axes = figure.subplots()
    present = np.unique(labels)
    shades = colormaps[SIGNED](np.linspace(0, 0.7, max(info.num_classes, 2)))
    size = 12 if len(labels) <= 1000 else 7
    for label in present:
        across, up = points[labels == label].T
        axes.scatter(
            across, up, s=size, color=shades[label],
            marker=_MARKERS[label % len(_MARKERS)], linewidths=0, alpha=0.75,
        )  # fmt: skip
    for label in present:
        across, up = np.median(points[labels == label], 0)
        axes.text(
            across,
            up,
            shorten(info.class_names[label], 14),
            size=13 if len(present) <= 12 else 9,
            weight="bold",
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"{len(points):,} images, as the last layer sees them")
    axes.spines[:].set_visible(True)
    return figure


@styled
def comparison(rows: Sequence[ComparisonRow]) -> Figure:
    """Draws the test error per recipe: mean, standard deviation, and each seed as a point.

    The bars show errors rather than accuracies because bars have to start at zero.

    Args:
        rows: `compare_runs(...).rows`.

    Returns:
        The figure.

    >>> row = ComparisonRow("mlp", (0.97, 0.98), 0.975, 0.007, 79_510, 5.0, 1e5)
    >>> comparison([row]).axes[0].get_xlabel()
    'test error in %'
    """
    if not rows:
        return draw_message("No run was compared")
    figure = new_figure(height=1.1 + 0.42 * len(rows))
    axes = figure.subplots()
    places = np.arange(len(rows))
    errors = [100 * (1 - row.mean) for row in rows]
    spreads = [100 * (row.sd if np.isfinite(row.sd) else 0.0) for row in rows]
    axes.barh(places, errors, 0.62, **_HATCHED)
    for place, row in zip(places, rows, strict=True):
        dots = [100 * (1 - accuracy) for accuracy in row.accuracies]
        axes.plot(dots, [place] * len(dots), "o", color=DARK, mec="white", mew=0.5, zorder=3)
    axes.errorbar(errors, places, xerr=spreads, fmt="none", ecolor="black", capsize=4, elinewidth=1)
    for place, row, error, spread in zip(places, rows, errors, spreads, strict=True):
        text = f"{error:.2f}" + (f" ± {spread:.2f}" if len(row.accuracies) > 1 else "")
        end = max(error + spread, *(100 * (1 - accuracy) for accuracy in row.accuracies))
        axes.annotate(text, (end, place), (7, 0), textcoords="offset points", va="center", size=8.5)
    axes.set_yticks(places, [shorten(row.name, 26) for row in rows])
    axes.set(xlabel="test error in %", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    # Room for the numbers to the right of the bars.
    axes.set_xlim(0, 1.3 * max(axes.get_xlim()[1], 0.1))
    return figure

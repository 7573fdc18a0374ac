"""Plots of accuracies over many seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mnistjax.errors import ConfigError
from mnistjax.plots.style import DARK, LIGHT, new_figure, shorten, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def seeds(accuracies: Mapping[str, Sequence[float]], *, bins: int = 20) -> Figure:
    """Draws how accuracies are distributed over seeds: a histogram for each network.

    A line marks the mean, and a band one standard deviation on either side.

    Args:
        accuracies: by the name of a network, the accuracy with each seed, from 0 to 1; the test
            accuracies of a population are `[row["test_accuracy"] for row in population.rows]`.
        bins: number of bars of each histogram.

    Returns:
        The figure, with a panel for each network.

    Raises:
        ConfigError: there are no networks, or one has fewer than two accuracies.

    >>> seeds({"mlp": [0.975, 0.976, 0.974]}).axes[0].get_title(loc="left")
    'mlp: 97.50 ± 0.10 % over 3 seeds'
    """
    short = [name for name, found in accuracies.items() if len(found) < 2]
    if short or not accuracies:
        what = f"fewer of {', '.join(short)}" if short else "no network"
        raise ConfigError(f"expected at least two accuracies of each network, found {what}")
    figure = new_figure(height=0.5 + 1.35 * len(accuracies))
    panels = figure.subplots(len(accuracies), squeeze=False).flat
    for axes, (name, found) in zip(panels, accuracies.items(), strict=True):
        percent = [100 * accuracy for accuracy in found]
        mean, deviation = statistics.fmean(percent), statistics.stdev(percent)
        axes.axvspan(mean - deviation, mean + deviation, color=LIGHT, alpha=0.25, lw=0)
        axes.hist(percent, bins=bins, color=DARK, rwidth=0.9)
        axes.axvline(mean, color="black", linestyle="--")
        axes.set_ylabel("seeds")
        axes.locator_params(axis="y", integer=True)
        count = f"over {len(found)} seeds"
        axes.set_title(f"{shorten(name, 40)}: {mean:.2f} ± {deviation:.2f} % {count}")
    axes.set_xlabel("test accuracy in %")
    return figure

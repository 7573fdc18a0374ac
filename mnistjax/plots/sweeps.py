"""Plots of populations: the accuracy over a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mnistjax.errors import UnknownNameError
from mnistjax.plots.style import DARK, GRAY, LIGHT, draw_message, new_figure, shorten, styled
from mnistjax.runs import Population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Members, and lines of the same settings: a color, a marker and a dash pattern.
_LINES = [
    *((DARK, "o", "-"), (LIGHT, "s", "--"), (GRAY, "^", ":"), ("black", "D", "-.")),
    *((DARK, "v", ":"), (LIGHT, "P", "-."), (GRAY, "X", "-"), ("black", "*", "--")),
]


@styled
def sweep(
    population: Population, setting: str, *, split: Literal["validation", "test"] = "validation"
) -> Figure:
    """Draws the accuracy over the values of a setting: each network, means and 95 % intervals.

    There is a line for each combination of the other settings that vary; with more than eight, as
    in a random search, there are only the networks. Those whose training failed are left out, and
    those that a search ended early are hollow. Means and intervals are those of
    `Population.summary`.

    Args:
        population: what `fit_population` returned.
        setting: the name of a setting that varies.
        split: the images; those for validation, by which settings are chosen, or the test images.

    Returns:
        The figure.

    Raises:
        UnknownNameError: the members do not vary in this setting, or there is no such split.

    >>> import mnistjax
    >>> config = mnistjax.get_recipe("softmax").replace(steps=5, validation_fraction=0.1)
    >>> digits = mnistjax.load_dataset("digits")
    >>> found = mnistjax.fit_population(config, digits, learning_rate=[0.01, 0.1])
    >>> sweep(found, "learning_rate").axes[0].get_xlabel()
    'learning rate'
    """
    names = varying(population)
    if setting not in names:
        raise UnknownNameError("setting that varies", setting, names)
    if split not in ("validation", "test"):
        raise UnknownNameError("split", split, ("validation", "test"))
    accuracy = f"{split}_accuracy"
    # The number of epochs, or of steps, is that of the settings: the network may have had fewer.
    rows = [
        {**row, **member.settings, "ended": member.trained is None}
        for row, member in zip(population.rows, population.members, strict=True)
        if row[accuracy] is not None
    ]
    if not rows:
        return draw_message(f"No network has a {split} accuracy")
    others = [name for name in names if name != setting]
    places = places_of([row[setting] for row in rows])
    lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in population.summary():
        if line[f"{accuracy}_mean"] is not None:
            lines.setdefault(tuple(line[name] for name in others), []).append(line)
    figure = new_figure()
    axes = figure.subplots()
    _label(axes, setting, split, places)
    if len(lines) > len(_LINES):
        _draw_networks(axes, rows, places, setting, accuracy, color=DARK, marker="o", alpha=0.6)
        _explain(axes, rows, [])
        return figure
    for (key, points), (color, marker, dash) in zip(lines.items(), _LINES, strict=False):
        own = [row for row in rows if tuple(row[name] for name in others) == key]
        style = {"color": color, "marker": marker, "alpha": 0.35, "ms": 3.5}
        _draw_networks(axes, own, places, setting, accuracy, **style)
        _draw_means(axes, points, places, setting, accuracy, color=color, marker=marker, dash=dash)
        axes.lines[-1].set_label(_name(others, key))
    _explain(axes, rows, others)
    return figure


def varying(population: Population) -> list[str]:
    """Returns the names of the settings, other than the seed, of which there are several values."""
    values: dict[str, list[Any]] = {}
    for member in population.members:
        for name, value in member.settings.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return [name for name, found in values.items() if len(found) > 1 and name != "seed"]


def places_of(values: Sequence[Any]) -> dict[Any, float]:
    """Returns where each value is on the axis: numbers of several magnitudes by logarithm."""
    distinct = list(dict.fromkeys(values))
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in distinct):
        return {value: float(place) for place, value in enumerate(distinct)}
    distinct.sort()
    far = distinct[0] > 0 and distinct[-1] >= 5 * distinct[0]
    return {value: math.log10(value) if far else float(value) for value in distinct}


def _draw_networks(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    places: Mapping[Any, float],
    setting: str,
    accuracy: str,
    **style: Any,
) -> None:
    for ended in (False, True):
        points = [
            (places[row[setting]], 100 * row[accuracy]) for row in rows if row["ended"] == ended
        ]
        if points:
            look = {"mfc": "none"} if ended else {"mew": 0}
            axes.plot(*zip(*points, strict=True), linestyle="none", **(style | look))


def _draw_means(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    places: Mapping[Any, float],
    setting: str,
    accuracy: str,
    *,
    color: str,
    marker: str,
    dash: str,
) -> None:
    points = sorted(points, key=lambda line: places[line[setting]])
    across = [places[line[setting]] for line in points]
    means = [100 * line[f"{accuracy}_mean"] for line in points]
    margins = [
        0.0 if line[f"{accuracy}_high"] is None else 100 * line[f"{accuracy}_high"] - mean
        for line, mean in zip(points, means, strict=True)
    ]
    axes.errorbar(across, means, margins, fmt="none", ecolor=color, capsize=3, elinewidth=1)
    axes.plot(across, means, color=color, marker=marker, linestyle=dash)


def _explain(axes: Any, rows: Sequence[Mapping[str, Any]], others: Sequence[str]) -> None:
    if any(row["ended"] for row in rows):
        hollow = axes.plot([], [], "o", mfc="none", color=DARK, ms=3.5, label="ended early")
        axes.legend(handles=hollow)
    if others:
        axes.legend(title=shorten(", ".join(others).replace("_", " "), 40), title_fontsize=8.5)


def _label(axes: Any, setting: str, split: str, places: Mapping[Any, float]) -> None:
    axes.set(xlabel=setting.replace("_", " "), ylabel=f"{split} accuracy in %")
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in places]
    # As many names as fit beside each other.
    step = -(-len(names) // 8)
    axes.set_xticks(list(places.values())[::step], names[::step])


def _name(others: Sequence[str], key: Sequence[Any]) -> str:
    return shorten(", ".join(str(value) for value in key), 30) if others else ""

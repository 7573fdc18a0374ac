"""The charts of a population: a line for each network, as the parts of an SVG picture."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnistjax.plots.style import shorten
from mnistjax.plots.sweeps import places_of

# In units of the picture, of which a letter is 12.5 high: on a phone, 520 still make it legible.
_WIDTH, _HEIGHT = 520, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 34, 46  # The margins of the curves,
_SIDE, _HEAD, _FOOT = 64, 40, 14  # and of the parallel axes.
_AXIS_GAP = 130
_LABEL_GAP = 16
_TONES = 5
_MAX_POINTS = 200  # Of a curve; more would not be seen.

Point = tuple[float, float]


@dataclass(frozen=True)
class Network:
    """What the charts show of a network.

    Attributes:
        member: its number.
        settings: its settings, by name.
        accuracy: its accuracy in %.
        curve: the accuracy in % after each epoch: pairs (epoch, accuracy).
    """

    member: int
    settings: Mapping[str, Any]
    accuracy: float
    curve: Sequence[Point] = ()


@dataclass(frozen=True)
class Line:
    """The line of a network: the `d` of an SVG path, a text, and from 0 to 4 how good it is."""

    member: int
    path: str
    title: str
    tone: int


@dataclass(frozen=True)
class Label:
    """A text at a point; `anchor` is the SVG property, "start", "middle" or "end"."""

    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True)
class Chart:
    """An SVG picture.

    Attributes:
        width: width in units of the picture.
        height: height in the same units.
        description: the alternative text.
        rules: lines of the axes and the grid: x and y of one end and of the other.
        labels: the texts.
        lines: the lines of the networks, those of higher accuracy on top.
    """

    width: float
    height: float
    description: str
    rules: Sequence[tuple[float, float, float, float]]
    labels: Sequence[Label]
    lines: Sequence[Line]


def draw_curves(networks: Sequence[Network], split: str) -> Chart | None:
    """Draws the accuracy over the epochs, a line per network.

    Args:
        networks: the networks.
        split: the images of their accuracy, such as "validation".

    Returns:
        The chart; None if there is no curve.
    """
    drawn = [network for network in networks if network.curve]
    if not drawn:
        return None
    points = [point for network in drawn for point in network.curve]
    last = max(epoch for epoch, _ in points)
    levels = _ticks(min(level for _, level in points), max(level for _, level in points))
    right, foot = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(point: Point) -> Point:
        epoch, level = point
        height = _share(level, levels[0], levels[-1])
        return _LEFT + (right - _LEFT) * _share(epoch, 0.0, last), foot - (foot - _TOP) * height

    epochs = [epoch for epoch in _ticks(0.0, last) if epoch < 1.0001 * last]
    across = [(*place((epoch, levels[0])), epoch) for epoch in epochs]
    up = [(place((0.0, level))[1], level) for level in levels]
    return Chart(
        _WIDTH,
        _HEIGHT,
        f"Line chart of the {split} accuracy of {len(drawn)} networks over the epochs",
        [(_LEFT, y, right, y) for y, _ in up],
        [
            Label(0, 14, "start", f"{split} accuracy in %"),
            Label(right, _HEIGHT - 8, "end", "epoch"),
            *(Label(_LEFT - 8, y + 4, "end", f"{level:g}") for y, level in up),
            *(Label(x, y + 18, "middle", f"{epoch:g}") for x, y, epoch in across),
        ],
        _lines(drawn, split, {n.member: map(place, _thin(n.curve)) for n in drawn}),
    )


def draw_parallel(networks: Sequence[Network], names: Sequence[str], split: str) -> Chart | None:
    """Draws parallel coordinates: an axis per setting and one for the accuracy.

    Args:
        networks: the networks.
        names: the settings that vary.
        split: the images of their accuracy, such as "validation".

    Returns:
        The chart; None if there is no network, or no setting.
    """
    if not networks or not names:
        return None
    gap = max(_AXIS_GAP, (_WIDTH - 2 * _SIDE) / len(names))
    rules: list[tuple[float, float, float, float]] = []
    labels: list[Label] = []
    heights: list[list[float]] = []
    foot = _HEIGHT - _FOOT
    for number, name in enumerate([*names, None]):
        shares, ticks = _setting(networks, name) if name else _accuracy(networks)
        x = _SIDE + number * gap
        rules.append((x, _HEAD, x, foot))
        title = name.replace("_", " ") if name else f"{split} %"
        labels.append(Label(x, 16, "middle", shorten(title, 18)))
        labels += [
            Label(x + 7, foot - (foot - _HEAD) * share + 4, "start", shorten(text, 12))
            for share, text in _spaced(ticks)
        ]
        heights.append([foot - (foot - _HEAD) * share for share in shares])
    paths = {
        network.member: [(_SIDE + number * gap, y) for number, y in enumerate(ups)]
        for network, ups in zip(networks, zip(*heights, strict=True), strict=True)
    }
    return Chart(
        2 * _SIDE + gap * len(names),
        _HEIGHT,
        f"Parallel coordinates of {len(networks)} networks: their settings and {split} accuracy",
        rules,
        labels,
        _lines(networks, split, paths),
    )


def name_value(value: Any) -> str:
    """Returns the value of a setting as a text.

    >>> [name_value(value) for value in (0.30000000000000004, 128, None, "adam")]
    ['0.3', '128', 'none', 'adam']
    """
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def name_settings(settings: Mapping[str, Any]) -> str:
    """Returns settings as a text.

    >>> name_settings({"learning_rate": 0.01, "seed": 3})
    'learning rate 0.01, seed 3'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {name_value(value)}" for name, value in settings.items()
    )


def _setting(networks: Sequence[Network], name: str) -> tuple[list[float], list[tuple[float, str]]]:
    """Returns how high each network is on the axis of a setting, from 0 to 1, and the ticks."""
    values = [network.settings[name] for network in networks]
    places = places_of(values)
    ends = min(places.values()), max(places.values())
    shares = {value: _share(place, *ends) for value, place in places.items()}
    ticks = sorted((share, name_value(value)) for value, share in shares.items())
    return [shares[value] for value in values], ticks


def _accuracy(networks: Sequence[Network]) -> tuple[list[float], list[tuple[float, str]]]:
    """Returns how high each network is on the axis of the accuracy, from 0 to 1, and the ticks."""
    levels = [network.accuracy for network in networks]
    ticks = _ticks(min(levels), max(levels))
    ends = ticks[0], ticks[-1]
    return [_share(level, *ends) for level in levels], [(_share(t, *ends), f"{t:g}") for t in ticks]


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _ticks(low: float, high: float) -> list[float]:
    """Returns round numbers that hold `low` and `high` between them."""
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-6:
        low, high = max(low - 1, 0), min(high + 1, 100)
    return [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _spaced(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Returns the first tick, the last one, and of the others as many as fit between them."""
    least = _LABEL_GAP / (_HEIGHT - _HEAD - _FOOT)
    kept: list[tuple[float, str]] = []
    for tick in (ticks[0], *ticks[:0:-1]):
        if all(abs(tick[0] - other[0]) >= least for other in kept):
            kept.append(tick)
    return kept


def _thin(curve: Sequence[Point]) -> list[Point]:
    """Returns evenly spaced points of a curve, with its first and its last one."""
    last = len(curve) - 1
    count = min(last, _MAX_POINTS - 1)
    return [curve[round(index * last / count)] for index in range(count)] + [curve[-1]]


def _lines(
    networks: Sequence[Network], split: str, paths: Mapping[int, Iterable[Point]]
) -> list[Line]:
    levels = sorted(network.accuracy for network in networks)
    lines = []
    for network in sorted(networks, key=lambda network: network.accuracy):
        better = len(levels) - bisect_right(levels, network.accuracy)
        words = filter(None, [f"network {network.member}", name_settings(network.settings)])
        lines.append(
            Line(
                network.member,
                _path(list(paths[network.member])),
                f"{', '.join(words)}: {split} accuracy {network.accuracy:.2f} %",
                _TONES - 1 - better * _TONES // len(levels),
            )
        )
    return lines


def _path(points: Sequence[Point]) -> str:
    """Returns the `d` of an SVG path: a line, or a dot for a single point."""
    if len(points) == 1:
        ((x, y),) = points
        return f"M{x - 3:.1f},{y:.1f}a3,3 0 1 0 6,0a3,3 0 1 0 -6,0"
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)

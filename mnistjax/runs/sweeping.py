"""The members of a population: every combination of lists of settings, and random draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.runs.config import TrainConfig

COMBINATIONS = ("product", "zip")

# All members have the same images to train, validate and test on.
_SHARED = ("recipe", "dataset", "validation_fraction", "validation_seed")
_OTHER_NAMES = {"seeds": "seed"}


class Distribution(Protocol):
    """A distribution of the values of a setting."""

    def draw(self, rng: np.random.Generator) -> Any:
        """Returns one value."""


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A uniform distribution.

    Attributes:
        low: the lowest value.
        high: the highest value.

    Raises:
        ConfigError: `low` is not below `high`, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Checks the bounds."""
        _check_bounds(self, -math.inf)

    def draw(self, rng: np.random.Generator) -> float:
        """Returns one value."""
        return float(rng.uniform(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A distribution whose logarithm is uniform, as suits learning rates.

    Attributes:
        low: the lowest value, positive.
        high: the highest value.

    Raises:
        ConfigError: `low` is not below `high`, or not positive, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Checks the bounds."""
        _check_bounds(self, 0.0)

    def draw(self, rng: np.random.Generator) -> float:
        """Returns one value."""
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(value, self.low), self.high)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice among values, each with the same probability.

    Attributes:
        values: the values, at least one.

    Raises:
        ConfigError: there are no values.
    """

    values: Sequence[Any]

    def __post_init__(self) -> None:
        """Checks that there are values."""
        if not len(self.values):
            raise ConfigError("expected at least one value to choose from, found none")

    def draw(self, rng: np.random.Generator) -> Any:
        """Returns one value."""
        return self.values[int(rng.integers(len(self.values)))]


def _check_bounds(distribution: Uniform | LogUniform, above: float) -> None:
    low, high = distribution.low, distribution.high
    if not (above < low < high < math.inf):
        kind = type(distribution).__name__
        positive = "positive and " if above == 0 else ""
        raise ConfigError(f"expected {kind} of a low {positive}below high, found {low} and {high}")


def expand(
    settings: Mapping[str, Any],
    *,
    combine: Literal["product", "zip"] = "product",
    draws: int | None = None,
    draw_seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns the settings of each member of a population.

    Args:
        settings: for each name of a setting of `TrainConfig` ("seeds" stands for "seed") a list,
            tuple, range or array of the values to take, a distribution to draw from, or one value
            for all members.
        combine: "product" takes every combination of the lists, the last list varying fastest;
            "zip" takes their first values together, then their second ones, and so on.
        draws: number of draws from the distributions, the same ones for every combination.
        draw_seed: seed of the draws. Each distribution has a random stream of its own.

    Returns:
        A dictionary per member, with an entry for each of `settings`.

    Raises:
        ConfigError: a list is empty, two members are equal, lists to zip differ in length, a
            setting is one that all members share or is given twice, `draws` and distributions are
            not given together, `draws` is not a positive integer, or `draw_seed` is negative.
        UnknownNameError: `combine`, or a setting, does not exist.

    >>> expand({"seeds": range(2), "learning_rate": [0.1, 0.2]}, combine="zip")
    [{'seed': 0, 'learning_rate': 0.1}, {'seed': 1, 'learning_rate': 0.2}]
    """
    if combine not in COMBINATIONS:
        raise UnknownNameError("way to combine", combine, COMBINATIONS)
    if {"seed", "seeds"} <= settings.keys():
        raise ConfigError("expected seed or seeds, found both")
    settings = {_OTHER_NAMES.get(name, name): value for name, value in settings.items()}
    _check_names(settings)
    _check_draws(draws, draw_seed)
    lists = {name: _listed(name, value) for name, value in settings.items() if _is_list(value)}
    drawn = {name: value for name, value in settings.items() if hasattr(value, "draw")}
    if (draws is None) != (not drawn):
        raise ConfigError(
            f"expected draws, their number, together with distributions, found draws={draws} and "
            f"distributions of {', '.join(drawn) or 'nothing'}"
        )
    lengths = {name: len(values) for name, values in lists.items()}
    if combine == "zip" and len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} with {length}" for name, length in lengths.items())
        raise ConfigError(f"expected lists of one length to zip, found {found}")
    rows = (
        zip(*lists.values(), strict=True)
        if combine == "zip" and lists
        else itertools.product(*lists.values())
    )
    combinations = [dict(zip(lists, row, strict=True)) for row in rows]
    samples = _draw(drawn, draws or 1, draw_seed)
    members = [{**combination, **sample} for combination in combinations for sample in samples]
    chosen = [
        {name: _plain(member.get(name, settings[name])) for name in settings} for member in members
    ]
    for number, member in enumerate(chosen):
        # Equal networks would make a spread look smaller than it is.
        if not drawn and member in chosen[:number]:
            raise ConfigError(f"expected members that differ, found two of {member}")
    return chosen


def _check_names(settings: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in settings:
        if name not in known:
            raise UnknownNameError("setting", name, known)
        if name in _SHARED:
            raise ConfigError(f"expected one {name} for all members, as a setting of the config")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | range | np.ndarray)


def _listed(name: str, values: Any) -> list[Any]:
    if not len(values):
        raise ConfigError(f"expected at least one value of {name}, found none")
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """Returns a number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _check_draws(draws: int | None, seed: int) -> None:
    for name, number, least in (("draws", draws, 1), ("draw_seed", seed, 0)):
        if number is not None and not (isinstance(number, int) and number >= least):
            raise ConfigError(f"expected {name}, an integer of at least {least}, found {number!r}")


def _draw(drawn: Mapping[str, Distribution], count: int, seed: int) -> list[dict[str, Any]]:
    streams = {
        # By name, so that another distribution beside it does not change what is drawn.
        name: np.random.default_rng([seed, *name.encode()])
        for name in drawn
    }
    return [
        {name: distribution.draw(streams[name]) for name, distribution in drawn.items()}
        for _ in range(count)
    ]

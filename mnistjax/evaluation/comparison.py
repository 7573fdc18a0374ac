"""Runs side by side: accuracy over seeds, cost, and whether a difference can be chance."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.data import Split, load_dataset
from mnistjax.errors import RunError
from mnistjax.evaluation.inference import predict_probabilities
from mnistjax.runs import TrainConfig, TrainedModel, load_weights, read_result

_EXACT_BELOW = 25


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """The runs of one recipe, over their seeds.

    Attributes:
        name: the recipe; the model where there is none. What else differs stands in brackets.
        accuracies: test accuracy of each run, in [0, 1], in the order given.
        mean: their mean.
        sd: their standard deviation (n - 1 in the denominator); NaN for a single run.
        parameters: number of scalars of the network, running statistics included.
        train_seconds: mean time of training, compilation excluded, in seconds.
        images_per_second: mean speed of training.
    """

    name: str
    accuracies: tuple[float, ...]
    mean: float
    sd: float
    parameters: int
    train_seconds: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's test of two classifiers on the same images.

    Attributes:
        only_first: number of images that the first alone gets right.
        only_second: number of images that the second alone gets right.
        p_value: probability of so uneven a split, or a more uneven one, if both were equally good.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclasses.dataclass(frozen=True)
class PairTest:
    """McNemar's test between the first runs of two recipes.

    Attributes:
        first: name of the one, as in its `ComparisonRow`.
        second: name of the other.
        test: what the test gave.
    """

    first: str
    second: str
    test: McNemar


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Attributes:
        dataset: name of the data set of all runs.
        count: number of its test images.
        rows: one for each recipe, in the order given.
        pairs: one for each two recipes.
    """

    dataset: str
    count: int
    rows: tuple[ComparisonRow, ...]
    pairs: tuple[PairTest, ...]


@dataclasses.dataclass(frozen=True)
class _Run:
    path: Path
    trained: TrainedModel
    result: Mapping[str, Any]

    @property
    def dataset(self) -> str:
        return self.trained.config.dataset or self.trained.info.name

    @property
    def settings(self) -> TrainConfig:
        """What its runs over several seeds have in common."""
        return self.trained.config.replace(seed=0, dataset=self.dataset)


def mcnemar(first_correct: np.ndarray, second_correct: np.ndarray) -> McNemar:
    """Tests whether two classifiers differ, by the images that only one of them gets right.

    If both are equally good, each such image falls to either with probability 1/2. Below 25 of
    them the binomial distribution is summed exactly; from there on the chi-squared approximation
    with continuity correction, (|b - c| - 1)^2 / (b + c) with one degree of freedom, is used
    (McNemar, Psychometrika 12, 1947; Edwards, Psychometrika 13, 1948; for classifiers Dietterich,
    Neural Computation 10, 1998).

    Args:
        first_correct: bool [N], whether the first is right.
        second_correct: bool [N], whether the second is right, on the same images.

    Raises:
        ValueError: the two are not equally long.
    """
    from scipy.stats import binomtest, chi2

    if first_correct.shape != second_correct.shape:
        raise ValueError(
            f"expected the same images, got {first_correct.shape} and {second_correct.shape}"
        )
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(second_correct & ~first_correct))
    discordant = only_first + only_second
    if discordant == 0:
        p_value = 1.0
    elif discordant < _EXACT_BELOW:
        p_value = binomtest(only_first, discordant).pvalue
    else:
        # Equal counts would come out negative before the square.
        excess = max(abs(only_first - only_second) - 1, 0)
        p_value = chi2.sf(excess**2 / discordant, 1)
    return McNemar(only_first, only_second, float(p_value))


def compare_runs(
    runs: Sequence[str | os.PathLike[str]], *, data_dir: str | os.PathLike[str] | None = None
) -> Comparison:
    """Compares finished runs on one data set, recipe by recipe.

    Runs belong to one recipe where all their settings but the seed are equal. Accuracy, size and
    time are those of each `result.json`. Two recipes are tested against each other by their first
    runs in the order given, whose weights are applied to the test images anew.

    Args:
        runs: run directories, at least one.
        data_dir: folder of the data sets; see `load_dataset`.

    Raises:
        RunError: a path is no directory of a finished run or is given twice, the runs are on
            different data sets, or the data set is no longer the one of a run.
        RunNotFoundError: a run has no weights.
        DatasetNotFoundError: the data set cannot be had.
    """
    loaded = _load(runs)
    groups: dict[TrainConfig, list[_Run]] = {}
    for run in loaded:
        groups.setdefault(run.settings, []).append(run)
    names = _names(list(groups))
    rows = tuple(_row(name, group) for name, group in zip(names, groups.values(), strict=True))
    test = load_dataset(loaded[0].dataset, data_dir=data_dir).test
    correct = [_is_correct(group[0], test) for group in groups.values()]
    pairs = tuple(
        PairTest(names[i], names[j], mcnemar(correct[i], correct[j]))
        for i, j in itertools.combinations(range(len(names)), 2)
    )
    return Comparison(loaded[0].trained.info.name, len(test), rows, pairs)


def _load(runs: Sequence[str | os.PathLike[str]]) -> list[_Run]:
    paths = [Path(run) for run in runs]
    if not paths:
        raise RunError("expected run directories to compare, found none")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if path.is_file():
            raise RunError(f"expected the directory of a run, found the file {path}")
        if places.count(place) > 1:
            raise RunError(f"expected different runs, found {path} twice")
    # What is missing is said before the slow part.
    results = [read_result(path) for path in paths]
    loaded = [
        _Run(path, load_weights(path), result) for path, result in zip(paths, results, strict=True)
    ]
    first = loaded[0]
    for run in loaded:
        if run.dataset != first.dataset:
            raise RunError(
                f"expected runs on one data set, found {first.dataset!r} in {first.path} "
                f"and {run.dataset!r} in {run.path}"
            )
    return loaded


def _row(name: str, group: Sequence[_Run]) -> ComparisonRow:
    def column(field: str) -> list[float]:
        return [_number(run, field) for run in group]

    accuracies = column("test_accuracy")
    return ComparisonRow(
        name=name,
        accuracies=tuple(accuracies),
        mean=float(np.mean(accuracies)),
        sd=float(np.std(accuracies, ddof=1)) if len(group) > 1 else float("nan"),
        parameters=int(_number(group[0], "parameters")),
        train_seconds=float(np.mean(column("train_seconds"))),
        images_per_second=float(np.mean(column("images_per_second"))),
    )


def _number(run: _Run, field: str) -> float:
    value = run.result.get(field)
    if not isinstance(value, int | float):
        raise RunError(f"expected a number {field!r} in result.json of {run.path}, found {value!r}")
    return value


def _is_correct(run: _Run, test: Split) -> np.ndarray:
    """Whether each test image is recognised, bool [N]."""
    trained, expected = run.trained, _number(run, "test_count")
    if len(test) != expected or test.images.shape[1:] != tuple(trained.info.image_shape):
        raise RunError(
            f"expected the data set of {run.path}, {expected} test images of shape "
            f"{trained.info.image_shape}, found {len(test)} of shape {test.images.shape[1:]}"
        )
    probabilities = predict_probabilities(trained.model, trained.variables, test.images)
    return np.argmax(probabilities, -1) == test.labels


def _names(settings: Sequence[TrainConfig]) -> list[str]:
    """Names each recipe, with the settings in which it differs from another of the same name."""
    plain = [config.model if config.recipe == "custom" else config.recipe for config in settings]
    names = []
    for name, config in zip(plain, settings, strict=True):
        namesakes = [vars(other) for it, other in zip(plain, settings, strict=True) if it == name]
        differing = [
            f"{field} {value}"
            for field, value in vars(config).items()
            if any(other[field] != value for other in namesakes)
        ]
        names.append(f"{name} ({', '.join(differing)})" if differing else name)
    return names

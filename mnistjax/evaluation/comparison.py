"""Comparing runs: accuracy over seeds, cost, and tests of the differences."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.data import load_dataset
from mnistjax.errors import RunError
from mnistjax.evaluation.significance import McNemar, adjust_p_values, mcnemar, welch
from mnistjax.files import user_path
from mnistjax.runs import TrainedModel, load_weights, predict_logits, read_result

_SHOWN_DIGITS = 8  # Of the SHA-256 of a teacher, which distinguishes it from another of its name.


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """The runs of one recipe, over their seeds.

    Attributes:
        name: the recipe, or the model if there is no recipe. Settings that distinguish it from
            another recipe of the same name follow in parentheses.
        accuracies: test accuracy of each run, in [0, 1], in the order given.
        mean: their mean.
        sd: their standard deviation (n - 1 in the denominator); NaN for a single run.
        parameters: number of scalars in the network, including batch statistics.
        train_seconds: mean training time in seconds, without compilation.
        images_per_second: mean training speed.
    """

    name: str
    accuracies: tuple[float, ...]
    mean: float
    sd: float
    parameters: int
    train_seconds: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class PairTest:
    """A test of whether two recipes, or two networks, differ by more than chance.

    With several runs of each recipe it is Welch's test of their mean accuracies, which compares
    the recipes. With one run of each it is McNemar's test, which compares only these two
    networks.

    Attributes:
        first: name of the first recipe, as in its `ComparisonRow`.
        second: name of the second recipe.
        difference: mean accuracy of the first minus that of the second.
        interval: 95 % confidence interval of the difference between the mean accuracies; None
            without Welch's test.
        p_value: p-value of the test; None without a test.
        adjusted_p_value: the p-value after Holm's correction over all pairs that were tested.
        mcnemar: McNemar's test of the two networks, if each recipe has one run.
        reason: why there is no test; empty if there is one.
    """

    first: str
    second: str
    difference: float
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    mcnemar: McNemar | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare_runs`.

    Attributes:
        dataset: name of the data set of all runs.
        count: number of its test images.
        rows: one per recipe, in the order given.
        pairs: one per pair of recipes.
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
    def settings(self) -> dict[str, Any]:
        """The settings, and the teacher, that all runs of one recipe share."""
        config = self.trained.config.replace(seed=0, dataset=self.dataset)
        teacher = self.result.get("teacher")
        digest = str(self.result.get("teacher_sha256"))[:_SHOWN_DIGITS]
        return {**vars(config), "teacher": teacher and f"{teacher} {digest}"}

    def number(self, field: str) -> float:
        value = self.result.get(field)
        if not isinstance(value, int | float):
            raise RunError(
                f"expected a number {field!r} in result.json of {self.path}, found {value!r}"
            )
        return value


def compare_runs(
    runs: Sequence[str | os.PathLike[str]], *, data_dir: str | os.PathLike[str] | None = None
) -> Comparison:
    """Compares finished runs on one data set, recipe by recipe.

    Runs belong to the same recipe if all their settings except the seed are equal, and the teacher
    if they had one. Accuracy, size and time are read from each `result.json`.

    Two recipes with at least two runs each are compared by Welch's test of their mean accuracies.
    Two recipes with one run each are compared by McNemar's test of their networks, whose
    predictions on the test images are computed again. All p-values are also given with Holm's
    correction for the number of pairs. See `welch`, `mcnemar` and `adjust_p_values`.

    Args:
        runs: run directories, at least one. The runs of one recipe should differ in their seed:
            counting the same run twice makes the spread look smaller than it is.
        data_dir: folder of the data sets; see `load_dataset`. Only McNemar's test reads it.

    Returns:
        One row per recipe, and one test per pair of recipes.

    Raises:
        RunError: there is no path, a path is not the directory of a finished run or is given
            twice, a `result.json` lacks a number, the runs are on different data sets, or the test
            images are no longer those of a run.
        RunNotFoundError: a run has no weights.
        DatasetNotFoundError: the data set cannot be found or downloaded.
    """
    loaded = _load(runs)
    groups: dict[tuple[tuple[str, Any], ...], list[_Run]] = {}
    for run in loaded:
        groups.setdefault(tuple(run.settings.items()), []).append(run)
    names = _names([dict(settings) for settings in groups])
    rows = tuple(_row(name, group) for name, group in zip(names, groups.values(), strict=True))
    correct = _single_runs_correct(names, list(groups.values()), data_dir)
    pairs = [
        _test_pair(first, second, correct) for first, second in itertools.combinations(rows, 2)
    ]
    count = int(loaded[0].number("test_count"))
    return Comparison(loaded[0].trained.info.name, count, rows, _adjust(pairs))


def _single_runs_correct(
    names: Sequence[str],
    groups: Sequence[Sequence[_Run]],
    data_dir: str | os.PathLike[str] | None,
) -> dict[str, np.ndarray]:
    """Returns, for each recipe with a single run, which test images its network gets right."""
    single = {name: runs[0] for name, runs in zip(names, groups, strict=True) if len(runs) == 1}
    if len(single) < 2:
        return {}
    test = load_dataset(groups[0][0].dataset, data_dir=data_dir).test
    found = {}
    for name, run in single.items():
        expected = (int(run.number("test_count")), *run.trained.info.image_shape)
        if test.images.shape != expected:
            raise RunError(
                f"expected the data set of {run.path}, test images of shape {list(expected)}, "
                f"found them of shape {list(test.images.shape)}"
            )
        found[name] = np.argmax(predict_logits(run.trained, test.images), -1) == test.labels
    return found


def _test_pair(
    first: ComparisonRow, second: ComparisonRow, correct: Mapping[str, np.ndarray]
) -> PairTest:
    pair = PairTest(first.name, second.name, first.mean - second.mean)
    single = [row.name for row in (first, second) if len(row.accuracies) == 1]
    if len(single) == 2:
        networks = mcnemar(correct[first.name], correct[second.name])
        return dataclasses.replace(pair, p_value=networks.p_value, mcnemar=networks)
    if single:
        reason = f"{single[0]} has one run only, so its spread over seeds is not known"
        return dataclasses.replace(pair, reason=reason)
    test = welch(first.accuracies, second.accuracies)
    if test is None:
        return dataclasses.replace(pair, reason="all runs of each are equally accurate")
    return dataclasses.replace(pair, interval=test.interval, p_value=test.p_value)


def _adjust(pairs: Sequence[PairTest]) -> tuple[PairTest, ...]:
    """Adds the p-values after Holm's correction over all pairs that were tested."""
    p_values = [pair.p_value for pair in pairs if pair.p_value is not None]
    adjusted = iter(adjust_p_values(p_values))
    return tuple(
        pair if pair.p_value is None else dataclasses.replace(pair, adjusted_p_value=next(adjusted))
        for pair in pairs
    )


def _load(runs: Sequence[str | os.PathLike[str]]) -> list[_Run]:
    paths = [user_path(run, "run directory") for run in runs]
    if not paths:
        raise RunError("expected run directories to compare, found none")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if path.is_file():
            raise RunError(f"expected the directory of a run, found the file {path}")
        if places.count(place) > 1:
            raise RunError(f"expected different runs, found {path} twice")
    # All results are read first, so that a missing one is reported before weights are loaded.
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
        counts = first.number("test_count"), run.number("test_count")
        if counts[0] != counts[1]:
            raise RunError(
                f"expected runs on the same test images, found {counts[0]} of them in "
                f"{first.path} and {counts[1]} in {run.path}"
            )
    return loaded


def _row(name: str, group: Sequence[_Run]) -> ComparisonRow:
    def column(field: str) -> list[float]:
        return [run.number(field) for run in group]

    accuracies = column("test_accuracy")
    return ComparisonRow(
        name=name,
        accuracies=tuple(accuracies),
        mean=float(np.mean(accuracies)),
        sd=float(np.std(accuracies, ddof=1)) if len(group) > 1 else float("nan"),
        parameters=int(group[0].number("parameters")),
        train_seconds=float(np.mean(column("train_seconds"))),
        images_per_second=float(np.mean(column("images_per_second"))),
    )


def _names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names each recipe, with the settings in which it differs from another of the same name."""
    plain = [it["model"] if it["recipe"] == "custom" else it["recipe"] for it in settings]
    names = []
    for name, own in zip(plain, settings, strict=True):
        namesakes = [other for it, other in zip(plain, settings, strict=True) if it == name]
        differing = [
            f"{field} {value}"
            for field, value in own.items()
            if any(other[field] != value for other in namesakes)
        ]
        names.append(f"{name} ({', '.join(differing)})" if differing else name)
    return names

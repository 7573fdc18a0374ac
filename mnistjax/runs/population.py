"""Populations: many networks that differ in seeds and settings, trained with shared programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from mnistjax.data import Dataset
from mnistjax.errors import ConfigError, NonFiniteLossError, RunError
from mnistjax.files import user_path
from mnistjax.runs.callbacks import Callback
from mnistjax.runs.checkpoints import fingerprint
from mnistjax.runs.compiled import program_settings
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import RESULT
from mnistjax.runs.ensemble import ensemble
from mnistjax.runs.loop import fit
from mnistjax.runs.plan import make_plan
from mnistjax.runs.population_files import (
    member_path,
    open_population,
    read_population,
    write_population,
)
from mnistjax.runs.start import says_how_to_go_on
from mnistjax.runs.sweeping import expand
from mnistjax.runs.trained import TrainedModel
from mnistjax.runs.weights import load_run

_MEASURED = (
    *("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_accuracy"),
    *("train_loss", "epochs", "steps", "train_seconds"),
)
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One network of a population.

    Attributes:
        settings: what distinguishes it from the others, by name.
        group: number of its group; the members of a group share compiled programs.
        trained: the network; None if its training failed.
        error: why its training failed, or None.
    """

    settings: Mapping[str, Any]
    group: int
    trained: TrainedModel | None
    error: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """Networks that were trained on the same images with different seeds or settings.

    Attributes:
        config: the settings that the members have in common.
        members: the members, in the order of `expand`.
        workdir: the directory of the population, or None if nothing was written.
    """

    config: TrainConfig
    members: tuple[Member, ...]
    workdir: Path | None = None

    def __len__(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A table with one row per member.

        The columns are `member`, `group`, the settings that vary, the accuracies, losses, epochs,
        steps and seconds of `result.json`, and `error`. What a member whose training failed lacks
        is None.
        """
        return [_row(number, member) for number, member in enumerate(self.members)]

    def summary(self) -> list[dict[str, Any]]:
        """Returns mean and spread over the seeds of every setting.

        Returns:
            A row per combination of the settings other than the seed, in the order of the members:
            those settings, `n` (networks that were trained), `failed` (members whose training
            failed), and for the validation and the test accuracy `..._mean`, `..._sd` (the sample
            standard deviation) and `..._low` and `..._high`, the 95 % confidence interval of the
            mean by Student's t. What cannot be computed from so few networks is None.
        """
        groups: dict[str, list[dict[str, Any]]] = {}
        for row, member in zip(self.rows, self.members, strict=True):
            groups.setdefault(json.dumps(_without_seed(member.settings)), []).append(row)
        summary = []
        for settings, rows in groups.items():
            trained = [row for row in rows if row["error"] is None]
            line = {**json.loads(settings), "n": len(trained), "failed": len(rows) - len(trained)}
            for name in ("validation_accuracy", "test_accuracy"):
                values = [row[name] for row in trained if row[name] is not None]
                line |= {f"{name}_{key}": value for key, value in _spread(values).items()}
            summary.append(line)
        return summary

    def best(self, by: Literal["validation"] = "validation") -> TrainedModel:
        """Returns the network with the highest validation accuracy, the first of equal ones.

        Args:
            by: the images that decide. Test images cannot: an accuracy on images by which a network
                was selected is too high.

        Raises:
            ConfigError: `by` is not "validation", or no images were held out for validation.
            RunError: the training of every member failed.
        """
        if by != "validation":
            raise ConfigError(f'expected by="validation" to select a network, found by={by!r}')
        rows = [row for row in self.rows if row["error"] is None]
        if not rows:
            raise RunError("expected a member to select, found that the training of all failed")
        if any(row["validation_accuracy"] is None for row in rows):
            raise ConfigError("expected validation images to select by: validation_fraction is 0")
        # `max` returns the first of equal rows.
        return self.member(max(rows, key=lambda row: row["validation_accuracy"])["member"])

    def member(self, number: int) -> TrainedModel:
        """Returns a network like any other.

        Args:
            number: its number, from 0.

        Raises:
            ConfigError: there is no such member.
            RunError: its training failed.
        """
        if not 0 <= number < len(self.members):
            raise ConfigError(f"expected a member from 0 to {len(self) - 1}, found {number}")
        member = self.members[number]
        if member.trained is None:
            raise RunError(f"member {number} has no network: {member.error}")
        return member.trained

    def ensemble(self) -> TrainedModel:
        """Returns the soft vote of all members whose training did not fail.

        Raises:
            ConfigError: the training of every member failed.
        """
        return ensemble([member.trained for member in self.members if member.trained])


def fit_population(
    config: TrainConfig,
    dataset: Dataset,
    *,
    combine: Literal["product", "zip"] = "product",
    draws: int | None = None,
    draw_seed: int = 0,
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    devices: int | str | None = None,
    images: str = "auto",
    callbacks: Sequence[Callback] = (),
    on_member: Callable[[Mapping[str, Any]], None] | None = None,
    **settings: Any,
) -> Population:
    """Trains networks that differ in seeds and settings, one after the other.

    Each member is bit for bit what `fit` returns for its settings. Members that differ in seeds or
    in numbers that a program takes as arguments (learning rate, momentum, b1, b2, weight decay,
    gradient clipping, label smoothing, moving average, strengths of augmentation) share compiled
    programs; other settings form groups, which are compiled once each. A member whose loss becomes
    NaN or infinite is reported in the table and affects no other. Each network is measured on the
    test images once, when it is finished, and nothing is selected by them.

    Args:
        config: the settings that the members have in common.
        dataset: a data set from `load_dataset`, or one made from arrays of your own.
        combine: "product" takes every combination of lists, "zip" takes them in parallel.
        draws: number of draws from distributions, for every combination.
        draw_seed: seed of the draws.
        workdir: directory for `population.json` and the run directories of the members, in
            `members/`. None writes nothing.
        overwrite: whether a population that `workdir` already holds may be replaced.
        resume: whether a population that `workdir` already holds goes on, with its finished members
            as they are.
        devices: number of devices that share each batch, as for `fit`.
        images: where the training images are kept, as for `fit`.
        callbacks: called for each member that is trained, as by `fit`.
        on_member: called with the row of each member when it is finished, or if it was already.
        **settings: by name, a list of values, a distribution such as
            `mnistjax.runs.LogUniform(1e-4, 1e-2)`, or one value, as for `expand`.

    Returns:
        The networks, with their table.

    Raises:
        ConfigError: a setting is out of its bounds, shared, or does not fit this data set; a list
            is empty; lists to zip differ in length; or as `fit`.
        UnknownNameError: a setting, model, optimizer or schedule does not exist.
        RunError: the work directory holds a population, or one of other settings or data to resume,
            or several processes call this function.
        Interrupted: a signal ended the run; it is a `KeyboardInterrupt`.

    >>> import mnistjax
    >>> config = mnistjax.get_recipe("softmax").replace(steps=5)
    >>> digits = mnistjax.load_dataset("digits")
    >>> population = mnistjax.fit_population(config, digits, seeds=range(2), learning_rate=[0.1, 1])
    >>> [(row["learning_rate"], row["n"]) for row in population.summary()]
    [(0.1, 2), (1, 2)]
    """
    if resume and (overwrite or workdir is None):
        raise ConfigError("expected resume with a workdir and without overwrite")
    if jax.process_count() > 1:
        raise RunError(f"expected one process for a population, found {jax.process_count()}")
    chosen = expand(settings, combine=combine, draws=draws, draw_seed=draw_seed)
    configs = [config.replace(**member) for member in chosen]
    groups = _check(configs, dataset, devices, images)
    with contextlib.ExitStack() as stack:
        directory, data = None, ""
        if workdir is not None:
            data, ways = fingerprint(dataset), {"overwrite": overwrite, "resume": resume}
            directory = open_population(workdir, config, chosen, data, **ways)
            stack.enter_context(says_how_to_go_on(directory, overwrite))
        members: dict[int, Member] = {}
        # A group after the other, because only a few programs are kept.
        for number in sorted(range(len(configs)), key=lambda number: groups[number]):
            trained, error = _train(
                configs[number],
                dataset,
                workdir=directory and member_path(directory, number),
                resume=resume,
                devices=devices,
                images=images,
                callbacks=callbacks,
            )
            members[number] = Member(chosen[number], groups[number], trained, error)
            if on_member is not None:
                _tell(on_member, _row(number, members[number]))
    population = Population(config, tuple(members[n] for n in range(len(configs))), directory)
    if directory is not None:
        write_population(directory, config, chosen, data, population.rows)
    return population


def load_population(workdir: str | os.PathLike[str]) -> Population:
    """Reads a finished population from its directory.

    Args:
        workdir: the directory.

    Raises:
        RunNotFoundError: there is no population.
        RunError: it is not finished, or damaged.
    """
    directory = user_path(workdir, "workdir")
    content = read_population(directory)
    rows = content.get("rows")
    if rows is None:
        raise RunError(f"expected a finished population in {directory}, found one without results")
    members = tuple(
        Member(
            settings,
            row["group"],
            None if row["error"] else load_run(member_path(directory, row["member"])),
            row["error"],
        )
        for settings, row in zip(content["members"], rows, strict=True)
    )
    return Population(TrainConfig.from_json(json.dumps(content["config"])), members, directory)


def _row(number: int, member: Member) -> dict[str, Any]:
    """Returns the row of a member in the table of `Population.rows`."""
    result = {} if member.trained is None else (member.trained.result or {})
    measured = {name: result.get(name) for name in _MEASURED}
    numbers = {"member": number, "group": member.group}
    return {**numbers, **member.settings, **measured, "error": member.error}


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Returns mean, standard deviation, and the 95 % confidence interval of the mean."""
    if not values:
        return dict.fromkeys(("mean", "sd", "low", "high"))
    mean = statistics.fmean(values)
    if len(values) == 1:
        return {"mean": mean, "sd": None, "low": None, "high": None}
    from scipy.stats import t

    deviation = statistics.stdev(values)
    margin = float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return {"mean": mean, "sd": deviation, "low": mean - margin, "high": mean + margin}


def _check(
    configs: Sequence[TrainConfig], dataset: Dataset, devices: int | str | None, images: str
) -> list[int]:
    """Checks that all settings fit the data set, and returns the number of each member's group."""
    numbers: dict[TrainConfig, int] = {}
    groups = []
    for config in configs:
        shared = program_settings(config)
        if shared not in numbers:
            make_plan(config, dataset, devices=devices, images=images)
            numbers[shared] = len(numbers)
        groups.append(numbers[shared])
    return groups


def _train(
    config: TrainConfig, dataset: Dataset, *, workdir: Path | None, resume: bool, **options: Any
) -> tuple[TrainedModel | None, str | None]:
    """Trains a member, or reads the one that is finished; returns it, or why it failed."""
    if resume and workdir is not None and (workdir / RESULT).exists():
        found = load_run(workdir)
        if found.config != config:
            raise RunError(f"expected a member of this population in {workdir}, found another run")
        return found, None
    try:
        fitted = fit(config, dataset, workdir=workdir, resume=resume, **options)
    except NonFiniteLossError as error:
        return None, str(error)
    return fitted.trained, None


def _tell(on_member: Callable[[Mapping[str, Any]], None], row: Mapping[str, Any]) -> None:
    try:
        on_member(row)
    except (Exception, SystemExit) as error:  # What only watches must not end the training.
        _LOG.warning("on_member failed: %s", error)

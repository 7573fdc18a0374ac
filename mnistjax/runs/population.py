"""Populations: many networks that differ in seeds and settings, trained with shared programs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mnistjax.errors import ConfigError, RunError
from mnistjax.files import user_path
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import read_metrics
from mnistjax.runs.ensemble import ensemble
from mnistjax.runs.population_files import member_path, read_population
from mnistjax.runs.progress import History
from mnistjax.runs.trained import TrainedModel
from mnistjax.runs.weights import load_run

_MEASURED = (
    *("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_accuracy"),
    *("train_loss", "epochs", "steps", "train_seconds"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One network of a population.

    Attributes:
        settings: what distinguishes it from the others, by name.
        group: number of its group; the members of a group share compiled programs.
        trained: the network; None if its training failed, or a search ended it early.
        error: why its training failed, or None.
        history: a row per epoch of a network that a search ended early; otherwise empty.
    """

    settings: Mapping[str, Any]
    group: int
    trained: TrainedModel | None
    error: str | None = None
    history: History = ()


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
        steps and seconds of `result.json`, and `error`. What a member lacks is None: all of these
        if its training failed, and what is measured on test images if a search ended it early.
        """
        return [describe_member(number, member) for number, member in enumerate(self.members)]

    def summary(self) -> list[dict[str, Any]]:
        """Returns mean and spread over the seeds of every setting.

        Returns:
            A row per combination of the settings other than the seed, in the order of the members:
            those settings, `n` (networks that were trained), `failed` (members whose training
            failed), `eliminated` (members that a search ended early), `trained_epochs` (the epochs
            of the member that was trained for longest), and for the validation and the test
            accuracy `..._mean`, `..._sd` (the sample standard deviation) and `..._low` and
            `..._high`, the 95 % confidence interval of the mean by Student's t. What cannot be
            computed from so few networks is None. The validation accuracy of a member that was
            ended early is that after its last epoch.
        """
        groups: dict[str, list[dict[str, Any]]] = {}
        for row, member in zip(self.rows, self.members, strict=True):
            groups.setdefault(name_settings(member.settings), []).append(row)
        summary = []
        for settings, rows in groups.items():
            sound = [row for row in rows if row["error"] is None]
            trained = sum(self.members[row["member"]].trained is not None for row in sound)
            epochs = [row["epochs"] for row in sound if row["epochs"] is not None]
            line = {
                **json.loads(settings),
                "n": trained,
                "failed": len(rows) - len(sound),
                "eliminated": len(sound) - trained,
                "trained_epochs": max(epochs, default=None),
            }
            for name in ("validation_accuracy", "test_accuracy"):
                values = [row[name] for row in sound if row[name] is not None]
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
        rows = [row for row in self.rows if self.members[row["member"]].trained]
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
            RunError: its training failed, or a search ended it early.
        """
        if not 0 <= number < len(self.members):
            raise ConfigError(f"expected a member from 0 to {len(self) - 1}, found {number}")
        member = self.members[number]
        if member.trained is None:
            reason = member.error or f"a search ended it after {len(member.history)} epochs"
            raise RunError(f"member {number} has no network: {reason}")
        return member.trained

    def ensemble(self) -> TrainedModel:
        """Returns the soft vote of all members that were trained to their end.

        Raises:
            ConfigError: the training of every member failed.
        """
        return ensemble([member.trained for member in self.members if member.trained])


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
        _load_member(settings, row, member_path(directory, row["member"]))
        for settings, row in zip(content["members"], rows, strict=True)
    )
    return Population(TrainConfig.from_json(json.dumps(content["config"])), members, directory)


def _load_member(settings: Mapping[str, Any], row: Mapping[str, Any], path: Path) -> Member:
    if row["error"]:
        return Member(settings, row["group"], None, row["error"])
    if row["test_accuracy"] is None:  # A search ended it early.
        history = tuple(read_metrics(path))
        if not {"epoch", "step", "train_seconds"} <= history[-1].keys():
            raise RunError(f"expected epoch, step and train_seconds in the metrics of {path}")
        return Member(settings, row["group"], None, history=history)
    trained = load_run(path)
    # A search may have changed them.
    own = {name: getattr(trained.config, name) for name in settings}
    return Member(own, row["group"], trained)


def describe_member(number: int, member: Member) -> dict[str, Any]:
    """Returns the row of a member in the table of `Population.rows`.

    Args:
        number: its number.
        member: the member.
    """
    result = {} if member.trained is None else (member.trained.result or {})
    if member.history:
        last = member.history[-1]
        seconds = sum(row["train_seconds"] for row in member.history)
        result = {**last, "epochs": last["epoch"], "steps": last["step"], "train_seconds": seconds}
    measured = {name: result.get(name) for name in _MEASURED}
    numbers = {"member": number, "group": member.group}
    return {**numbers, **member.settings, **measured, "error": member.error}


def name_settings(settings: Mapping[str, Any]) -> str:
    """Returns the settings other than the seed as JSON; equal settings have equal names.

    Args:
        settings: the settings of a member.
    """
    return json.dumps({name: value for name, value in settings.items() if name != "seed"})


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

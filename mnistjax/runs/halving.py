"""Successive halving: most settings are trained for a few epochs, and only the best go on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mnistjax.errors import ConfigError
from mnistjax.runs.population import name_settings
from mnistjax.runs.trainer import (
    Candidate,
    Trainer,
    by_group,
    check_validated,
    validation_accuracy,
)


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving by validation accuracy.

    All settings are trained for a fraction of their epochs. One in `factor` of them, those with the
    highest mean validation accuracy over the seeds, go on to `factor` times as many epochs, and so
    on, until the last ones are trained to their end (Jamieson and Talwalkar, 2016,
    https://arxiv.org/abs/1502.07943). Every network that goes on is the one that `fit` trains
    alone, as learning rates follow the schedule of the whole run.

    Attributes:
        factor: how many settings compete for one place, and the ratio of the epochs of a rung to
            those of the one before.

    Raises:
        ConfigError: `factor` is not an integer of at least 2.
    """

    factor: int = 3

    def __post_init__(self) -> None:
        """Checks the factor."""
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or self.factor < 2:
            raise ConfigError(f"expected a factor of at least 2, found {self.factor!r}")

    def rungs(self, candidates: int, epochs: int) -> list[float]:
        """Returns the share of the epochs that each rung trains, the last of which is 1.

        There are as many rungs as both the candidates and the epochs allow: a rung has at least one
        of each.

        Args:
            candidates: number of settings that compete.
            epochs: the smallest number of epochs of one of them.

        Raises:
            ConfigError: there are less than `factor` candidates or epochs.

        >>> [round(share, 3) for share in Halving().rungs(candidates=10, epochs=10)]
        [0.111, 0.333, 1.0]
        """
        if min(candidates, epochs) < self.factor:
            raise ConfigError(
                f"expected at least {self.factor} settings to compare and {self.factor} epochs for "
                f"successive halving by {self.factor}, found {candidates} and {epochs}"
            )
        count = 0
        while self.factor ** (count + 1) <= min(candidates, epochs):
            count += 1
        return [float(self.factor) ** -power for power in range(count, -1, -1)]

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Checks that there is something to select.

        Raises:
            ConfigError: there are less than `factor` settings or epochs, or no validation images.
        """
        check_validated(candidates)
        self._rungs(candidates)

    def _rungs(self, candidates: Sequence[Candidate]) -> list[float]:
        distinct = {name_settings(one.settings) for one in candidates}
        return self.rungs(len(distinct), min(one.epochs for one in candidates))

    def train(self, trainer: Trainer, candidates: Sequence[Candidate], *, resume: bool) -> None:
        """Trains candidates, and fewer of them in each rung.

        Args:
            trainer: trains and keeps them.
            candidates: all candidates.
            resume: whether they may have been trained before.

        Raises:
            RunError: as `fit`, or a checkpoint of a member that pauses cannot be written.
            Interrupted: as `fit`.
        """
        alive = list(candidates)
        for rung, share in enumerate(self._rungs(candidates)):
            epochs = {one.number: max(1, round(share * one.epochs)) for one in alive}
            for one in by_group(alive):
                until = None if share == 1 else epochs[one.number]
                member = trainer.train(one, epochs=until, resume=resume or rung > 0)
                if member.trained or member.error:
                    trainer.tell(one)
            if share < 1:
                alive = self._select(trainer, alive, epochs)

    def _select(
        self, trainer: Trainer, alive: Sequence[Candidate], epochs: Mapping[int, int]
    ) -> list[Candidate]:
        """Returns the candidates that go on, and tells of those that do not."""
        accuracies: dict[str, list[float]] = {}
        for one in alive:
            found = accuracies.setdefault(name_settings(one.settings), [])
            accuracy = validation_accuracy(trainer[one], epochs[one.number])
            if accuracy is not None:
                found.append(accuracy)
        names = self.survivors(accuracies)
        on = [
            one
            for one in alive
            if trainer[one].error is None and name_settings(one.settings) in names
        ]
        for one in alive:
            if one not in on and trainer[one].history:
                trainer.tell(one)
        return on

    def survivors(self, accuracies: Mapping[str, Sequence[float]]) -> list[str]:
        """Returns the candidates that go on, the best first.

        Args:
            accuracies: the validation accuracies of the networks of each candidate, one per seed;
                none if the training of all of them failed.

        >>> Halving(2).survivors({"a": [0.9, 0.8], "b": [0.95], "c": []})
        ['b', 'a']
        """
        kept = math.ceil(len(accuracies) / self.factor)
        means = {name: sum(found) / len(found) for name, found in accuracies.items() if found}
        # Sorting is stable: of equal ones, the first goes on.
        return sorted(means, key=lambda name: -means[name])[:kept]

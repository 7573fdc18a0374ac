"""Trains the members of a population in parts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnistjax.data import Dataset
from mnistjax.errors import ConfigError, NonFiniteLossError, RunError
from mnistjax.runs.callbacks import Callback
from mnistjax.runs.compiled import program_settings
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import RESULT, claim_run_directory
from mnistjax.runs.fingerprints import check_teacher, fingerprint, teacher_fingerprint
from mnistjax.runs.loop import fit_part, write_results
from mnistjax.runs.plan import Plan, make_plan
from mnistjax.runs.population import Member, describe_member
from mnistjax.runs.population_files import member_path
from mnistjax.runs.side_by_side import fit_side_by_side
from mnistjax.runs.start import says_how_to_go_on
from mnistjax.runs.trained import FitResult
from mnistjax.runs.weights import load_run

_LOG = logging.getLogger(__name__)

# Called with the row of each member when nothing more happens to it.
OnMember = Callable[[Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A member to be trained.

    Attributes:
        number: its number.
        settings: what distinguishes it from the others.
        group: number of the group with which it shares programs.
        plan: its run.
    """

    number: int
    settings: Mapping[str, Any]
    group: int
    plan: Plan

    @property
    def config(self) -> TrainConfig:
        """All of its settings."""
        return self.plan.config

    @property
    def epochs(self) -> int:
        """Its length in epochs, rounded up."""
        return math.ceil(self.plan.steps / self.plan.steps_per_epoch)

    def change(self, settings: Mapping[str, Any]) -> Candidate:
        """Returns it with other values of settings that affect no program."""
        plan = dataclasses.replace(self.plan, config=self.config.replace(**settings))
        return dataclasses.replace(self, settings={**self.settings, **settings}, plan=plan)


def check_candidates(
    config: TrainConfig,
    chosen: Sequence[Mapping[str, Any]],
    dataset: Dataset,
    **options: Any,
) -> list[Candidate]:
    """Checks that all settings fit the data set, and finds who shares programs.

    Args:
        config: the settings that the members have in common.
        chosen: the settings of each member.
        dataset: the data set.
        **options: devices, images and teacher, as for `fit`.

    Raises:
        ConfigError: as `fit_population`.
        UnknownNameError: as `fit_population`.
    """
    # By what members share: the number of their group, and a run of it.
    known: dict[TrainConfig, tuple[int, Plan]] = {}
    candidates = []
    for number, settings in enumerate(chosen):
        own = config.replace(**settings)
        shared = program_settings(own)
        if shared not in known:
            known[shared] = (len(known), make_plan(own, dataset, **options))
        group, plan = known[shared]
        plan = dataclasses.replace(plan, config=own)
        candidates.append(Candidate(number, settings, group, plan))
    return candidates


class Trainer:
    """Trains candidates, at once or in parts, and keeps what has become of each of them."""

    def __init__(
        self,
        dataset: Dataset,
        place: Path | None,
        options: Mapping[str, Any],
        callbacks: Sequence[Callback] = (),
        on_member: OnMember | None = None,
    ) -> None:
        """Begins with no member.

        Args:
            dataset: the data set.
            place: the directory of the population; None writes nothing, and then no member pauses.
            options: devices, images and teacher, as for `fit`.
            callbacks: called for each part of the training of each candidate.
            on_member: called with the row of each member that is finished.
        """
        self.dataset, self.place = dataset, place
        self._options, self._callbacks, self._on_member = options, callbacks, on_member
        self._members: dict[int, Member] = {}
        self._told: set[int] = set()

    @functools.cached_property
    def data(self) -> str:
        """The fingerprint of the data set."""
        return fingerprint(self.dataset)

    def __getitem__(self, one: Candidate) -> Member:
        """Returns what has become of a candidate so far."""
        return self._members[one.number]

    def directory(self, one: Candidate) -> Path | None:
        """Returns the run directory of a candidate."""
        return self.place and member_path(self.place, one.number)

    def train(self, one: Candidate, *, epochs: int | None = None, resume: bool) -> Member:
        """Trains a candidate, or reads the one that is finished.

        Args:
            one: the candidate.
            epochs: number of epochs, from its start, after which it pauses; None trains to its end.
            resume: whether it goes on from its newest checkpoint.

        Raises:
            RunError: its directory holds a finished run of other settings; or as `fit`.
            Interrupted: as `fit`.
        """
        member = self._members[one.number] = self._train(one, epochs, resume)
        return member

    def train_side_by_side(self, some: Sequence[Candidate], *, resume: bool) -> None:
        """Trains candidates together, apart from those that are finished, which are read.

        Args:
            some: the candidates, of one group.
            resume: whether finished ones are read; nothing is left of an unfinished one.

        Raises:
            RunError: as `train`.
            Interrupted: as `train`.
        """
        found = {one.number: self._read(one) for one in some} if resume else {}
        self._members |= {number: member for number, member in found.items() if member}
        left = [one for one in some if not found.get(one.number)]
        if not left:
            return
        with contextlib.ExitStack() as stack:
            how = "there is no work directory"
            if self.place:
                how = stack.enter_context(says_how_to_go_on(self.place, overwrite=False))
            directories = {
                one.number: stack.enter_context(
                    claim_run_directory(path, one.config, resume=resume)
                )
                for one in left
                if (path := self.directory(one))
            }
            plans = [one.plan for one in left]
            outcomes = fit_side_by_side(plans, data=self.data, how_to_go_on=how)
            for one, outcome in zip(left, outcomes, strict=True):
                if isinstance(outcome, NonFiniteLossError):
                    member = Member(one.settings, one.group, None, str(outcome))
                else:
                    member = Member(one.settings, one.group, outcome)
                    if one.number in directories:
                        assert outcome.result is not None
                        write_results(directories[one.number], outcome, outcome.result)
                self._members[one.number] = member

    def _read(self, one: Candidate) -> Member | None:
        """Returns a candidate whose run is finished, or None."""
        workdir = self.directory(one)
        if workdir is None or not (workdir / RESULT).exists():
            return None
        found = load_run(workdir)
        if found.config != one.config:
            raise RunError(f"expected a member of this population in {workdir}, found another run")
        taught = (found.result or {}).get("teacher_sha256")
        check_teacher(taught, teacher_fingerprint(self._options["teacher"]), workdir)
        return Member(one.settings, one.group, found)

    def _train(self, one: Candidate, epochs: int | None, resume: bool) -> Member:
        if resume and (finished := self._read(one)):
            return finished
        workdir = self.directory(one)
        try:
            done = fit_part(
                one.config,
                self.dataset,
                epochs=epochs,
                workdir=workdir,
                resume=resume,
                callbacks=self._callbacks,
                **self._options,
            )
        except NonFiniteLossError as error:
            return Member(one.settings, one.group, None, str(error))
        if isinstance(done, FitResult):
            return Member(one.settings, one.group, done.trained)
        return Member(one.settings, one.group, None, history=done)

    def tell(self, one: Candidate) -> None:
        """Tells the watcher that nothing more happens to a candidate, unless it has been told."""
        if self._on_member is None or one.number in self._told:
            return
        self._told.add(one.number)
        try:
            self._on_member(describe_member(one.number, self[one]))
        except (Exception, SystemExit) as error:  # What only watches must not end the training.
            _LOG.warning("on_member failed: %s", error)


def by_group(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Returns candidates a group after the other, because only a few programs are kept."""
    return sorted(candidates, key=lambda one: one.group)


def check_validated(candidates: Iterable[Candidate]) -> None:
    """Checks that there are images by which a search can select.

    Raises:
        ConfigError: no images are held out for validation.
    """
    if any(one.config.validation_fraction == 0 for one in candidates):
        raise ConfigError("expected validation images to select by: validation_fraction is 0")


def validation_accuracy(member: Member, epochs: int) -> float | None:
    """Returns the validation accuracy of a member after a number of epochs.

    Args:
        member: the member; it may have been trained for longer, or have stopped early.
        epochs: number of epochs, at least 1.

    Returns:
        The accuracy, or None if its training failed.
    """
    if member.error is not None:
        return None
    history = member.trained.history if member.trained else member.history
    return history[:epochs][-1]["validation_accuracy"]

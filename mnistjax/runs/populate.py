"""Trains populations, member by member, with shared programs."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from mnistjax.data import Dataset
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs.callbacks import Callback
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.fingerprints import fingerprints
from mnistjax.runs.halving import Halving
from mnistjax.runs.mapped import check_mapped, most_at_once, obstacle
from mnistjax.runs.pbt import PBT
from mnistjax.runs.plan import Plan
from mnistjax.runs.population import Population
from mnistjax.runs.population_files import open_population, write_population
from mnistjax.runs.start import says_how_to_go_on
from mnistjax.runs.sweeping import expand
from mnistjax.runs.trained import TrainedModel
from mnistjax.runs.trainer import Candidate, OnMember, Trainer, by_group, check_candidates
from mnistjax.signals import on_exit_say


def fit_population(
    config: TrainConfig,
    dataset: Dataset,
    *,
    combine: Literal["product", "zip"] = "product",
    draws: int | None = None,
    draw_seed: int = 0,
    search: Halving | PBT | None = None,
    together: int | Literal["auto"] = "auto",
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    devices: int | str | None = None,
    images: str = "auto",
    teacher: TrainedModel | None = None,
    callbacks: Sequence[Callback] = (),
    on_member: OnMember | None = None,
    **settings: Any,
) -> Population:
    """Trains networks that differ in seeds and settings, with shared programs.

    Trained one after the other, each member is bit for bit what `fit` returns for its settings,
    unless a search changes them on the way; trained side by side, it is the same up to rounding.
    Members that differ in seeds or in numbers that a program takes as arguments (learning
    rate, momentum, b1, b2, weight decay, gradient clipping, label smoothing, moving average,
    strengths of augmentation) share compiled programs; other settings form groups, which are
    compiled once each. A member whose loss becomes NaN or infinite is reported in the table and
    affects no other. Each network is measured on the test images once, when it is finished, and
    nothing is selected by them.

    Args:
        config: the settings that the members have in common.
        dataset: a data set from `load_dataset`, or one made from arrays of your own.
        combine: "product" takes every combination of lists, "zip" takes them in parallel.
        draws: number of draws from distributions, for every combination.
        draw_seed: seed of the draws.
        search: `Halving()` trains most settings for a few epochs only, and `PBT()` lets the worst
            members go on from the best ones. None trains every member alone.
        together: number of members that are trained side by side, as one program with an axis of
            members, which is divided over the devices; 1 trains one after the other. "auto" is 1 on
            CPU, where convolutional networks train faster so (benchmarks/README.md), for a search,
            and where there are callbacks; and otherwise as many as fit in half of the memory of the
            devices. A member of a part that is interrupted begins again when the population is
            resumed.
        workdir: directory for `population.json` and the run directories of the members, in
            `members/`. None writes nothing.
        overwrite: whether a population that `workdir` already holds may be replaced.
        resume: whether a population that `workdir` already holds goes on, with its finished members
            as they are.
        devices: number of devices that share each batch, as for `fit`.
        images: where the training images are kept, as for `fit`.
        teacher: a network that teaches all of them, as for `fit`.
        callbacks: called for each member that is trained, as by `fit`; in a search, whose members
            pause, for each part of the training.
        on_member: called with the row of each member when it is finished, or if it was already.
        **settings: by name, a list of values, a distribution such as
            `mnistjax.runs.LogUniform(1e-4, 1e-2)`, or one value, as for `expand`.

    Returns:
        The networks, with their table.

    Raises:
        ConfigError: a setting is out of its bounds, shared, or does not fit this data set; a list
            is empty; lists to zip differ in length; there are too few settings or epochs for the
            search, or no validation images; members cannot be trained side by side (in a search,
            with callbacks, `patience`, `on_nan="skip"`, or images that are not whole on every
            device) or do not fit in memory; or as `fit`.
        UnknownNameError: a setting, model, optimizer or schedule does not exist.
        RunError: the work directory holds a population, or one of other settings or data or another
            teacher or search to resume, or it cannot be written, or several processes call this
            function.
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
    options: dict[str, Any] = {"devices": devices, "images": images, "teacher": teacher}
    candidates = check_candidates(config, chosen, dataset, **options)
    alone = "in a search" if search else "with callbacks" if callbacks else None
    parts = _divide(candidates, together, alone)
    if search is not None:
        search.check(candidates)
    with contextlib.ExitStack() as stack:
        directory, digests = None, {}
        if workdir is not None:
            digests = fingerprints(dataset, teacher) | ({"search": repr(search)} if search else {})
            ways = {"overwrite": overwrite, "resume": resume}
            directory = open_population(workdir, config, chosen, digests, **ways)
            stack.enter_context(says_how_to_go_on(directory, overwrite))
        place = directory
        if search is not None and place is None:  # Members that pause wait on disk.
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            lost = "interrupted: without a work directory a search cannot go on"
            stack.enter_context(on_exit_say(lost))
        trainer = Trainer(dataset, place, options, callbacks, on_member)
        if search:
            search.train(trainer, candidates, resume=resume)
        else:
            _train_all(trainer, parts, resume=resume)
    population = Population(config, tuple(trainer[one] for one in candidates), directory)
    if directory is not None:
        write_population(directory, config, chosen, digests, population.rows)
    return population


def _divide(
    candidates: Sequence[Candidate], together: int | Literal["auto"], alone: str | None
) -> list[list[Candidate]]:
    """Returns candidates in parts that are trained side by side, a group after the other.

    Args:
        candidates: the candidates.
        together: number of candidates in a part, as for `fit_population`.
        alone: the words for what allows only one, for an error message; None if nothing does.

    Raises:
        ConfigError: as `fit_population`.
    """
    if together != "auto":
        if isinstance(together, bool) or not isinstance(together, int) or together < 1:
            raise ConfigError(f'expected together, at least 1 or "auto", found {together!r}')
        if together > 1 and alone:
            raise ConfigError(f"expected together=1 {alone}, found {together}")
    parts = []
    for _, members in itertools.groupby(by_group(candidates), lambda one: one.group):
        some = list(members)
        plans = [one.plan for one in some]
        if together == "auto":
            size = 1 if alone else _choose_size(plans)
        else:
            size = together
            if size > 1:
                check_mapped(plans, min(size, len(some)))
        parts += [some[start : start + size] for start in range(0, len(some), size)]
    return parts


def _choose_size(plans: Sequence[Plan]) -> int:
    """Returns how many networks of a group are trained side by side by default."""
    on_cpu = plans[0].placement.devices[0].platform == "cpu"
    return 1 if on_cpu or any(map(obstacle, plans)) else max(1, most_at_once(plans[0]))


def _train_all(trainer: Trainer, parts: Sequence[Sequence[Candidate]], *, resume: bool) -> None:
    for some in parts:
        if len(some) == 1:
            trainer.train(*some, resume=resume)
        else:
            trainer.train_side_by_side(some, resume=resume)
        for one in some:
            trainer.tell(one)

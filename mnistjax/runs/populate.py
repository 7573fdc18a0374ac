"""Trains populations, member by member, with shared programs."""

from __future__ import annotations

import contextlib
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
from mnistjax.runs.pbt import PBT
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
    """Trains networks that differ in seeds and settings, one after the other.

    Each member is bit for bit what `fit` returns for its settings, unless a search changes them on
    the way. Members that differ in seeds or in numbers that a program takes as arguments (learning
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
            search, or no validation images; or as `fit`.
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
        (search.train if search else _train_each)(trainer, candidates, resume=resume)
    population = Population(config, tuple(trainer[one] for one in candidates), directory)
    if directory is not None:
        write_population(directory, config, chosen, digests, population.rows)
    return population


def _train_each(trainer: Trainer, candidates: Sequence[Candidate], *, resume: bool) -> None:
    for one in by_group(candidates):
        trainer.train(one, resume=resume)
        trainer.tell(one)

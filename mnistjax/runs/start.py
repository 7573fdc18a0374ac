"""Begins a run: checks its settings, claims its directory and finds where it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp

from mnistjax.data import Dataset
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs import processes
from mnistjax.runs.build import state_function
from mnistjax.runs.checkpoints import (
    describe_identity,
    restore_latest,
    share_progress,
)
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import RESULT, RunDirectory, claim_run_directory, says_not_writable
from mnistjax.runs.fingerprints import fingerprint
from mnistjax.runs.plan import Plan, make_plan
from mnistjax.runs.progress import Progress
from mnistjax.runs.trained import TrainedModel
from mnistjax.signals import on_exit_say
from mnistjax.training import Metrics


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A run whose settings are checked and whose directory is claimed.

    Attributes:
        plan: the run.
        directory: its directory; None if nothing is written, or another process writes it.
        data: returns the fingerprint of its data set.
        progress: what an earlier run has done, or None.
        how_to_go_on: what to type if it is interrupted.
    """

    plan: Plan
    directory: RunDirectory | None
    data: Callable[[], str]
    progress: Progress | None
    how_to_go_on: str


@contextlib.contextmanager
def start_run(
    config: TrainConfig,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike[str] | None,
    overwrite: bool,
    resume: bool,
    devices: int | str | None,
    images: str,
    teacher: TrainedModel | None,
) -> Iterator[Start]:
    """Begins a run, and releases its directory in the end. The arguments are those of `fit`.

    Of several processes, the first one alone reads and writes the directory.

    Raises:
        ConfigError: as `fit`.
        RunError: as `fit`, or the processes have other settings, data or teachers, or one of them
            failed.
    """
    with contextlib.ExitStack() as stack:
        directory, how, progress = None, "", None
        with processes.together():
            if resume and workdir is None:
                raise ConfigError("a run that is to be resumed needs a workdir, found None")
            plan = make_plan(config, dataset, devices=devices, images=images, teacher=teacher)
            # hashlib releases the GIL, so beside the compiler this takes no time of its own.
            data = stack.enter_context(ThreadPoolExecutor(1)).submit(fingerprint, dataset).result
            if workdir is not None and processes.is_first():
                claim = claim_run_directory(workdir, config, overwrite=overwrite, resume=resume)
                directory = stack.enter_context(claim)
                how = stack.enter_context(says_how_to_go_on(directory.path, overwrite))
                progress = _go_on(plan, directory, data) if resume else None
        if plan.placement.process_count > 1:
            processes.check_same({"resume": str(resume), **describe_identity(plan, data())})
            progress = (
                share_progress(plan, progress, progress_template(plan), data()) if resume else None
            )
        yield Start(plan, directory, data, progress, how)


@contextlib.contextmanager
def says_how_to_go_on(path: Path, overwrite: bool) -> Iterator[str]:
    """Has the process say how to go on if a signal ends it.

    Args:
        path: the directory of a run, or of a population, whose runs then say the same.
        overwrite: whether it was started to replace another one.

    Yields:
        What to type.
    """
    instead = " in place of --overwrite" if overwrite else ""
    how = f"the same command with --workdir {shlex.quote(str(path))} --resume{instead} goes on"
    prefix = "interrupted: "
    with on_exit_say(prefix + how) as said:
        yield said.removeprefix(prefix)


def progress_template(plan: Plan) -> Progress:
    """Returns the shapes and dtypes of the progress of a run; nothing is compiled.

    Args:
        plan: the run.
    """
    shape = tuple(plan.dataset.info.image_shape)
    create_state = state_function(plan.config, plan.model, plan.steps, shape)
    state = jax.eval_shape(create_state, jax.ShapeDtypeStruct((2,), jnp.uint32))
    return Progress(state, Metrics.empty(plan.dataset.info.num_classes))


def _go_on(plan: Plan, directory: RunDirectory, data: Callable[[], str]) -> Progress | None:
    """Returns the progress of the run that the directory holds, or None."""
    with says_not_writable(directory.path):
        progress = restore_latest(directory.path, plan, progress_template(plan), data)
    if progress:
        directory.go_on()
    elif (directory.path / RESULT).exists():
        raise RunError(
            "expected a run to resume, found a finished run without checkpoints in "
            f"{directory.path}"
        )
    else:
        with says_not_writable(directory.path):
            directory.begin()
    return progress

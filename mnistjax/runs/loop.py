"""`fit`: the training loop, which runs the programs, calls the callbacks and writes the files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mnistjax.data import Dataset
from mnistjax.errors import ConfigError, RunError
from mnistjax.models import Variables
from mnistjax.runs.build import count_skipped
from mnistjax.runs.callbacks import Callback, Watchers
from mnistjax.runs.checkpoint_policy import DEFAULT_POLICY, CheckpointPolicy
from mnistjax.runs.checkpoints import Keeper, fingerprint, restore_latest
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import (
    RESULT,
    WEIGHTS,
    RunDirectory,
    claim_run_directory,
    says_not_writable,
    write_metrics,
    write_result,
)
from mnistjax.runs.finite import check_epoch, check_loss, check_training
from mnistjax.runs.plan import Plan, make_plan
from mnistjax.runs.programs import Programs, abstract_state, single
from mnistjax.runs.progress import Progress
from mnistjax.runs.result import describe_plan, describe_result, prefix_metrics
from mnistjax.runs.trained import FitResult, TrainedModel
from mnistjax.runs.weights import save_weights
from mnistjax.signals import Interrupted, defers_signals, on_exit_say
from mnistjax.training import Metrics

# A call of the compiled program should take about this long: enough to make its overhead
# negligible, and short enough to update a progress bar.
_STRETCH_SECONDS = 0.25


def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoints: CheckpointPolicy = DEFAULT_POLICY,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Trains a network and evaluates it on all test images.

    Validation images are held out from the training images; no choice depends on the test images.
    The same settings and data give bitwise identical results on the same machine with the same
    number of threads and the same package versions, whether or not the run was interrupted and
    resumed.

    While it trains, SIGINT (Ctrl-C) and SIGTERM end the run after a checkpoint is saved.

    Args:
        config: the settings.
        dataset: a data set from `load_dataset`, or one made from arrays of your own.
        workdir: directory for `config.json`, `metrics.jsonl`, `weights.safetensors`, `result.json`
            and `checkpoints/`. None writes nothing.
        overwrite: whether a run that `workdir` already holds may be replaced.
        resume: whether a run that `workdir` already holds goes on from its newest checkpoint. If
            there is none, the run starts from the beginning.
        checkpoints: when checkpoints are saved and which are kept.
        callbacks: called in this order. If one of them fails, a warning is logged and the run
            continues without it.

    Returns:
        The trained network, its state, history and result.

    Raises:
        ConfigError: a setting does not fit this data set, the path of `workdir` cannot be used, or
            `resume` is given without a `workdir` or with `overwrite`.
        RunError: the work directory holds a run, or one with other settings or data than the run
            to resume, another run is writing to it, or it is not writable.
        NonFiniteLossError: a training, validation or test loss became NaN or infinite. The
            checkpoints before it are kept.
        Interrupted: a signal ended the run; it is a `KeyboardInterrupt`.
        MnistjaxError: `on_start` of a callback raised it.

    >>> import mnistjax
    >>> config = mnistjax.get_recipe("softmax").replace(steps=5)
    >>> fitted = mnistjax.fit(config, mnistjax.load_dataset("digits"))
    >>> fitted.result["steps"], fitted.result["test_count"]
    (5, 360)
    """
    begin = time.perf_counter()
    plan = make_plan(config, dataset)
    with contextlib.ExitStack() as stack:
        directory, path, how = None, None, ""
        if workdir is not None:
            claim = claim_run_directory(workdir, config, overwrite=overwrite, resume=resume)
            directory = stack.enter_context(claim)
            path = directory.path
            how = _how_to_go_on(path, overwrite)
            stack.enter_context(on_exit_say(f"interrupted: {how}"))
        # hashlib releases the GIL, so beside the compiler this takes no time of its own.
        data = stack.enter_context(ThreadPoolExecutor(1)).submit(fingerprint, dataset).result
        progress = _start(plan, directory, data, resume=resume)
        watchers = stack.enter_context(contextlib.closing(Watchers(callbacks)))
        step = progress.step(plan) if progress else 0
        watchers.start({**describe_plan(plan), "step": step, "workdir": path and str(path)})
        compile_begin = time.perf_counter()
        programs = single(plan)
        compile_seconds = time.perf_counter() - compile_begin
        watchers.tell("on_compiled", compile_seconds)
        keeper = Keeper(directory, plan, checkpoints, data, start=step) if directory else None
        with defers_signals() as received:
            run = _Run(plan, programs, watchers, directory, keeper, received, how)
            progress = _train(run, progress or _first(plan, programs))
        variables, result = _test(plan, programs, progress)
        result |= {
            "dataset_sha256": data(),
            "compile_seconds": compile_seconds,
            "total_seconds": time.perf_counter() - begin,
        }
        trained = TrainedModel(
            plan.model, variables, dataset.info, config, result, progress.history
        )
        if directory:
            _write_results(directory, trained, result)
        fitted = FitResult(trained, progress.kept, dataset, path)
        watchers.tell("on_end", fitted)
    return fitted


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """What the loop needs besides the progress of the run."""

    plan: Plan
    programs: Programs
    watchers: Watchers
    directory: RunDirectory | None
    keeper: Keeper | None
    received: Callable[[], int | None]
    how_to_go_on: str

    def keep(self, progress: Progress) -> None:
        """Saves a checkpoint if one is due; ends the run if a signal has arrived."""
        signum = self.received()
        if signum is None:
            if self.keeper:
                self.keeper.offer(progress)
            return
        where = f"interrupted at step {progress.step(self.plan)}"
        if self.keeper is None:
            raise Interrupted(signum, f"{where}: nothing is saved without a work directory")
        saved = "which is saved" if self.keeper.save(progress) else "which could not be saved"
        raise Interrupted(signum, f"{where}, {saved}: {self.how_to_go_on}")


def _how_to_go_on(path: Path, overwrite: bool) -> str:
    instead = " in place of --overwrite" if overwrite else ""
    return f"the same command with --workdir {shlex.quote(str(path))} --resume{instead} goes on"


def _start(
    plan: Plan, directory: RunDirectory | None, data: Callable[[], str], *, resume: bool
) -> Progress | None:
    """Returns the progress that a run to resume has made, or None."""
    if directory is None:
        if resume:
            raise ConfigError("a run that is to be resumed needs a workdir, found None")
        return None
    progress = None
    if resume:
        template = Progress(abstract_state(plan), Metrics.empty(plan.dataset.info.num_classes))
        with says_not_writable(directory.path):
            progress = restore_latest(directory.path, plan, template, data)
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


def _first(plan: Plan, programs: Programs) -> Progress:
    return Progress(programs.create_state(), Metrics.empty(plan.dataset.info.num_classes))


def _test(plan: Plan, programs: Programs, progress: Progress) -> tuple[Variables, dict[str, Any]]:
    """Evaluates the network that is kept on all test images; returns its variables and result."""
    variables = programs.variables(progress.kept)
    test = programs.evaluate(variables, plan.dataset.test)
    # The last update may have broken the weights, as the training loss is computed before it.
    check_loss(plan, progress.kept, test, "test loss")
    return variables, describe_result(plan, progress, test)


def _write_results(
    directory: RunDirectory, trained: TrainedModel, result: Mapping[str, Any]
) -> None:
    with says_not_writable(directory.path):
        directory.begin()
        save_weights(directory.path / WEIGHTS, trained)
        _write_metrics(directory, trained.history)
        write_result(directory.path, result)


def _train(run: _Run, progress: Progress) -> Progress:
    """Trains all epochs that are left."""
    while not progress.is_over(run.plan):
        progress = _train_epoch(run, progress)
        # Not yet where they would replace a whole run: the next checkpoint does that.
        if run.directory and run.directory.has_begun:
            _write_metrics(run.directory, progress.history)
        run.keep(progress)
    if run.keeper:
        run.keeper.save(progress)
    run.keep(progress)  # A signal may have arrived meanwhile.
    return progress


def _write_metrics(directory: RunDirectory, history: Sequence[Mapping[str, Any]]) -> None:
    try:
        directory.begin()
        write_metrics(directory.path, history)
    except OSError as error:  # The next epoch rewrites the whole file.
        directory.warn("the metrics", error)


def _train_epoch(run: _Run, progress: Progress) -> Progress:
    """Trains the rest of an epoch in stretches, and evaluates it on the validation images."""
    plan = run.plan
    epoch = len(progress.history)
    first = epoch * plan.steps_per_epoch
    stop = min(plan.steps_per_epoch, plan.steps - first)
    order = run.programs.draw_order(epoch)
    length = 1
    while progress.done < stop:
        start = time.perf_counter()
        until = min(progress.done + length, stop)
        if run.keeper:
            until = min(until, run.keeper.next_step(first + progress.done) - first)
        state, metrics = run.programs.train(
            progress.state, progress.metrics, order, progress.done, until
        )
        after = dataclasses.replace(progress, state=state, metrics=metrics, done=until)
        check_training(plan, run.programs, progress, after, order)
        seconds = time.perf_counter() - start
        length = max(1, min(2 * length, int(_STRETCH_SECONDS * (until - progress.done) / seconds)))
        progress = dataclasses.replace(after, seconds=progress.seconds + seconds)
        run.watchers.tell("on_steps", first + until)
        if until < stop:
            run.keep(progress)
    return _finish_epoch(run, progress)


def _finish_epoch(run: _Run, progress: Progress) -> Progress:
    plan, step = run.plan, progress.step(run.plan)
    check_epoch(plan, progress)
    row: dict[str, Any] = {
        "epoch": step / plan.steps_per_epoch,
        "step": step,
        **prefix_metrics("train", progress.metrics),
        "validation_loss": None,
        "validation_accuracy": None,
        "train_seconds": progress.seconds,
        "images_per_second": int(progress.metrics.count) / progress.seconds,
    }
    if plan.validation:
        validation = run.programs.evaluate(run.programs.variables(progress.state), plan.validation)
        check_loss(plan, progress.state, validation, "validation loss")
        row |= prefix_metrics("validation", validation)
    if plan.config.on_nan == "skip":
        row["skipped_steps"] = count_skipped(plan.config, progress.state)[1]
    return progress.finish_epoch(plan, row, stop=run.watchers.tell("on_epoch", row))

"""`fit`: the training loop, which runs the programs, calls the callbacks and writes the files."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mnistjax.data import Dataset
from mnistjax.errors import RunError
from mnistjax.models import Variables
from mnistjax.runs import processes
from mnistjax.runs.build import count_skipped
from mnistjax.runs.callbacks import Callback, Watchers
from mnistjax.runs.checkpoint_policy import DEFAULT_POLICY, CheckpointPolicy
from mnistjax.runs.checkpoints import Keeper
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import (
    WEIGHTS,
    RunDirectory,
    says_not_writable,
    write_metrics,
    write_result,
)
from mnistjax.runs.finite import check_epoch, check_loss, check_training
from mnistjax.runs.plan import Plan
from mnistjax.runs.programs import Programs, make_programs
from mnistjax.runs.progress import History, Progress
from mnistjax.runs.result import describe_epoch, describe_plan, describe_result
from mnistjax.runs.start import start_run
from mnistjax.runs.trained import FitResult, TrainedModel
from mnistjax.runs.weights import save_weights
from mnistjax.signals import Interrupted, defers_signals
from mnistjax.training import Metrics, on_one_device

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
    devices: int | str | None = None,
    images: str = "auto",
    callbacks: Sequence[Callback] = (),
    teacher: TrainedModel | None = None,
) -> FitResult:
    """Trains a network and evaluates it on all test images.

    Validation images are held out from the training images; no choice depends on the test images.
    The same settings and data give bitwise identical results on the same machine with the same
    number of devices and threads and the same package versions, whether or not the run was
    interrupted and resumed, and wherever its images are kept. On another number of devices they
    differ by rounding.

    While it trains, SIGINT (Ctrl-C) and SIGTERM end the run after a checkpoint is saved.

    Several processes train one network if each has called `mnistjax.runs.initialize` before and
    calls this function with the same arguments. The first one alone writes `workdir` and calls
    `callbacks`, and all of them return the result.

    Args:
        config: the settings.
        dataset: a data set from `load_dataset`, or one made from arrays of your own.
        workdir: directory for `config.json`, `metrics.jsonl`, `weights.safetensors`, `result.json`
            and `checkpoints/`. None writes nothing.
        overwrite: whether a run that `workdir` already holds may be replaced.
        resume: whether a run that `workdir` already holds goes on from its newest checkpoint. If
            there is none, the run starts from the beginning.
        checkpoints: when checkpoints are saved and which are kept.
        devices: number of devices of each process that share each batch, or "all". None means all
            accelerators, but one device on CPU, where virtual devices only divide the same cores.
        images: where the training images are kept: "replicated" on every device, "sharded" over the
            devices, "streamed" from host memory or disk, or "auto", the first of them that takes at
            most a quarter of the memory.
        callbacks: called in this order. If one of them fails, a warning is logged and the run
            continues without it.
        teacher: a network, often an ensemble (`mnistjax.runs.ensemble`), from whose probabilities
            this one learns on every augmented batch (`mnistjax.training.distillation_loss`), by
            `config.distill_weight` and `config.temperature`. To resume the run, give it again.

    Returns:
        The trained network, its state, history and result.

    Raises:
        ConfigError: a setting or the teacher does not fit this data set, the path of `workdir`
            cannot be used, `resume` is given without a `workdir` or with `overwrite`, or there are
            fewer devices.
        UnknownNameError: `images` is not a name of a place.
        RunError: the work directory holds a run, or one with other settings or data or another
            teacher than the run to resume, another run is writing to it, or it is not writable; or
            another process failed, or has other settings or data or another teacher.
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
    fitted = fit_part(
        config,
        dataset,
        workdir=workdir,
        overwrite=overwrite,
        resume=resume,
        checkpoints=checkpoints,
        devices=devices,
        images=images,
        callbacks=callbacks,
        teacher=teacher,
    )
    assert isinstance(fitted, FitResult)  # It was not to pause.
    return fitted


def fit_part(
    config: TrainConfig,
    dataset: Dataset,
    *,
    epochs: int | None = None,
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoints: CheckpointPolicy = DEFAULT_POLICY,
    devices: int | str | None = None,
    images: str = "auto",
    callbacks: Sequence[Callback] = (),
    teacher: TrainedModel | None = None,
) -> FitResult | History:
    """Trains as `fit`, but may pause: the run then goes on with `resume` as if it had not.

    Args:
        config: the settings.
        dataset: the data set.
        epochs: number of epochs, from the start of the run, after which it pauses and saves a
            checkpoint; None trains it to its end.
        workdir: the run directory, as for `fit`; so are all other arguments.
        overwrite: as for `fit`.
        resume: as for `fit`.
        checkpoints: as for `fit`.
        devices: as for `fit`.
        images: as for `fit`.
        callbacks: as for `fit`; they are not told of an end where the run pauses.
        teacher: as for `fit`.

    Returns:
        The trained network; or the history of the run, a row per epoch, if it has paused.

    Raises:
        ConfigError: as `fit`.
        RunError: as `fit`.
        NonFiniteLossError: as `fit`.
        Interrupted: as `fit`.
    """
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        started = start_run(
            config,
            dataset,
            workdir=workdir,
            overwrite=overwrite,
            resume=resume,
            devices=devices,
            images=images,
            teacher=teacher,
        )
        start = stack.enter_context(started)
        plan, directory, data = start.plan, start.directory, start.data
        path = directory.path if directory else None
        step = start.progress.step(plan) if start.progress else 0
        if not processes.is_first():
            callbacks = [callback for callback in callbacks if callback.in_every_process]
        watchers = stack.enter_context(contextlib.closing(Watchers(callbacks)))
        with processes.together():
            watchers.start({**describe_plan(plan), "step": step, "workdir": path and str(path)})
        compile_begin = time.perf_counter()
        programs = stack.enter_context(contextlib.closing(make_programs(plan)))
        compile_seconds = time.perf_counter() - compile_begin
        watchers.tell("on_compiled", compile_seconds)
        keeper = Keeper(directory, plan, checkpoints, data, start=step) if directory else None
        with defers_signals() as received:
            run = _Run(plan, programs, watchers, directory, keeper, received, start.how_to_go_on)
            progress = _train(run, _place(plan, programs, start.progress), epochs)
        if not progress.is_over(plan):
            return progress.history
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
            write_results(directory, trained, result)
        fitted = FitResult(trained, on_one_device(progress.kept), dataset, path)
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
        # A signal that one process has received ends all of them, after the same step.
        signum = processes.largest(self.received() or 0)
        if not signum:
            if self.keeper:
                self.keeper.offer(progress)
            return
        where = f"interrupted at step {progress.step(self.plan)}"
        if not processes.is_first():
            raise Interrupted(signum, where)
        if self.keeper is None:
            raise Interrupted(signum, f"{where}: nothing is saved without a work directory")
        saved = "which is saved" if self.keeper.save(progress) else "which could not be saved"
        raise Interrupted(signum, f"{where}, {saved}: {self.how_to_go_on}")


def _place(plan: Plan, programs: Programs, progress: Progress | None) -> Progress:
    """Returns the progress with its arrays on the devices; that at step 0 if there is none."""
    if progress is None:
        empty = Metrics.empty(plan.dataset.info.num_classes)
        return Progress(programs.create_state(), programs.place(empty))
    placed = programs.place((progress.state, progress.metrics, progress.best))
    state, metrics, best = placed
    return dataclasses.replace(progress, state=state, metrics=metrics, best=best)


def _test(plan: Plan, programs: Programs, progress: Progress) -> tuple[Variables, dict[str, Any]]:
    """Evaluates the network that is kept on all test images; returns its variables and result."""
    variables = programs.variables(progress.kept)
    test = programs.evaluate(variables, plan.dataset.test)
    # The last update may have broken the weights, as the training loss is computed before it.
    check_loss(plan, progress.kept, test, "test loss")
    return on_one_device(variables), describe_result(plan, progress, test)


def write_results(
    directory: RunDirectory, trained: TrainedModel, result: Mapping[str, Any]
) -> None:
    """Writes the files of a finished run, `result.json` last.

    Args:
        directory: its directory.
        trained: the network.
        result: the content of `result.json`.

    Raises:
        RunError: the directory is not writable.
    """
    with says_not_writable(directory.path):
        directory.begin()
        save_weights(directory.path / WEIGHTS, trained)
        _write_metrics(directory, trained.history)
        write_result(directory.path, result)


def _train(run: _Run, progress: Progress, epochs: int | None) -> Progress:
    """Trains all epochs that are left, or until there are `epochs` of them."""
    until = math.inf if epochs is None else epochs
    while not progress.is_over(run.plan) and len(progress.history) < until:
        progress = _train_epoch(run, progress)
        # Not yet where they would replace a whole run: the next checkpoint does that.
        if run.directory and run.directory.has_begun:
            _write_metrics(run.directory, progress.history)
        run.keep(progress)
    saved = run.keeper is None or run.keeper.save(progress)
    run.keep(progress)  # A signal may have arrived meanwhile.
    if not (saved or progress.is_over(run.plan)):
        raise RunError(
            "expected to save a checkpoint of a run that pauses: it could not be written"
        )
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
        until = processes.first(until)
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
    validation = None
    if plan.validation:
        validation = run.programs.evaluate(run.programs.variables(progress.state), plan.validation)
        check_loss(plan, progress.state, validation, "validation loss")
    row = describe_epoch(plan, step, progress.metrics, progress.seconds, validation)
    if plan.config.on_nan == "skip":
        row["skipped_steps"] = count_skipped(plan.config, progress.state)[1]
    metrics = run.programs.place(Metrics.empty(plan.dataset.info.num_classes))
    stop = processes.first(run.watchers.tell("on_epoch", row))
    return progress.finish_epoch(plan, row, metrics, stop=bool(stop))

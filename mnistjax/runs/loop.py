"""`fit`: the training loop, which runs the programs, calls the callbacks and writes the files."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mnistjax.data import Dataset
from mnistjax.errors import NonFiniteLossError, RunError
from mnistjax.runs.callbacks import Callback, Watchers
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import WEIGHTS, claim_run_directory, write_metrics, write_result
from mnistjax.runs.plan import Plan, make_plan
from mnistjax.runs.programs import Programs, single
from mnistjax.runs.result import describe_plan, describe_result, prefix_metrics
from mnistjax.runs.trained import FitResult, TrainedModel
from mnistjax.runs.weights import save_weights
from mnistjax.training import Metrics, TrainState

# A call of the compiled program should take about this long: enough to make its overhead
# negligible, and short enough to update a progress bar.
_STRETCH_SECONDS = 0.25

_LOG = logging.getLogger(__name__)

History = list[dict[str, Any]]


def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Trains a network and evaluates it on all test images.

    Validation images are held out from the training images; no choice depends on the test images.
    The same settings and data give bitwise identical results on the same machine with the same
    number of threads and the same package versions.

    Args:
        config: the settings.
        dataset: a data set from `load_dataset`, or one made from arrays of your own.
        workdir: directory for `config.json`, `metrics.jsonl`, `weights.safetensors` and
            `result.json`. None writes nothing.
        overwrite: whether a run that `workdir` already holds may be replaced.
        callbacks: called in this order. If one of them fails, a warning is logged and the run
            continues without it.

    Returns:
        The trained network, its state, history and result.

    Raises:
        ConfigError: a setting does not fit this data set.
        RunError: the work directory holds a run, another run is writing to it, or it is not
            writable.
        NonFiniteLossError: a training, validation or test loss became NaN or infinite.
        MnistjaxError: `on_start` of a callback raised it.

    >>> import mnistjax
    >>> config = mnistjax.get_recipe("softmax").replace(steps=5)
    >>> fitted = mnistjax.fit(config, mnistjax.load_dataset("digits"))
    >>> fitted.result["steps"], fitted.result["test_count"]
    (5, 360)
    """
    begin = time.perf_counter()
    plan = make_plan(config, dataset)
    watchers = Watchers(callbacks)
    with contextlib.ExitStack() as stack:
        path = None
        if workdir is not None:
            path = stack.enter_context(claim_run_directory(workdir, config, overwrite=overwrite))
        stack.callback(watchers.close)
        watchers.start({**describe_plan(plan), "workdir": path and str(path)})
        compile_begin = time.perf_counter()
        programs = single(plan)
        compile_seconds = time.perf_counter() - compile_begin
        watchers.tell("on_compiled", compile_seconds)
        state, history = _train(plan, programs, path, watchers)
        variables = programs.variables(state)
        test = programs.evaluate(variables, dataset.test)
        # The last update may have broken the weights, as the training loss is computed before it.
        _check_finite(plan, test, f"test loss after step {int(state.step)}")
        result = {
            **describe_result(plan, state, history, test),
            "compile_seconds": compile_seconds,
            "total_seconds": time.perf_counter() - begin,
        }
        trained = TrainedModel(plan.model, variables, dataset.info, config, result, tuple(history))
        if path:
            _write_results(path, trained, result)
        fitted = FitResult(trained, state, dataset, path)
        watchers.tell("on_end", fitted)
    return fitted


def _write_results(path: Path, trained: TrainedModel, result: Mapping[str, Any]) -> None:
    try:
        save_weights(path / WEIGHTS, trained)
        write_result(path, result)
    except OSError as error:
        raise RunError(f"expected to write the results to {path}: {error}") from error


def _train(
    plan: Plan, programs: Programs, path: Path | None, watchers: Watchers
) -> tuple[TrainState, History]:
    """Trains all epochs; returns the last state, or the best one if patience is set."""
    state = programs.create_state()
    best, best_accuracy, waited = None, -1.0, 0
    history: History = []
    for epoch in range(math.ceil(plan.steps / plan.steps_per_epoch)):
        state, row = _train_epoch(plan, programs, state, epoch, watchers)
        history.append(row)
        if path:
            _write_metrics(path, history)
        stop = watchers.tell("on_epoch", row)
        if plan.config.patience is not None:
            waited += 1
            if row["validation_accuracy"] > best_accuracy:
                # The next stretch donates the memory of the state, so the best one is a copy.
                best, best_accuracy = jax.tree.map(jnp.copy, state), row["validation_accuracy"]
                waited = 0
            stop = stop or waited >= plan.config.patience
        if stop:
            break
    return (state if best is None else best), history


def _write_metrics(path: Path, history: History) -> None:
    try:
        write_metrics(path, history)
    except OSError as error:  # The next epoch rewrites the whole file.
        _LOG.warning("the metrics could not be written to %s: %s", path, error)


def _train_epoch(
    plan: Plan, programs: Programs, state: TrainState, epoch: int, watchers: Watchers
) -> tuple[TrainState, dict[str, Any]]:
    """Trains one epoch in stretches, and evaluates it on the validation images."""
    begin = time.perf_counter()
    first = epoch * plan.steps_per_epoch
    stop = min(plan.steps_per_epoch, plan.steps - first)
    order = programs.draw_order(epoch)
    metrics = Metrics.empty(plan.dataset.info.num_classes)
    done, length = 0, 1
    while done < stop:
        start = time.perf_counter()
        until = min(done + length, stop)
        state, metrics = programs.train(state, metrics, order, done, until)
        where = f"between steps {first + done} and {first + until}"
        _check_finite(plan, metrics, f"training loss {where}")
        seconds = (time.perf_counter() - start) / (until - done)
        length = max(1, min(2 * length, int(_STRETCH_SECONDS / seconds)))
        done = until
        watchers.tell("on_steps", first + done)
    seconds = time.perf_counter() - begin
    row: dict[str, Any] = {
        "epoch": (first + stop) / plan.steps_per_epoch,
        "step": first + stop,
        **prefix_metrics("train", metrics),
        "validation_loss": None,
        "validation_accuracy": None,
        "train_seconds": seconds,
        "images_per_second": int(metrics.count) / seconds,
    }
    if plan.validation:
        validation = programs.evaluate(programs.variables(state), plan.validation)
        _check_finite(plan, validation, f"validation loss after step {first + stop}")
        row |= prefix_metrics("validation", validation)
    return state, row


def _check_finite(plan: Plan, metrics: Metrics, what: str) -> None:
    loss = float(metrics.loss_sum)  # float() waits for the device.
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"the {what} became {loss}: a learning rate below {plan.config.learning_rate:g} or "
            "clip_norm may help"
        )

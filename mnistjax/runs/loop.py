"""The host side of training: loop over the compiled stretches, tell the callbacks, write."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mnistjax.data import Dataset
from mnistjax.errors import NonFiniteLossError
from mnistjax.models import Model
from mnistjax.runs.callbacks import Callback
from mnistjax.runs.config import TrainConfig
from mnistjax.training.metrics import Metrics
from mnistjax.runs.programs import (
    Plan,
    Programs,
    compile_programs,
    make_plan,
)
from mnistjax.runs.directory import WEIGHTS, claim_run_directory, write_metrics, write_result
from mnistjax.training.state import TrainState
from mnistjax.runs.weights import save_weights

# Long enough to make the dispatch of a stretch free, short enough to keep a progress bar alive.
_STRETCH_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes:
        state: the state after the last update; with early stopping, that of the best epoch.
        model: the network; `model.apply(state.variables, images)` gives logits.
        history: a row an epoch, the lines of `metrics.jsonl`.
        result: the content of `result.json`.
        workdir: the run directory, or None where nothing was written.
    """

    state: TrainState
    model: Model
    history: list[dict[str, Any]]
    result: dict[str, Any]
    workdir: Path | None


def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Trains a network and measures it on all test images.

    The validation images are split off the training images; nothing is chosen on the test images.

    Args:
        config: the settings.
        dataset: what `load_dataset` gave, or arrays of your own.
        workdir: directory for `config.json`, `metrics.jsonl`, `weights.safetensors` and
            `result.json`. None writes nothing.
        overwrite: whether a run that `workdir` already holds may be replaced.
        callbacks: told of the progress, in this order.

    Returns:
        The trained state, the history and the result.

    Raises:
        ConfigError: a setting that does not go with this data set.
        RunError: a work directory that holds a run, or that cannot be written.
        NonFiniteLossError: a loss became NaN or infinite, of training, validation or test images.
    """
    begin = time.perf_counter()
    plan = make_plan(config, dataset)
    path = None
    if workdir is not None:
        path = claim_run_directory(workdir, config, overwrite=overwrite)
    try:
        for callback in callbacks:
            callback.on_start({**_description(plan), "workdir": path and str(path)})
        compile_begin = time.perf_counter()
        programs = compile_programs(plan)
        compile_seconds = time.perf_counter() - compile_begin
        for callback in callbacks:
            callback.on_compiled(compile_seconds)
        state, history = _train(plan, programs, path, callbacks)
        test = programs.evaluate_test(state.variables)
        # The last update may have spoiled weights whose loss was finite before it.
        _check_finite(plan, test, f"test loss after step {int(state.step)}")
        result = {
            **_figures(plan, state, history, test),
            "compile_seconds": compile_seconds,
            "total_seconds": time.perf_counter() - begin,
        }
        if path:
            save_weights(path / WEIGHTS, state.variables, config, dataset.info)
            write_result(path, result)
        for callback in callbacks:
            callback.on_end(result)
    finally:
        for callback in callbacks:
            callback.close()
    return FitResult(state, plan.model, history, result, path)


def _train(
    plan: Plan, programs: Programs, path: Path | None, callbacks: Sequence[Callback]
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains all epochs; returns the last state, or the best one where patience is set."""
    state = programs.create_state()
    best, best_accuracy, waited = None, -1.0, 0
    history: list[dict[str, Any]] = []
    for epoch in range(math.ceil(plan.steps / plan.steps_per_epoch)):
        state, row = _train_epoch(plan, programs, state, epoch, callbacks)
        history.append(row)
        if path:
            write_metrics(path, history)
        for callback in callbacks:
            callback.on_epoch(row)
        if plan.config.patience is None:
            continue
        waited += 1
        if row["validation_accuracy"] > best_accuracy:
            # The next stretch takes over the memory of the state, so the best one is a copy.
            best, best_accuracy = jax.tree.map(jnp.copy, state), row["validation_accuracy"]
            waited = 0
        if waited >= plan.config.patience:
            break
    return (state if best is None else best), history


def _train_epoch(
    plan: Plan,
    programs: Programs,
    state: TrainState,
    epoch: int,
    callbacks: Sequence[Callback],
) -> tuple[TrainState, dict[str, Any]]:
    """Trains one epoch in stretches, and measures it on the validation images."""
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
        _check_finite(
            plan, metrics, f"training loss between steps {first + done} and {first + until}"
        )
        seconds = (time.perf_counter() - start) / (until - done)
        length = max(1, min(2 * length, int(_STRETCH_SECONDS / seconds)))
        done = until
        for callback in callbacks:
            callback.on_steps(first + done)
    seconds = time.perf_counter() - begin
    row: dict[str, Any] = {
        "epoch": (first + stop) / plan.steps_per_epoch,
        "step": first + stop,
        **_prefixed("train", metrics),
        "validation_loss": None,
        "validation_accuracy": None,
        "train_seconds": seconds,
        "images_per_second": int(metrics.count) / seconds,
    }
    if programs.evaluate_validation:
        validation = programs.evaluate_validation(state.variables)
        _check_finite(plan, validation, f"validation loss after step {first + stop}")
        row |= _prefixed("validation", validation)
    return state, row


def _check_finite(plan: Plan, metrics: Metrics, what: str) -> None:
    loss = float(metrics.loss_sum)  # float() waits for the device.
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"the {what} became {loss}: a learning rate below {plan.config.learning_rate:g} or "
            "clip_norm may help"
        )


def _prefixed(split: str, metrics: Metrics) -> dict[str, Any]:
    return {f"{split}_{name}": float(value) for name, value in metrics.compute().items()}


def _description(plan: Plan) -> dict[str, Any]:
    """What is known of a run before it starts."""
    device = jax.devices()[0]
    cores = f"cpu, {os.cpu_count()} cores"
    return {
        "recipe": plan.config.recipe,
        "model": plan.config.model,
        "parameters": plan.parameters,
        "dataset": plan.dataset.info.name,
        "source": plan.dataset.source,
        "seed": plan.config.seed,
        "train_count": len(plan.train),
        "validation_count": len(plan.validation) if plan.validation else 0,
        "test_count": len(plan.dataset.test),
        "batch_size": plan.config.batch_size,
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "device": cores if device.platform == "cpu" else device.device_kind,
        "device_count": 1,
    }


def _figures(
    plan: Plan, state: TrainState, history: list[dict[str, Any]], test: Metrics
) -> dict[str, Any]:
    """What a run reached. `train_accuracy` is the running one of the last epoch."""
    kept = next(row for row in history if row["step"] == int(state.step))
    train_seconds = sum(row["train_seconds"] for row in history)
    images = sum(row["images_per_second"] * row["train_seconds"] for row in history)
    return {
        **_description(plan),
        "versions": _versions(),
        "epochs": kept["epoch"],
        "steps": int(state.step),
        "train_accuracy": kept["train_accuracy"],
        "train_loss": kept["train_loss"],
        "validation_accuracy": kept["validation_accuracy"],
        "validation_loss": kept["validation_loss"],
        **_prefixed("test", test),
        "train_seconds": train_seconds,
        "images_per_second": images / train_seconds,
    }


def _versions() -> dict[str, str]:
    packages = ("mnistjax", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **versions}

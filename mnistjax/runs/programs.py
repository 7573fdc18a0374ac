"""The compiled programs of a run, with the images they read already on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from mnistjax.data import (
    DATASETS,
    Dataset,
    DatasetInfo,
    Split,
    epoch_order,
    split_validation,
    steps_per_epoch,
)
from mnistjax.errors import ConfigError
from mnistjax.models import Model, Variables, count_parameters
from mnistjax.runs.build import build_model, build_optimizer, build_train_step
from mnistjax.training.compiler import compiler_options
from mnistjax.runs.config import MOST_STEPS, TrainConfig
from mnistjax.runs.evaluation import evaluate_chunks, jitted_evaluation, make_chunks
from mnistjax.training.metrics import Metrics
from mnistjax.training.state import TrainState, create_train_state
from mnistjax.training.step import make_epoch_fn


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do, settled and checked before anything is compiled or written.

    Attributes:
        config: the settings.
        dataset: the data set.
        train: the training images that are trained on.
        validation: those that are held out, or None.
        model: the network.
        steps_per_epoch: updates in which every training image is seen once.
        steps: length of the run in updates.
        parameters: number of scalars of the network, running statistics included.
    """

    config: TrainConfig
    dataset: Dataset
    train: Split
    validation: Split | None
    model: Model
    steps_per_epoch: int
    steps: int
    parameters: int


def make_plan(config: TrainConfig, dataset: Dataset) -> Plan:
    """Settles a run.

    Raises:
        ConfigError: a setting does not go with this data set.
    """
    info = dataset.info
    if config.dataset in DATASETS and config.dataset != info.name:
        raise ConfigError(f"the settings name data set {config.dataset!r}, found {info.name!r}")
    train, validation = split_validation(
        dataset.train, config.validation_fraction, seed=config.seed
    )
    per_epoch = steps_per_epoch(len(train), config.batch_size)
    steps = config.num_steps(per_epoch)
    if steps > MOST_STEPS:
        raise ConfigError(f"expected at most {MOST_STEPS} steps, found {steps}")
    model = build_model(config, info)
    parameters = _count_parameters(model, info)
    return Plan(config, dataset, train, validation, model, per_epoch, steps, parameters)


def _count_parameters(model: Model, info: DatasetInfo) -> int:
    images = jax.ShapeDtypeStruct((1, *info.image_shape), jnp.float32)
    try:
        return count_parameters(jax.eval_shape(model.init, jax.random.key(0), images))
    except (ArithmeticError, ValueError) as error:
        raise ConfigError(
            f"model {model.name!r} does not fit images of shape {info.image_shape}, as those of "
            f"{info.name!r}: {error}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled functions of a run.

    Attributes:
        create_state: `() -> state`, the state at step 0.
        draw_order: `(epoch) -> order`, int32 [steps, B].
        train: `(state, metrics, order, start, stop) -> (state, metrics)`; it takes over the memory
            of the state and metrics that it is given.
        evaluate_validation: `(variables) -> metrics`, or None where no image is held out.
        evaluate_test: `(variables) -> metrics`.
    """

    create_state: Callable[[], TrainState]
    draw_order: Callable[[int], jax.Array]
    train: Callable[..., tuple[TrainState, Metrics]]
    evaluate_validation: Callable[[Variables], Metrics] | None
    evaluate_test: Callable[[Variables], Metrics]


def compile_programs(plan: Plan) -> Programs:
    """Compiles a run ahead of time, so that compilation and training can be told apart."""
    config, model, info = plan.config, plan.model, plan.dataset.info
    optimizer = build_optimizer(config, plan.steps)
    train_step = build_train_step(config, model, optimizer)
    state_key, order_key = jax.random.split(jax.random.key(config.seed))
    images, labels = jnp.asarray(plan.train.images), jnp.asarray(plan.train.labels)

    def create_state(key: jax.Array) -> TrainState:
        example = jnp.zeros((1, *images.shape[1:]))
        return create_train_state(
            model, optimizer, example, key=key, ema=config.ema_decay is not None
        )

    def draw_order(key: jax.Array, epoch: jax.Array) -> jax.Array:
        return epoch_order(key, epoch, len(images), config.batch_size)

    state = jax.eval_shape(create_state, state_key)
    rows = jax.eval_shape(draw_order, order_key, 0)
    test = make_chunks(plan.dataset.test)
    validation = make_chunks(plan.validation) if plan.validation else []
    epoch_fn = jax.jit(
        make_epoch_fn(train_step), donate_argnums=(0, 1), compiler_options=compiler_options()
    )
    train, init, order, evaluation = _compile_at_once(
        (epoch_fn, (state, Metrics.empty(info.num_classes), images, labels, rows, 0, 0)),
        (jax.jit(create_state), (state_key,)),
        (jax.jit(draw_order), (order_key, 0)),
        (jitted_evaluation(model), (state.variables, *test[0])),
    )
    return Programs(
        create_state=lambda: init(state_key),
        draw_order=lambda epoch: order(order_key, epoch),
        train=lambda state, metrics, order, start, stop: train(
            state, metrics, images, labels, order, start, stop
        ),
        evaluate_validation=partial(evaluate_chunks, evaluation, chunks=validation)
        if validation
        else None,
        evaluate_test=partial(evaluate_chunks, evaluation, chunks=test),
    )


def _compile_at_once(*programs: tuple[jax.stages.Wrapped, tuple[Any, ...]]) -> list[Compiled]:
    """Compiles `(jitted, arguments)` pairs side by side: XLA leaves Python to the others."""
    with ThreadPoolExecutor(len(programs)) as pool:
        lowered = [jitted.lower(*arguments) for jitted, arguments in programs]
        return list(pool.map(lambda program: program.compile(), lowered))

"""The compiled programs of a run, with its training images already on the device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled

from mnistjax.data import Split, epoch_order
from mnistjax.models import Model, Variables
from mnistjax.runs.build import build_model, build_optimizer, build_train_step
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.plan import Plan
from mnistjax.training import (
    EVAL_BATCH_SIZE,
    Metrics,
    TrainState,
    compiler_options,
    create_train_state,
    logits_program,
    make_batch_stats_fn,
    make_epoch_fn,
    measure_logits,
    predict_logits,
)

# Number of images for the batch statistics of averaged weights; enough for three digits.
_STATISTICS_IMAGES = 10_000


@dataclasses.dataclass(frozen=True)
class Programs:
    """The functions that a run calls, independent of devices and of the number of networks.

    Attributes:
        create_state: `() -> state`, the state at step 0.
        draw_order: `(epoch) -> order`, int32 [steps, B].
        train: `(state, metrics, order, start, stop) -> (state, metrics)`; the given state stays
            valid, because a run goes back to it where a loss becomes NaN.
        variables: `(state) -> variables`, the variables to evaluate and save.
        evaluate: `(variables, split) -> metrics`.
    """

    create_state: Callable[[], TrainState]
    draw_order: Callable[[int], jax.Array]
    train: Callable[..., tuple[TrainState, Metrics]]
    variables: Callable[[TrainState], Variables]
    evaluate: Callable[[Variables, Split], Metrics]


def single(plan: Plan) -> Programs:
    """Makes the programs of one network on one device.

    They are compiled ahead of time, so that compilation and training are timed separately, and
    cached by the settings that affect them: a second run that differs only in its seed, in its
    learning rate or, at a constant learning rate, in its length compiles nothing.

    Args:
        plan: the run.
    """
    config, model = plan.config, plan.model
    compiled = _compile(_static_settings(plan), _shapes(plan), _environment())
    key = jax.random.key(config.seed)
    images, labels = jnp.asarray(plan.train.images), jnp.asarray(plan.train.labels)
    learning_rate = jnp.float32(config.learning_rate)

    def train(*arguments: Any) -> tuple[TrainState, Metrics]:
        state, metrics, order, start, stop = arguments
        return compiled.train(learning_rate, state, metrics, images, labels, order, start, stop)

    def variables(state: TrainState) -> Variables:
        if compiled.batch_stats is None:
            return state.variables
        # The statistics of the raw weights do not belong to the averaged ones.
        fresh = compiled.batch_stats(state.variables, images, compiled.order(key, 0))
        return {**state.variables, "batch_stats": fresh}

    def evaluate(variables: Variables, split: Split) -> Metrics:
        return measure_logits(predict_logits(model, variables, split.images), split.labels)

    return Programs(
        create_state=lambda: compiled.create_state(key),
        draw_order=lambda epoch: compiled.order(key, epoch),
        train=train,
        variables=variables,
        evaluate=evaluate,
    )


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """What a program depends on besides the settings."""

    count: int
    image_shape: tuple[int, ...]
    num_classes: int


@dataclasses.dataclass(frozen=True)
class _CompiledPrograms:
    train: Compiled
    create_state: Compiled
    order: Compiled
    batch_stats: Compiled | None


def _shapes(plan: Plan) -> _Shapes:
    info = plan.dataset.info
    return _Shapes(len(plan.train), tuple(info.image_shape), info.num_classes)


def _static_settings(plan: Plan) -> TrainConfig:
    """Returns the settings with those that affect no program set to their defaults."""
    defaults = TrainConfig()
    names = (
        *("recipe", "dataset", "seed", "learning_rate"),
        *("validation_fraction", "validation_seed", "patience"),
    )
    unused = {name: getattr(defaults, name) for name in names}
    # Only a learning rate that changes depends on the length of the run.
    constant = plan.config.schedule == "constant" and not plan.config.warmup
    return plan.config.replace(**unused, steps=1 if constant else plan.steps)


def _environment() -> tuple[Any, ...]:
    """Returns the device and the options of JAX that a compiled program depends on."""
    return jax.devices()[0], jax.config.read("jax_enable_x64")


@functools.lru_cache(maxsize=8)
def _compile(
    config: TrainConfig, shapes: _Shapes, environment: tuple[Any, ...]
) -> _CompiledPrograms:
    """Compiles the programs of a run in parallel."""
    del environment  # It is only part of the cache key.
    assert config.steps is not None
    steps = config.steps
    model = build_model(config, shapes.num_classes)
    images = jax.ShapeDtypeStruct((shapes.count, *shapes.image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((shapes.count,), jnp.int32)
    create_state = functools.partial(_create_state, config, model, steps, shapes.image_shape)

    def draw_order(key: jax.Array, epoch: jax.Array) -> jax.Array:
        return epoch_order(key, epoch, shapes.count, config.batch_size)

    def train(learning_rate: jax.Array, *arguments: Any) -> tuple[TrainState, Metrics]:
        optimizer = build_optimizer(config, steps, learning_rate=learning_rate)
        return make_epoch_fn(build_train_step(config, model, optimizer))(*arguments)

    key = jax.random.key(0)
    state = jax.eval_shape(create_state, key)
    order = jax.eval_shape(draw_order, key, 0)
    options = compiler_options(deterministic=config.deterministic)
    epoch_fn = jax.jit(train, compiler_options=options)
    metrics = Metrics.empty(shapes.num_classes)
    arguments = (jnp.float32(0), state, metrics, images, labels, order, 0, 0)
    jobs: list[Callable[[], Any]] = [
        _compiling(epoch_fn, *arguments),
        _compiling(jax.jit(create_state), key),
        _compiling(jax.jit(draw_order), key, 0),
        _compiling_statistics(config, model, state, images, order),
        lambda: _warm_up(model, state.variables, shapes),
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:  # XLA releases the GIL.
        *programs, _ = pool.map(lambda job: job(), jobs)
    return _CompiledPrograms(*programs)


def _create_state(
    config: TrainConfig, model: Model, steps: int, image_shape: tuple[int, ...], key: jax.Array
) -> TrainState:
    optimizer, ema = build_optimizer(config, steps), config.ema_decay is not None
    example = jnp.zeros((1, *image_shape), jnp.float32)
    return create_train_state(model, optimizer, example, key=key, ema=ema)


def abstract_state(plan: Plan) -> TrainState:
    """Returns the shapes and dtypes of the state of a run; nothing is compiled.

    Args:
        plan: the run.
    """
    shape = tuple(plan.dataset.info.image_shape)
    create_state = functools.partial(_create_state, plan.config, plan.model, plan.steps, shape)
    return jax.eval_shape(create_state, jax.random.key(0))


def _compiling(jitted: jax.stages.Wrapped, *arguments: Any) -> Callable[[], Compiled]:
    """Traces a function now, in this thread; returns the function that compiles it."""
    return jitted.lower(*arguments).compile


def _compiling_statistics(
    config: TrainConfig, model: Model, state: TrainState, images: Any, order: Any
) -> Callable[[], Compiled | None]:
    """Traces `(variables, images, order) -> batch_stats`; returns the function that compiles it.

    The statistics are those of the first rows of the order. Without averaged parameters or batch
    normalization none are needed, and the returned function gives None.
    """
    if config.ema_decay is None or not state.batch_stats:
        return lambda: None
    rows = max(1, min(order.shape[0], _STATISTICS_IMAGES // config.batch_size))
    batch_stats_fn = make_batch_stats_fn(model)
    program = jax.jit(
        lambda variables, images, order: batch_stats_fn(variables, images, order[:rows]),
        compiler_options=compiler_options(deterministic=config.deterministic),
    )
    return _compiling(program, state.variables, images, order)


def _warm_up(model: Model, variables: Variables, shapes: _Shapes) -> None:
    """Compiles the evaluation programs into the caches of `jit`, which `predict` uses, too."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    images = jax.device_put(np.zeros((EVAL_BATCH_SIZE, *shapes.image_shape), np.uint8))
    logits = logits_program(model)(zeros, images)
    labels = np.zeros(EVAL_BATCH_SIZE, np.int32)
    measure_logits(jax.device_get(logits), labels)

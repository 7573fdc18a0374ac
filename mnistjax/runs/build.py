"""Builds the network, optimizer, augmentation and train step of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnistjax.data import Batch
from mnistjax.data.augment import Augment, compose, cutout, elastic, random_affine, random_shift
from mnistjax.models import Model, create_model
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.microbatch import microbatch_for_cache
from mnistjax.training import (
    Metrics,
    Teacher,
    TrainState,
    TrainStep,
    create_train_state,
    make_optimizer,
    make_schedule,
    make_train_step,
)

# Number of updates in a row with a NaN that end the run.
MAX_SKIPPED = 10

# Settings by name that take the place of those of a configuration. They may be traced.
Numbers = Mapping[str, float | jax.Array]

# The settings that a program takes as arguments, so that runs that differ in them share it.
# The last two are used only with a teacher: without one, `jit` drops these arguments.
_ALWAYS_USED = ("learning_rate", "label_smoothing", "distill_weight", "temperature")
_USED_UNLESS_NONE = ("momentum", "b1", "b2", "weight_decay", "clip_norm", "ema_decay")
_USED_UNLESS_ZERO = ("rotate", "scale", "elastic")


def traced_numbers(config: TrainConfig) -> dict[str, float]:
    """Returns the settings that the programs of a run take as arguments, by name.

    None and, for augmentation, zero switch something off, which makes another program.

    >>> sorted(traced_numbers(TrainConfig(weight_decay=0.0, rotate=5)))
    ['distill_weight', 'label_smoothing', 'learning_rate', 'rotate', 'temperature', 'weight_decay']
    """
    names = [
        *_ALWAYS_USED,
        *(name for name in _USED_UNLESS_NONE if getattr(config, name) is not None),
        *(name for name in _USED_UNLESS_ZERO if getattr(config, name)),
    ]
    return {name: getattr(config, name) for name in names}


def _settings(config: TrainConfig, numbers: Numbers | None) -> Any:
    """Returns an object with the attributes of a configuration, some of them replaced."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return SimpleNamespace(**{**values, **(numbers or {})})


def build_model(config: TrainConfig, num_classes: int) -> Model:
    """Returns the network of a configuration, with an output for each of `num_classes` classes.

    >>> build_model(TrainConfig(model="mlp"), num_classes=10).name
    'mlp'
    """
    dtype = {} if config.dtype == "float32" else {"dtype": jnp.dtype(config.dtype)}
    return create_model(config.model, num_classes=num_classes, **dtype)


def build_schedule(
    config: TrainConfig, steps: int, *, numbers: Numbers | None = None
) -> optax.Schedule:
    """Returns the learning rate of a configuration as a function of the step.

    Args:
        config: the settings.
        steps: length of the run in updates.
        numbers: settings that take the place of those of `config`; they may be traced.
    """
    peak = _settings(config, numbers).learning_rate
    return make_schedule(config.schedule, peak, steps, warmup_steps=int(config.warmup * steps))


def build_optimizer(
    config: TrainConfig, steps: int, *, numbers: Numbers | None = None
) -> optax.GradientTransformation:
    """Returns the optimizer of a configuration, with its schedule over `steps` updates.

    Args:
        config: the settings.
        steps: length of the run in updates.
        numbers: settings that take the place of those of `config`; they may be traced.
    """
    settings = _settings(config, numbers)
    optimizer = make_optimizer(
        config.optimizer,
        build_schedule(config, steps, numbers=numbers),
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        **{name: getattr(settings, name) for name in config.optimizer_settings},
    )
    if config.on_nan != "skip":
        return optimizer
    # The last update that may not be skipped is applied: then the parameters are NaN, and no later
    # step resets the count, which is read only now and then.
    return optax.apply_if_finite(optimizer, MAX_SKIPPED - 1)


def state_function(
    config: TrainConfig, model: Model, steps: int, image_shape: tuple[int, ...]
) -> Callable[[jax.Array], TrainState]:
    """Returns `(key_data) -> state`, the state of a run at step 0.

    Args:
        config: the settings.
        model: the network.
        steps: length of the run in updates.
        image_shape: (H, W, C).
    """
    optimizer, ema = build_optimizer(config, steps), config.ema_decay is not None

    def create_state(key: jax.Array) -> TrainState:
        example = jnp.zeros((1, *image_shape), jnp.float32)
        key = jax.random.wrap_key_data(key)
        return create_train_state(model, optimizer, example, key=key, ema=ema)

    return create_state


def build_augment(config: TrainConfig, *, numbers: Numbers | None = None) -> Augment | None:
    """Returns the augmentation of a configuration, or None if it has none.

    Args:
        config: the settings.
        numbers: settings that take the place of those of `config`; they may be traced.

    >>> build_augment(TrainConfig()) is None
    True
    """
    settings = _settings(config, numbers)
    parts: list[Augment] = []
    if config.rotate or config.scale:
        # One resampling for all three changes, because every resampling blurs the images.
        parts.append(
            partial(
                random_affine, pixels=config.shift, degrees=settings.rotate, scale=settings.scale
            )
        )
    elif config.shift:
        parts.append(partial(random_shift, pixels=config.shift))
    if config.elastic:
        parts.append(partial(elastic, pixels=settings.elastic))
    if config.cutout:
        parts.append(partial(cutout, size=config.cutout))
    return compose(*parts) if parts else None


def build_train_step(
    config: TrainConfig,
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    numbers: Numbers | None = None,
    teacher: Teacher | None = None,
    cache_bytes: int | None = None,
) -> TrainStep:
    """Returns the train step of a configuration, `(state, batch) -> (state, metrics)`.

    Args:
        config: the settings.
        model: the network.
        optimizer: the optimizer, from `build_optimizer` with the same numbers.
        numbers: settings that take the place of those of `config`; they may be traced.
        teacher: `(images) -> logits` of the network that teaches this one, or None.
        cache_bytes: size of the caches that pieces of a batch should suit, as for
            `microbatch_for_cache`.
    """
    settings = _settings(config, numbers)
    step = make_train_step(
        model,
        optimizer,
        augment=build_augment(config, numbers=numbers),
        label_smoothing=settings.label_smoothing,
        ema_decay=settings.ema_decay,
        teacher=teacher,
        distill_weight=settings.distill_weight,
        temperature=settings.temperature,
        microbatch_size=config.microbatch_size
        or partial(microbatch_for_cache, cache_bytes=cache_bytes),
    )
    return _drop_skipped(step) if config.on_nan == "skip" else step


def _drop_skipped(step: TrainStep) -> TrainStep:
    """Drops the metrics and batch statistics of a step whose update `apply_if_finite` skipped."""

    def guarded(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        new, metrics = step(state, batch)
        finite = new.opt_state.last_finite
        batch_stats = jax.tree.map(
            lambda fresh, old: jnp.where(finite, fresh, old), new.batch_stats, state.batch_stats
        )
        metrics = jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.zeros_like(leaf)), metrics)
        return dataclasses.replace(new, batch_stats=batch_stats), metrics

    return guarded


def count_skipped(config: TrainConfig, state: TrainState) -> tuple[int, int]:
    """Returns how many updates were skipped in a row, the last ones, and how many in all."""
    if config.on_nan != "skip":
        return 0, 0
    return int(state.opt_state.notfinite_count), int(state.opt_state.total_notfinite)

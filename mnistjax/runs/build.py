"""Builds the network, optimizer, augmentation and train step of a configuration."""

from __future__ import annotations

from functools import partial

import jax
import optax

from mnistjax.data.augment import Augment, compose, cutout, elastic, random_affine, random_shift
from mnistjax.models import Model, create_model
from mnistjax.runs.config import TrainConfig
from mnistjax.training import TrainStep, make_optimizer, make_schedule, make_train_step


def build_model(config: TrainConfig, num_classes: int) -> Model:
    """Returns the network of a configuration, with an output for each of `num_classes` classes.

    >>> build_model(TrainConfig(model="mlp"), num_classes=10).name
    'mlp'
    """
    return create_model(config.model, num_classes=num_classes)


def build_optimizer(
    config: TrainConfig, steps: int, *, learning_rate: float | jax.Array | None = None
) -> optax.GradientTransformation:
    """Returns the optimizer of a configuration, with its schedule over `steps` updates.

    Args:
        config: the settings.
        steps: length of the run in updates.
        learning_rate: the highest learning rate, which may be traced; that of `config` if None.
    """
    peak = config.learning_rate if learning_rate is None else learning_rate
    schedule = make_schedule(config.schedule, peak, steps, warmup_steps=int(config.warmup * steps))
    return make_optimizer(
        config.optimizer,
        schedule,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        **config.optimizer_settings,
    )


def build_augment(config: TrainConfig) -> Augment | None:
    """Returns the augmentation of a configuration, or None if it has none.

    >>> build_augment(TrainConfig()) is None
    True
    """
    parts: list[Augment] = []
    if config.rotate or config.scale:
        # One resampling for all three changes, because every resampling blurs the images.
        parts.append(
            partial(random_affine, pixels=config.shift, degrees=config.rotate, scale=config.scale)
        )
    elif config.shift:
        parts.append(partial(random_shift, pixels=config.shift))
    if config.elastic:
        parts.append(partial(elastic, pixels=config.elastic))
    if config.cutout:
        parts.append(partial(cutout, size=config.cutout))
    return compose(*parts) if parts else None


def build_train_step(
    config: TrainConfig, model: Model, optimizer: optax.GradientTransformation
) -> TrainStep:
    """Returns the train step of a configuration, `(state, batch) -> (state, metrics)`."""
    return make_train_step(
        model,
        optimizer,
        augment=build_augment(config),
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
    )

"""Optimizers and learning-rate schedules by name, all of them optax's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import optax

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import PyTree


def _muon_dimensions(params: PyTree) -> PyTree:
    """Kernels are matrices from all inputs to the outputs, however many axes the inputs have."""

    def dimensions(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if not is_kernel(leaf):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(dimensions, params)


def is_kernel(leaf: jax.Array) -> bool:
    """Returns whether a parameter is a matrix or a convolution, not a bias or a norm's scale."""
    return leaf.ndim > 1


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "adadelta": optax.adadelta,
    "lion": optax.lion,
    "lamb": optax.lamb,
    # Updates as large as Adam's, so that one learning rate serves both (Liu et al., 2025).
    "muon": partial(
        optax.contrib.muon,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_muon_dimensions,
    ),
}


def _constant(peak: float, steps: int) -> optax.Schedule:
    del steps
    return optax.constant_schedule(peak)


def _linear(peak: float, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, 0.0, steps)


def _cosine(peak: float, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, steps)


def _one_cycle(peak: float, steps: int) -> optax.Schedule:
    return optax.cosine_onecycle_schedule(steps, peak)


def _exponential(peak: float, steps: int) -> optax.Schedule:
    return optax.exponential_decay(peak, steps, decay_rate=0.01)


def _stepwise(peak: float, steps: int) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, {steps // 2: 0.1, steps * 3 // 4: 0.1})


# Each takes the peak rate and the number of steps over which it falls.
SCHEDULES: Mapping[str, Callable[[float, int], optax.Schedule]] = {
    "constant": _constant,
    "linear": _linear,  # to zero
    "cosine": _cosine,  # to zero
    "one-cycle": _one_cycle,  # up over 30 % of the steps from peak / 25, down to peak / 250,000
    "exponential": _exponential,  # to a hundredth
    "stepwise": _stepwise,  # a tenth at half of the steps, a hundredth at three quarters
}


def make_schedule(name: str, peak: float, steps: int, *, warmup_steps: int = 0) -> optax.Schedule:
    """Makes the learning rate as a function of the step.

    Args:
        name: a key of `SCHEDULES`.
        peak: the highest learning rate.
        steps: length of the training, in updates, warm-up included.
        warmup_steps: updates in which the rate first rises linearly from 0 to that of the
            schedule's own start. The schedule then takes the rest.

    Raises:
        UnknownNameError: no schedule has this name.
        ConfigError: `warmup_steps` is negative or leaves no step to the schedule.
    """
    if name not in SCHEDULES:
        raise UnknownNameError("schedule", name, SCHEDULES)
    if not 0 <= warmup_steps < steps:
        raise ConfigError(
            f"warm-up must take from 0 to {steps - 1} of the {steps} steps, found {warmup_steps}"
        )
    schedule = SCHEDULES[name](peak, steps - warmup_steps)
    if warmup_steps == 0:
        return schedule
    warmup = optax.linear_schedule(0.0, float(schedule(0)), warmup_steps)
    return optax.join_schedules([warmup, schedule], [warmup_steps])


def make_optimizer(
    name: str,
    learning_rate: float | optax.Schedule,
    *,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    **settings: float,
) -> optax.GradientTransformation:
    """Makes an optimizer by name.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: a number or a schedule.
        weight_decay: strength, on kernels only: biases and norms are spared. It is decoupled
            (Loshchilov and Hutter, 2019) in adamw, adadelta, lion, lamb and muon, and added to
            the gradient in all others. None is optax's own default.
        clip_norm: the largest global norm of the gradient; None does not clip.
        **settings: arguments of the optax function, for example `b1=0.7` or `momentum=0.8`.

    Raises:
        UnknownNameError: no optimizer has this name.
        ConfigError: the optimizer has no such setting.
    """
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", name, OPTIMIZERS)
    build = OPTIMIZERS[name]
    accepted = inspect.signature(build).parameters
    for key in settings:
        if key not in accepted:
            raise ConfigError(f"optimizer {name!r} takes no setting {key!r}")

    def kernels(params: PyTree) -> PyTree:
        return jax.tree.map(is_kernel, params)

    before = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    arguments: dict[str, Any] = dict(settings)
    if "weight_decay" in accepted:
        mask = "weight_decay_mask" if "weight_decay_mask" in accepted else "mask"
        arguments[mask] = kernels
        if weight_decay is not None:
            arguments["weight_decay"] = weight_decay
    elif weight_decay:
        before.append(optax.add_decayed_weights(weight_decay, kernels))
    return optax.chain(*before, build(learning_rate, **arguments))

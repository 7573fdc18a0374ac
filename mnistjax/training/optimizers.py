"""Optimizers and learning-rate schedules by name, all from optax."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import PyTree


def _muon_dimensions(params: PyTree) -> PyTree:
    """Makes Muon treat each kernel as a matrix from all its input axes to its output axis."""

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
    # Updates as large as Adam's, so that one learning rate serves both (Liu et al., 2025,
    # https://arxiv.org/abs/2502.16982).
    "muon": partial(
        optax.contrib.muon,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_muon_dimensions,
    ),
}


def _constant(peak: ArrayLike, steps: int) -> optax.Schedule:
    del steps
    return optax.constant_schedule(peak)


def _linear(peak: ArrayLike, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, 0.0, steps)


def _cosine(peak: ArrayLike, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, steps)


def _one_cycle(peak: ArrayLike, steps: int) -> optax.Schedule:
    return optax.cosine_onecycle_schedule(steps, peak)


def _exponential(peak: ArrayLike, steps: int) -> optax.Schedule:
    return optax.exponential_decay(peak, steps, decay_rate=0.01)


def _stepwise(peak: ArrayLike, steps: int) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, {steps // 2: 0.1, steps * 3 // 4: 0.1})


# Each takes the peak rate and the number of steps over which it falls.
SCHEDULES: Mapping[str, Callable[[ArrayLike, int], optax.Schedule]] = {
    "constant": _constant,
    "linear": _linear,  # to zero
    "cosine": _cosine,  # to zero
    "one-cycle": _one_cycle,  # up over 30% of the steps from peak / 25, down to peak / 250,000
    "exponential": _exponential,  # to a hundredth
    "stepwise": _stepwise,  # a tenth at half of the steps, a hundredth at three quarters
}


def make_schedule(
    name: str, peak: ArrayLike, steps: int, *, warmup_steps: int = 0
) -> optax.Schedule:
    """Makes a learning-rate schedule by name.

    "cosine" is `peak * (1 + cos(pi * step / steps)) / 2` (Loshchilov and Hutter, 2017,
    https://arxiv.org/abs/1608.03983), "one-cycle" that of Smith and Topin (2018,
    https://arxiv.org/abs/1708.07120).

    Args:
        name: a key of `SCHEDULES`.
        peak: the highest learning rate; a number, or a traced scalar as under `vmap`.
        steps: length of the training in updates, warm-up included.
        warmup_steps: updates over which the rate first rises linearly from 0 to the initial rate
            of the schedule, which then covers the remaining updates.

    Returns:
        A function from the number of updates so far, int32 [], to the rate, float32 [].

    Raises:
        UnknownNameError: no schedule has this name.
        ConfigError: `warmup_steps` is negative or leaves no step to the schedule.

    >>> schedule = make_schedule("cosine", 0.1, 100, warmup_steps=10)
    >>> [round(float(schedule(step)), 6) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.05, 0.1, 0.05, 0.0]
    """
    if name not in SCHEDULES:
        raise UnknownNameError("schedule", name, SCHEDULES)
    if not 0 <= warmup_steps < steps:
        raise ConfigError(
            f"warm-up must take from 0 to {steps - 1} of the {steps} steps, found {warmup_steps}"
        )
    schedule = SCHEDULES[name](_single(peak), steps - warmup_steps)
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, _single(schedule(0)), warmup_steps)
        schedule = optax.join_schedules([warmup, schedule], [warmup_steps])
    return lambda step: jnp.asarray(schedule(step), jnp.float32)


def _single(number: Any) -> Any:
    """Makes a floating scalar of any width float32; Python's own numbers stay as they are.

    Under JAX_ENABLE_X64, a double-precision number would promote everything computed with it.
    """
    dtype = getattr(number, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return number
    return jnp.asarray(number, jnp.float32)


def make_optimizer(
    name: str,
    learning_rate: ArrayLike | optax.Schedule,
    *,
    weight_decay: ArrayLike | None = None,
    clip_norm: ArrayLike | None = None,
    **settings: Any,
) -> optax.GradientTransformation:
    """Makes an optimizer by name.

    Numbers may be traced: `vmap` over a learning rate or a weight decay trains one network for each
    value.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: a number or a schedule.
        weight_decay: strength of the weight decay, which applies to kernels but not to biases and
            normalization. It is decoupled (Loshchilov and Hutter, 2019,
            https://arxiv.org/abs/1711.05101) in adamw, lion, lamb and muon, and added to the
            gradient in all others. None keeps optax's default.
        clip_norm: the largest global norm of the gradient; None does not clip.
        **settings: arguments of the optax function, for example `b1=0.7` or `momentum=0.8`.

    Returns:
        The optax gradient transformation.

    Raises:
        UnknownNameError: no optimizer has this name.
        ConfigError: the optimizer has no such setting.

    >>> optimizer = make_optimizer("momentum", 0.1, momentum=0.8, clip_norm=1.0)
    >>> params = {"bias": jnp.zeros(2)}
    >>> updates, _ = optimizer.update({"bias": jnp.array([3.0, 4.0])}, optimizer.init(params))
    >>> [round(update, 3) for update in updates["bias"].tolist()]
    [-0.06, -0.08]
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

    before = [] if clip_norm is None else [optax.clip_by_global_norm(_single(clip_norm))]
    arguments = {key: _single(value) for key, value in settings.items()}
    if "weight_decay" in accepted:
        mask = "weight_decay_mask" if "weight_decay_mask" in accepted else "mask"
        arguments[mask] = kernels
        if weight_decay is not None:
            arguments["weight_decay"] = _single(weight_decay)
    elif weight_decay is not None:
        before.append(optax.add_decayed_weights(_single(weight_decay), kernels))
    return optax.chain(*before, build(_single(learning_rate), **arguments))

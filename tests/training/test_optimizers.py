"""Optimizers and schedules by name, and what the train step makes of them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistjax.data import Batch
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import Model
from mnistjax.training import (
    OPTIMIZERS,
    SCHEDULES,
    create_train_state,
    make_optimizer,
    make_schedule,
    make_train_step,
)

PARAMS = {
    "dense": {"kernel": np.full((6, 4), 0.5, np.float32), "bias": np.full(4, 0.5, np.float32)},
    "conv": {"kernel": np.full((3, 3, 2, 4), 0.5, np.float32)},
    "norm": {"scale": np.full(4, 0.5, np.float32)},
}
KERNELS = {("dense", "kernel"), ("conv", "kernel")}


def filled(value):
    return jax.tree.map(lambda leaf: np.full_like(leaf, value), PARAMS)


GRADS = jax.tree.map(
    lambda leaf: np.cos(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape), PARAMS
)


@functools.cache
def constant(name):
    """The optimizer of that name, one object for the tests that share its program."""
    return make_optimizer(name, 0.1)


def advance(optimizer, grads, state, params):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


update = jax.jit(advance, static_argnames="optimizer")


def updated(optimizer, grads, times=1):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(times):
        params, state = update(optimizer, grads, state, params)
    return jax.device_get(params)


def decaying(name, decay, last):
    """With a weight decay, and a rate of zero after `last` steps."""
    return make_optimizer(name, lambda step: jnp.where(step < last, 0.01, 0.0), weight_decay=decay)


@functools.partial(jax.jit, static_argnames="name")
def decaying_update(name, decay, last, grads, state, params):
    return advance(decaying(name, decay, last), grads, state, params)


def decayed(name, decay, grads, *, times, last=10):
    params, state = PARAMS, decaying(name, decay, last).init(PARAMS)
    for _ in range(times):
        params, state = decaying_update(name, decay, last, grads, state, params)
    return jax.device_get(params)


def leaves(params):
    return {(part, name): leaf for part, half in params.items() for name, leaf in half.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name):
    params = updated(constant(name), GRADS, times=3)
    for key, leaf in leaves(params).items():
        assert np.vdot(leaf - leaves(PARAMS)[key], leaves(GRADS)[key]) < 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_kernels_and_spares_biases_and_norms(name):
    params = decayed(name, 0.1, filled(0.0), times=3)
    for key, leaf in leaves(params).items():
        if key in KERNELS:
            assert (np.abs(leaf) < 0.5).all()
        else:
            np.testing.assert_array_equal(leaf, 0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_weight_decay_is_none(name):
    params = decayed(name, 0.0, filled(0.0), times=3)
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_is_followed(name):
    """A rate of zero from the second step on moves nothing more."""
    once, twice = (decayed(name, 0.0, filled(1.0), times=times, last=1) for times in (1, 2))
    jax.tree.map(np.testing.assert_array_equal, once, twice)
    assert (once["dense"]["kernel"] != PARAMS["dense"]["kernel"]).all()


CLIPPED = make_optimizer("sgd", 1.0, clip_norm=1.0)


def norm_of(tree):
    return np.sqrt(sum(np.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))


@settings(max_examples=25)
@given(scale=st.floats(0.01, 10))
def test_the_gradient_is_clipped_by_its_global_norm(scale):
    grads = filled(scale)
    change = jax.tree.map(np.subtract, PARAMS, updated(CLIPPED, grads))
    np.testing.assert_allclose(norm_of(change), min(1.0, norm_of(grads)), rtol=1e-3)


def test_the_optimizers_that_have_a_closed_form():
    expected = {
        "sgd": 0.5 - 0.1 * (0.2 + 0.2),
        "momentum": 0.5 - 0.1 * (0.2 + (0.2 + 0.9 * 0.2)),
        "nesterov": 0.5 - 0.1 * ((0.2 + 0.9 * 0.2) + (0.2 + 0.9 * (0.2 + 0.9 * 0.2))),
        "adam": 0.5 - 0.1 * 2,
    }
    for name, value in expected.items():
        params = updated(constant(name), filled(0.2), times=2)
        np.testing.assert_allclose(params["dense"]["bias"], value, rtol=1e-5)


def test_settings_reach_the_optimizer():
    params = updated(make_optimizer("momentum", 0.1, momentum=0.5), filled(1.0), times=2)
    np.testing.assert_allclose(params["dense"]["bias"], 0.5 - 0.1 * (1 + 1.5), rtol=1e-5)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown optimizer 'adma': did you mean 'adam'"):
        make_optimizer("adma", 0.1)
    with pytest.raises(UnknownNameError, match="unknown schedule 'onecycle': did you mean 'one-cy"):
        make_schedule("onecycle", 0.1, 10)


@pytest.mark.parametrize(("name", "setting"), [("adam", "momentum"), ("sgd", "b1"), ("muon", "b2")])
def test_a_setting_that_the_optimizer_has_not_is_refused(name, setting):
    with pytest.raises(ConfigError, match=f"optimizer '{name}' takes no setting '{setting}'"):
        make_optimizer(name, 0.1, **{setting: 0.9})


# At the start, in the middle and at the end of 100 steps, as shares of the peak.
CURVES = {
    "constant": (1.0, 1.0, 1.0),
    "linear": (1.0, 0.5, 0.0),
    "cosine": (1.0, 0.5, 0.0),
    "one-cycle": (1 / 25, (1 + np.cos(np.pi * 20 / 70)) / 2, 1 / 250_000),
    "exponential": (1.0, 0.1, 0.01),
    "stepwise": (1.0, 0.1, 0.01),
}


def test_every_schedule_has_a_curve():
    assert set(CURVES) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_takes_its_closed_form(name):
    schedule = make_schedule(name, 0.02, 100)
    values = [float(schedule(step)) / 0.02 for step in (0, 50, 100)]
    np.testing.assert_allclose(values, CURVES[name], rtol=1e-4, atol=1e-6)


def test_one_cycle_peaks_at_three_tenths():
    schedule = make_schedule("one-cycle", 0.02, 100)
    rates = np.array([schedule(step) for step in range(101)])
    assert rates.argmax() == 30
    assert (np.diff(rates[:31]) > 0).all()
    assert (np.diff(rates[30:]) < 0).all()


def test_stepwise_falls_at_half_and_at_three_quarters():
    schedule = make_schedule("stepwise", 1.0, 100)
    rates = [float(schedule(step)) for step in (49, 50, 74, 75, 99)]
    np.testing.assert_allclose(rates, [1.0, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_from_zero_and_joins_the_schedule(name):
    schedule = make_schedule(name, 0.02, 100, warmup_steps=10)
    rest = make_schedule(name, 0.02, 90)
    start = float(rest(0))
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(
        rates, [0, start / 2, start, float(rest(45)), float(rest(90))], rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_few_steps_have_finite_rates_up_to_the_peak(name, steps):
    schedule = make_schedule(name, 0.02, steps)
    rates = np.array([schedule(step) for step in range(steps)])
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    assert rates.max() <= 0.02 * (1 + 1e-6)


@pytest.mark.parametrize("warmup_steps", [-1, 10, 11])
def test_a_warm_up_that_leaves_no_step_is_refused(warmup_steps):
    with pytest.raises(ConfigError, match=f"from 0 to 9 of the 10 steps, found {warmup_steps}"):
        make_schedule("cosine", 0.1, 10, warmup_steps=warmup_steps)


@pytest.mark.parametrize("warmup_steps", [0, 10])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_may_be_vmapped_over_its_peak(name, warmup_steps):
    def rates(peak):
        schedule = make_schedule(name, peak, 100, warmup_steps=warmup_steps)
        return jax.vmap(schedule)(np.array([0, 5, 30, 99], np.int32))

    @jax.jit
    def both_ways(peaks):
        return jax.vmap(rates)(peaks), rates(0.02)

    together, alone = jax.device_get(both_ways(np.array([0.02, 0.5], np.float32)))
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[0], alone, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(together[1], 25 * together[0], rtol=1e-5, atol=1e-9)


# A number of its own that each optimizer takes.
NUMBERS = {
    "momentum": "momentum",
    "nesterov": "momentum",
    "adam": "b1",
    "adamw": "b2",
    "rmsprop": "decay",
    "adagrad": "eps",
    "adadelta": "rho",
    "lion": "b1",
    "lamb": "b2",
    "muon": "beta",
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_may_be_vmapped_over_its_numbers(name):
    def move(rate, decay, norm, number):
        settings = {NUMBERS[name]: number} if name in NUMBERS else {}
        optimizer = make_optimizer(name, rate, weight_decay=decay, clip_norm=norm, **settings)
        return advance(optimizer, GRADS, optimizer.init(PARAMS), PARAMS)[0]

    members = [(0.01, 0.0, 1.0, 0.8), (0.1, 0.1, 2.0, 0.9)]

    @jax.jit
    def both_ways(numbers):
        return jax.vmap(move)(*numbers), [move(*numbers) for numbers in members]

    together, alone = jax.device_get(both_ways(np.float32(members).T))
    for index, expected in enumerate(alone):
        for key, leaf in leaves(expected).items():
            np.testing.assert_allclose(leaves(together)[key][index], leaf, rtol=1e-4, atol=1e-6)


def linear_model():
    def init(key, images):
        weights = jax.random.normal(key, (images[0].size, 3))
        return {"params": {"weights": weights}, "batch_stats": {}}

    def apply(variables, images, **_):
        return images.reshape(len(images), -1) @ variables["params"]["weights"], {}

    return Model(init, apply, "linear")


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        images = rng.uniform(size=(8, 2, 2, 1)).astype(np.float32)
        yield Batch(images, np.arange(8, dtype=np.int32) % 3, np.arange(8) < 6)


def start(optimizer, **options):
    example = np.zeros((1, 2, 2, 1), np.float32)
    return create_train_state(linear_model(), optimizer, example, key=jax.random.key(0), **options)


@jax.jit
def smoothed_step(state, batch, smoothing):
    optimizer = make_optimizer("sgd", 1.0)
    return make_train_step(linear_model(), optimizer, label_smoothing=smoothing)(state, batch)


@settings(max_examples=25)
@given(smoothing=st.floats(0, 0.9))
def test_label_smoothing_has_its_closed_form(smoothing):
    """The gradient of softmax regression is images^T (probabilities - targets) / count."""
    state, batch = start(make_optimizer("sgd", 1.0)), next(batches(1))
    new, metrics = smoothed_step(state, batch, smoothing)
    inputs = np.asarray(batch.images).reshape(8, -1)[:6]
    logits = inputs @ np.asarray(state.params["weights"])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (1 - smoothing) * np.eye(3)[np.arange(6) % 3] + smoothing / 3
    grads = inputs.T @ (probabilities - targets) / 6
    change = np.asarray(state.params["weights"] - new.params["weights"])
    np.testing.assert_allclose(change, grads, rtol=1e-4, atol=1e-6)
    # What is reported is the plain cross-entropy, whatever is trained.
    plain = -np.log(probabilities[np.arange(6), np.arange(6) % 3])
    np.testing.assert_allclose(metrics.loss_sum, plain.sum(), rtol=1e-5)


def test_a_step_may_be_vmapped_over_its_label_smoothing():
    optimizer, batch = make_optimizer("sgd", 1.0), next(batches(1))
    state = start(optimizer)
    smoothings = np.array([0.0, 0.3], np.float32)
    together, _ = jax.vmap(smoothed_step, (None, None, 0))(state, batch, smoothings)
    for index, smoothing in enumerate((0.0, 0.3)):
        step = make_train_step(linear_model(), optimizer, label_smoothing=smoothing)
        alone, _ = jax.jit(step)(state, batch)
        weights = together.params["weights"][index], alone.params["weights"]
        np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-6)


def test_a_batch_of_padding_alone_moves_nothing():
    optimizer = make_optimizer("sgd", 1.0)
    state = start(optimizer)
    batch = next(batches(1))._replace(mask=np.zeros(8, bool))
    new, metrics = jax.jit(make_train_step(linear_model(), optimizer))(state, batch)
    np.testing.assert_array_equal(new.params["weights"], state.params["weights"])
    assert not np.any(metrics.confusion)
    assert new.step == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_state_and_a_step_that_disagree_on_the_average_are_refused(kept):
    optimizer = optax.sgd(0.1)
    step = make_train_step(linear_model(), optimizer, ema_decay=None if kept else 0.9)
    with pytest.raises(ValueError, match=f"expected a state with ema={not kept}"):
        step(start(optimizer, ema=kept), None)

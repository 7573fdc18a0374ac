"""The moving average of the weights, and the batch statistics that belong to it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_cases import plain_model

import mnistjax.data
from mnistjax.data import Batch, epoch_order, sequential_order
from mnistjax.models import Model, create_model
from mnistjax.training import (
    Metrics,
    create_train_state,
    ema_decay_at,
    make_batch_stats_fn,
    make_epoch_fn,
    make_eval_fn,
    make_eval_step,
    make_optimizer,
    make_train_step,
)

CLASSES = 10


PLAIN, OPTIMIZER = plain_model(), make_optimizer("sgd", 0.5)
MODEL = Model(jax.jit(PLAIN.init), PLAIN.apply, "plain")


def create(key):
    """Not jitted: only then would a buffer stand twice in a state, which a loop donates."""
    example = np.zeros((1, 2, 2, 1), np.float32)
    return create_train_state(MODEL, OPTIMIZER, example, key=key, ema=True)


@jax.jit
def take_step(state, batch, decay):
    return make_train_step(MODEL, OPTIMIZER, ema_decay=decay)(state, batch)


def plain_run(decay, steps):
    """The states of a few steps of a linear network, the first one included."""
    states, rng = [create(jax.random.key(0))], np.random.default_rng(0)
    for _ in range(steps):
        images = rng.uniform(size=(8, 2, 2, 1)).astype(np.float32)
        batch = Batch(images, np.arange(8, dtype=np.int32), np.arange(8) < 6)
        states.append(take_step(states[-1], batch, decay)[0])
    return states


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_the_moving_average_is_that_of_a_loop_by_hand(decay):
    first, *states = plain_run(decay, steps=6)
    average = np.asarray(first.params["weights"])
    for step, state in enumerate(states):
        share = min(decay, (1 + step) / (10 + step))
        average = share * average + (1 - share) * np.asarray(state.params["weights"])
        np.testing.assert_allclose(state.ema_params["weights"], average, rtol=1e-5, atol=1e-6)
    assert states[-1].variables["params"] is states[-1].ema_params


def test_the_average_of_a_few_steps_is_near_the_weights_and_far_from_the_start():
    first, *states = plain_run(0.9999, steps=10)
    start, latest, average = (
        np.asarray(params["weights"])
        for params in (first.params, states[-1].params, states[-1].ema_params)
    )
    assert np.linalg.norm(average - latest) < 0.3 * np.linalg.norm(start - latest)


def test_the_decay_grows_to_the_one_that_was_asked_for():
    steps = np.array([0, 8, 90, 8_989, 10**6], np.int32)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(ema_decay_at, in_axes=(None, 0)))(0.999, steps),
        [0.1, 0.5, 0.91, 8990 / 8999, 0.999],
        rtol=1e-6,
    )


def test_averages_of_an_ensemble_pass_through_a_donating_loop():
    """Decays are traced numbers here, one for each member."""
    images = np.random.default_rng(0).integers(0, 256, (12, 2, 2, 1), dtype=np.uint8)
    labels = np.arange(12, dtype=np.int32) % CLASSES
    order = jnp.arange(12).reshape(3, 4)

    def train(state, metrics, decay):
        epoch = make_epoch_fn(make_train_step(MODEL, OPTIMIZER, ema_decay=decay))
        return epoch(state, metrics, images, labels, order, 0, 3)

    keys, decays = jax.random.split(jax.random.key(0), 2), np.array([0.0, 0.9], np.float32)
    states = jax.vmap(create)(keys)
    metrics = jax.jit(jax.vmap(lambda _: Metrics.empty(CLASSES)))(decays)
    alone = [
        jax.jit(train)(create(key), Metrics.empty(CLASSES), decay)
        for key, decay in zip(keys, decays, strict=True)
    ]
    states, metrics = jax.jit(jax.vmap(train), donate_argnums=(0, 1))(states, metrics, decays)
    states = jax.device_get(states.replace(key=None))
    for index, (state, _) in enumerate(alone):
        for name, leaf in state.ema_params.items():
            np.testing.assert_allclose(states.ema_params[name][index], leaf, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states.ema_params["weights"][0], states.params["weights"][0])


def measuring_model(momentum):
    """Keeps running averages of the mean and the mean square of its images, and nothing else."""

    def apply(variables, images, *, train=False, key=None, mask=None, axis_name=None):
        weights = mask.astype(jnp.float32)
        count = jnp.sum(weights)
        keep = jnp.where(count > 0, momentum, 1.0)
        pixels = {"mean": 1e3 * images, "square": 1e3 * jnp.square(images)}

        def advance(old, values):
            mean = jnp.sum(values * weights[:, None, None, None], 0) / jnp.maximum(count, 1)
            return keep * old + (1 - keep) * mean

        return jnp.zeros((len(images), 2)), jax.tree.map(advance, variables["batch_stats"], pixels)

    return Model(lambda key, images: {}, apply, "measuring")


@jax.jit
def measured(variables, images, order, momentum):
    return make_batch_stats_fn(measuring_model(momentum))(variables, images, order)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 0.999])
def test_statistics_are_those_of_all_images_whatever_the_momentum(momentum):
    images = np.random.default_rng(0).integers(0, 256, (37, 2, 3, 1), dtype=np.uint8)
    # A ragged batch, and one that is all padding.
    order = np.pad(np.arange(37, dtype=np.int32), (0, 11), constant_values=-1).reshape(6, 8)
    start = {name: np.full((2, 3, 1), 7.0, np.float32) for name in ("mean", "square")}
    variables = {"params": {}, "batch_stats": start}
    stats = measured(variables, images, order, momentum)
    scaled = images / 255
    np.testing.assert_allclose(stats["mean"], 1e3 * scaled.mean(0), rtol=1e-3)
    np.testing.assert_allclose(stats["square"], 1e3 * (scaled**2).mean(0), rtol=1e-3)
    nothing = measured(variables, images, np.full_like(order, -1), momentum)
    jax.tree.map(np.testing.assert_array_equal, nothing, start)


def test_a_network_with_its_own_statistics_says_what_it_said_while_it_was_trained():
    """In one batch of all images, training normalizes by exactly what is asked for."""
    model = create_model("tiny")
    images = np.random.default_rng(0).uniform(size=(24, 12, 12, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    order = np.arange(24, dtype=np.int32).reshape(1, 24)
    stats = jax.jit(make_batch_stats_fn(model))(variables, images, order)
    apply = jax.jit(model.apply, static_argnames="train")
    mask, key = np.ones(24, bool), jax.random.key(1)
    trained, _ = apply(variables, images, train=True, key=key, mask=mask)
    evaluated, _ = apply({**variables, "batch_stats": stats}, images)
    np.testing.assert_allclose(evaluated, trained, atol=2e-3)


def test_a_network_without_statistics_has_none_to_compute():
    variables = {"params": {}, "batch_stats": {}}
    assert make_batch_stats_fn(MODEL)(variables, np.zeros((4, 2, 2, 1), np.float32), None) == {}


def test_an_average_is_no_worse_than_the_weights_that_it_averages():
    """On real digits, after few steps and with a decay for many, where it once was a guess."""
    digits = mnistjax.data.load_dataset("digits")
    model, optimizer = create_model("tiny", padding="SAME"), make_optimizer("adam", 3e-3)
    images, labels = jnp.asarray(digits.train.images), jnp.asarray(digits.train.labels)
    example = np.zeros((1, *images.shape[1:]), np.float32)

    @jax.jit
    def create(key):
        return create_train_state(model, optimizer, example, key=key, ema=True)

    key = jax.random.key(0)
    state, order_of = create(key), jax.jit(epoch_order, static_argnums=(2, 3))
    epoch = jax.jit(make_epoch_fn(make_train_step(model, optimizer, ema_decay=0.999)))
    for number in range(4):
        order = order_of(key, number, len(images), 32)
        state, _ = epoch(state, Metrics.empty(CLASSES), images, labels, order, 0, len(order))
    stats = jax.jit(make_batch_stats_fn(model))(state.variables, images, order)
    test = jnp.asarray(digits.test.images), jnp.asarray(digits.test.labels)
    evaluate = jax.jit(make_eval_fn(make_eval_step(model)))
    test_order = sequential_order(len(test[0]), 100)
    raw = evaluate({"params": state.params, "batch_stats": state.batch_stats}, *test, test_order)
    averaged = evaluate({**state.variables, "batch_stats": stats}, *test, test_order)
    assert raw.summary()["accuracy"] > 0.8
    assert averaged.summary()["accuracy"] > raw.summary()["accuracy"] - 0.02

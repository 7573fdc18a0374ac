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


def plain_run(decay, steps, **options):
    """The states of a few steps of a linear network, the first one included."""
    model, optimizer = plain_model(), make_optimizer("sgd", 0.5)
    step = jax.jit(make_train_step(model, optimizer, ema_decay=decay))
    example = jnp.zeros((1, 2, 2, 1))
    state = create_train_state(model, optimizer, example, key=jax.random.key(0), ema=True)
    states, rng = [state], np.random.default_rng(0)
    for _ in range(steps):
        images = rng.uniform(size=(8, 2, 2, 1)).astype(np.float32)
        batch = Batch(images, np.arange(8, dtype=np.int32), np.arange(8) < 6)
        states.append(step(states[-1], batch)[0])
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
        jax.vmap(ema_decay_at, in_axes=(None, 0))(0.999, steps),
        [0.1, 0.5, 0.91, 8990 / 8999, 0.999],
        rtol=1e-6,
    )


def test_averages_of_an_ensemble_pass_through_a_donating_loop():
    """Decays are traced numbers here, one for each member."""
    model, optimizer = plain_model(), make_optimizer("sgd", 0.5)
    images = np.random.default_rng(0).integers(0, 256, (12, 2, 2, 1), dtype=np.uint8)
    labels, order = np.arange(12, dtype=np.int32) % CLASSES, sequential_order(12, 4)

    def create(key):
        return create_train_state(model, optimizer, jnp.zeros((1, 2, 2, 1)), key=key, ema=True)

    def train(state, metrics, decay):
        epoch = make_epoch_fn(make_train_step(model, optimizer, ema_decay=decay))
        return epoch(state, metrics, images, labels, order, 0, 3)

    keys, decays = jax.random.split(jax.random.key(0), 2), jnp.array([0.0, 0.9])
    states = jax.vmap(create)(keys)
    metrics = jax.vmap(lambda _: Metrics.empty(CLASSES))(decays)
    alone = [
        jax.jit(train)(create(key), Metrics.empty(CLASSES), decay)
        for key, decay in zip(keys, decays, strict=True)
    ]
    states, metrics = jax.jit(jax.vmap(train), donate_argnums=(0, 1))(states, metrics, decays)
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


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 0.999])
def test_statistics_are_those_of_all_images_whatever_the_momentum(momentum):
    images = np.random.default_rng(0).integers(0, 256, (37, 2, 3, 1), dtype=np.uint8)
    # A ragged batch, and one that is all padding.
    order = jnp.concatenate([sequential_order(37, 8), jnp.full((1, 8), -1)])
    start = {name: jnp.full((2, 3, 1), 7.0) for name in ("mean", "square")}
    variables = {"params": {}, "batch_stats": start}
    stats_fn = jax.jit(make_batch_stats_fn(measuring_model(momentum)))
    stats = stats_fn(variables, images, order)
    scaled = images / 255
    np.testing.assert_allclose(stats["mean"], 1e3 * scaled.mean(0), rtol=1e-3)
    np.testing.assert_allclose(stats["square"], 1e3 * (scaled**2).mean(0), rtol=1e-3)
    nothing = stats_fn(variables, images, jnp.full_like(order, -1))
    jax.tree.map(np.testing.assert_array_equal, nothing, start)


def test_a_network_with_its_own_statistics_says_what_it_said_while_it_was_trained():
    """In one batch of all images, training normalizes by exactly what is asked for."""
    model = create_model("tiny")
    images = np.random.default_rng(0).uniform(size=(24, 12, 12, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    stats = jax.jit(make_batch_stats_fn(model))(variables, images, sequential_order(24, 24))
    mask, key = jnp.ones(24, bool), jax.random.key(1)
    trained, _ = model.apply(variables, images, train=True, key=key, mask=mask)
    evaluated, _ = model.apply({**variables, "batch_stats": stats}, images)
    np.testing.assert_allclose(evaluated, trained, atol=2e-3)


def test_a_network_without_statistics_has_none_to_compute():
    variables = {"params": {}, "batch_stats": {}}
    assert make_batch_stats_fn(plain_model())(variables, jnp.zeros((4, 2, 2, 1)), None) == {}


def test_an_average_is_no_worse_than_the_weights_that_it_averages():
    """On real digits, after few steps and with a decay for many, where it once was a guess."""
    digits = mnistjax.data.load_dataset("digits")
    model, optimizer = create_model("tiny", padding="SAME"), make_optimizer("adam", 3e-3)
    images, labels = jnp.asarray(digits.train.images), jnp.asarray(digits.train.labels)
    key = jax.random.key(0)
    example = jnp.zeros((1, *images.shape[1:]))
    state = create_train_state(model, optimizer, example, key=key, ema=True)
    epoch = jax.jit(make_epoch_fn(make_train_step(model, optimizer, ema_decay=0.999)))
    for number in range(4):
        order = epoch_order(key, number, len(images), 32)
        state, _ = epoch(state, Metrics.empty(CLASSES), images, labels, order, 0, len(order))
    stats = jax.jit(make_batch_stats_fn(model))(state.variables, images, order)
    test = jnp.asarray(digits.test.images), jnp.asarray(digits.test.labels)
    evaluate = jax.jit(make_eval_fn(make_eval_step(model)))
    test_order = sequential_order(len(test[0]), 100)
    raw = evaluate({"params": state.params, "batch_stats": state.batch_stats}, *test, test_order)
    averaged = evaluate({**state.variables, "batch_stats": stats}, *test, test_order)
    assert raw.summary()["accuracy"] > 0.8
    assert averaged.summary()["accuracy"] > raw.summary()["accuracy"] - 0.02

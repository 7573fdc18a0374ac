"""Cases for the contract of training: networks, optimizers, images, and what is compared."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from mnistjax.data import Batch
from mnistjax.models import Model, create_model
from mnistjax.training import (
    Metrics,
    create_train_state,
    make_epoch_fn,
    make_optimizer,
    make_train_step,
)

CLASSES, BATCH, COUNT, STEPS = 10, 16, 104, 7  # The last batch: 8 images and 8 padded rows.
DEVICES = 8
RATES = {
    "sgd": 0.1,
    "momentum": 0.02,
    "nesterov": 0.02,
    "adagrad": 0.02,
    "adadelta": 2.0,
    "lion": 5e-4,
    "lamb": 1e-3,
    "muon": 0.01,
}
# A larger epsilon than the usual 1e-8, which blows rounding errors of tiny gradients up to steps.
SETTINGS = {name: {"eps": 1e-4} for name in ("adam", "adamw", "lamb", "rmsprop")}
# Without dropout, whose draws no two ways of dividing a batch share.
WITHOUT_DROPOUT = {
    "cnn": {"dropouts": (0.0,)},
    "cnn-dropout": {"stage_dropout": 0.0, "dropouts": (0.0, 0.0)},
    "cnn-bn": {"dropouts": (0.0, 0.0, 0.0)},
}


def plain_model() -> Model:
    """A network with no module system behind it."""

    def init(key, images):
        weights = 0.1 * jax.random.normal(key, (images[0].size, CLASSES))
        return {"params": {"weights": weights, "bias": jnp.zeros(CLASSES)}, "batch_stats": {}}

    def apply(variables, images, *, train=False, key=None, mask=None, axis_name=None):
        params = variables["params"]
        return images.reshape(len(images), -1) @ params["weights"] + params["bias"][None], {}

    return Model(init, apply, "plain")


def build_model(name, **overrides):
    return plain_model() if name == "plain" else create_model(name, **overrides)


@functools.cache
def data():
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 12, 1), dtype=np.uint8)
    return images, np.arange(COUNT, dtype=np.int32) % CLASSES


def shuffled_order():
    """As `epoch_order` has it; by NumPy, for each eager operation of JAX is one more program."""
    rows = np.full(STEPS * BATCH, -1, np.int32)
    rows[:COUNT] = np.random.default_rng(1).permutation(COUNT)
    return rows.reshape(STEPS, BATCH)


def host_batch(rows):
    """As `take_batch` has it."""
    mask = rows >= 0
    images, labels = (array[rows] for array in data())
    return Batch(images * mask[:, None, None, None], labels * mask, mask)


def uneven_batch():
    """Rows of eight devices, of which the last have nothing but padding."""
    rows = [3, 14, 15, 92, 65, 35, 89, -1, 79, -1, -1, -1, -1, -1, -1, -1]
    return host_batch(np.array(rows, np.int32))


def two_batches():
    """A batch without padding, and one with."""
    return [host_batch(np.arange(20, 20 + BATCH, dtype=np.int32)), uneven_batch()]


def take_steps(step, state, batches):
    """Returns the last state, and the metrics of the last step."""
    for batch in batches:
        state, metrics = step(state, batch)
    return state, metrics


class Case:
    """A model with an optimizer, and the programs that several tests share."""

    def __init__(self, model_name, optimizer_name):
        self.model_name, self.optimizer_name = model_name, optimizer_name
        self.model = build_model(model_name)
        self.quiet_model = build_model(model_name, **WITHOUT_DROPOUT.get(model_name, {}))
        self.order = shuffled_order()
        self.traces = 0
        self.step = make_train_step(self.model, self.optimizer())
        self.jitted = jax.jit(self.counted(self.step))
        self.epoch = jax.jit(make_epoch_fn(self.counted(self.step)))

    def counted(self, function):
        def wrapped(*args):
            self.traces += 1
            return function(*args)

        return wrapped

    def optimizer(self):
        settings = SETTINGS.get(self.optimizer_name, {})
        return make_optimizer(self.optimizer_name, RATES.get(self.optimizer_name, 2e-3), **settings)

    def quiet_step(self, axis_name=None):
        return make_train_step(self.quiet_model, self.optimizer(), axis_name=axis_name)

    def create_state(self, key):
        return create_train_state(self.model, self.optimizer(), jnp.zeros((1, 12, 12, 1)), key=key)

    @functools.cached_property
    def jitted_create(self):
        return jax.jit(self.create_state)

    @functools.cached_property
    def state(self):
        return self.jitted_create(jax.random.key(3))

    @functools.cached_property
    def expected(self):
        """What every way of dividing the batches of two steps should give."""
        quiet = self.model_name in WITHOUT_DROPOUT
        step = jax.jit(self.quiet_step()) if quiet else self.jitted
        return on_host(*take_steps(step, self.state, two_batches()))

    def state_bytes(self):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.params))

    def batch(self, index=0):
        return host_batch(self.order[index])

    def run_epoch(self, state, metrics=None, start=0, stop=STEPS):
        metrics = Metrics.empty(CLASSES) if metrics is None else metrics
        return self.epoch(state, metrics, *data(), self.order, start, stop)


def on_host(state, metrics):
    """What `assert_close` compares, as NumPy arrays: an array of JAX's on several devices, looked
    at element by element, would be one more program for them all."""
    return jax.device_get((state.replace(key=None, opt_state=None), metrics))


def leaves(state):
    """The arrays to compare, by name."""
    arrays = {"params": state.params, "batch_stats": state.batch_stats, "step": state.step}
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }


def assert_close(actual, expected, start, share=0.01):
    """Both ended at the same place: to a `share` of the way there from `start`."""
    (state, metrics), (expected_state, expected_metrics) = on_host(*actual), on_host(*expected)
    np.testing.assert_array_equal(metrics.confusion, expected_metrics.confusion)
    np.testing.assert_allclose(metrics.loss_sum, expected_metrics.loss_sum, rtol=1e-4)
    named, expected_named, before = leaves(state), leaves(expected_state), leaves(start)
    assert named.keys() == expected_named.keys()
    for name, leaf in named.items():
        error = np.linalg.norm(leaf - expected_named[name])
        assert error <= share * np.linalg.norm(expected_named[name] - before[name]) + 1e-6, name


def assert_equal(actual, expected):
    chex.assert_trees_all_equal(jax.tree.map(raw, actual), jax.tree.map(raw, expected))


def raw(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def member(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def device_mesh(kind=AxisType.Auto):
    return jax.make_mesh((DEVICES,), ("devices",), axis_types=(kind,))

"""The step by itself: labels, pixels, keys, precision, and evaluation on every kind of mesh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from training_cases import COUNT, DEVICES, Case, data, device_mesh, host_batch

from mnistjax.data import Batch, epoch_order
from mnistjax.errors import DataFormatError
from mnistjax.models import Model
from mnistjax.training import (
    Metrics,
    create_train_state,
    make_epoch_fn,
    make_eval_fn,
    make_eval_step,
    make_train_step,
    scale_pixels,
)


@pytest.fixture(scope="module")
def case():
    return Case("plain", "momentum")


def relabeled(**labels):
    """Sixteen rows, of which the last two are masked, with other labels in some of them."""
    batch = host_batch(np.array([*range(14), -1, -1]))
    for row, label in labels.items():
        batch.labels[int(row.removeprefix("row"))] = label
    return batch


@pytest.mark.parametrize("label", [-1, 10, 255, 2**31 - 1])
def test_a_label_without_a_class_is_refused_where_it_can_be_seen(case, label):
    message = f"expected labels from 0 to 9, found {label} at index 3"
    batch = relabeled(row3=label)
    with pytest.raises(DataFormatError, match=message):
        case.step(case.state, batch)
    with pytest.raises(DataFormatError, match=message):
        make_eval_step(case.model)(case.state.variables, batch)


@pytest.mark.parametrize("label", [-1, 10, 255, 2**31 - 1])
def test_a_label_without_a_class_is_no_number_where_it_cannot_be_seen(case, label):
    state, metrics = case.jitted(case.state, relabeled(row3=label))
    assert np.isnan(metrics.loss_sum)
    assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("label", [-1, 10, 2**31 - 1])
def test_a_masked_row_may_hold_any_label(case, label):
    expected = case.jitted(case.state, relabeled())
    changed = relabeled(row14=label)
    for state, metrics in (case.jitted(case.state, changed), case.step(case.state, changed)):
        np.testing.assert_array_equal(metrics.confusion, expected[1].confusion)
        np.testing.assert_allclose(metrics.loss_sum, expected[1].loss_sum, rtol=1e-6)
        for name, leaf in state.params.items():
            np.testing.assert_allclose(leaf, expected[0].params[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [0, 51, 255], [0, 0.2, 1]),
        ("bool", [False, True, True], [0, 1, 1]),
        ("float16", [0, 0.5, 1], [0, 0.5, 1]),
        ("bfloat16", [0, 0.5, 1], [0, 0.5, 1]),
        ("float32", [0, 0.3, 1], [0, 0.3, 1]),
        ("float64", [0, 0.3, 1], [0, 0.3, 1]),
    ],
)
def test_pixels_become_float32_from_0_to_1(make, dtype, values, expected):
    scaled = scale_pixels(make(np.array(values, jnp.dtype(dtype))))
    assert isinstance(scaled, jax.Array)
    assert scaled.dtype == jnp.float32
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint32", "int64", "complex64"])
def test_pixels_of_an_unknown_range_are_refused(case, dtype):
    images = np.ones((1, 12, 12, 1), dtype)
    with pytest.raises(TypeError, match=f"uint8 .* found {dtype}"):
        scale_pixels(images)
    batch = Batch(images, np.zeros(1, np.int32), np.ones(1, bool))
    with pytest.raises(TypeError, match=f"found {dtype}"):
        make_eval_step(case.model)(case.state.variables, batch)


def test_no_two_draws_of_a_run_share_a_key(monkeypatch):
    drawn = []

    def record(key):
        drawn.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))

    def init(key, images):
        record(key)
        return {"params": {"scale": jnp.ones(2)}, "batch_stats": {}}

    def apply(variables, images, *, key=None, **_):
        record(key)
        return jnp.ones((len(images), 1)) * variables["params"]["scale"][None], {}

    def augment(images, *, key):
        record(key)
        return images

    def permutation(key, count):
        record(key)
        return jnp.arange(count)

    monkeypatch.setattr(jax.random, "permutation", permutation)
    key, optimizer = jax.random.key(0), optax.sgd(0.1)
    model = Model(init, apply)
    step = make_train_step(model, optimizer, augment=augment)
    state = create_train_state(model, optimizer, jnp.zeros((1, 1, 1, 1)), key=key)
    batch = Batch(jnp.zeros((2, 1, 1, 1)), jnp.zeros(2, jnp.int32), jnp.ones(2, bool))
    for epoch in range(3):
        epoch_order(key, epoch, 4, 2)
        for _ in range(2):
            state, _ = step(state, batch)
    assert len(drawn) == 1 + 3 + 6 * 2
    record(key)
    # Nor does a caller who splits the key draw with one of these.
    for other in jax.random.split(key, 8):
        record(other)
    assert len(set(drawn)) == len(drawn)
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(key))


IN_DOUBLE_PRECISION = """
import jax, jax.numpy as jnp, numpy as np
from mnistjax.data import epoch_order, sequential_order
from mnistjax.models import create_model
from mnistjax.training import *

assert jax.config.jax_enable_x64
traced = jax.eval_shape
model = create_model("tiny", num_classes=3)
schedule = make_schedule("one-cycle", np.float64(0.1), 10, warmup_steps=2)
assert traced(schedule, np.int32(1)).dtype == jnp.float32
numbers = {"weight_decay": np.float64(0.1), "clip_norm": np.float64(1), "b1": np.float64(0.9)}
optimizer = make_optimizer("adam", schedule, **numbers)
example = np.zeros((1, 12, 12, 1), np.float32)
key = jax.random.key(0)
state = traced(lambda key: create_train_state(model, optimizer, example, key=key, ema=True), key)
order = traced(lambda key: epoch_order(key, 0, 8, 4), key)
images, labels = np.zeros((8, 12, 12, 1), np.uint8), np.arange(8, dtype=np.int32) % 3
options = {"ema_decay": np.float64(0.9), "label_smoothing": np.float64(0.1)}
epoch = make_epoch_fn(make_train_step(model, optimizer, **options))
given = state, traced(lambda: Metrics.empty(3))
after = traced(epoch, *given, images, labels, order, 0, 2)
kinds = lambda tree: jax.tree.map(lambda leaf: str(leaf.dtype), tree)
assert kinds(after) == kinds(given), (kinds(after), kinds(given))
stats = traced(make_batch_stats_fn(model), after[0].variables, images, order)
metrics = traced(make_eval_fn(make_eval_step(model)), state.variables, images, labels, order)
figures = lambda metrics: (metrics.count, metrics.correct, metrics.compute())
rows = traced(lambda: sequential_order(3, 2))
found = [given, order, rows, stats, metrics, traced(figures, metrics)]
found = set(jax.tree.leaves(kinds(found)))
assert found <= {"float32", "int32", "key<fry>"}, found
"""


def test_every_dtype_is_said_where_it_is_made():
    """Under JAX_ENABLE_X64, what does not say its dtype has 64 bits. Tracing shows it."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(root)}
    program = [sys.executable, "-c", IN_DOUBLE_PRECISION]
    done = subprocess.run(
        program, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def loops(case):
    """The loops over images, their arguments, and what they give on one device."""
    epoch, evaluate = make_epoch_fn(case.step), make_eval_fn(make_eval_step(case.model))
    order = np.pad(np.arange(COUNT, dtype=np.int32), (0, -COUNT % 16), constant_values=-1).reshape(
        -1, 16
    )

    def both(state, metrics, order, images, labels, stop):
        after, metrics = epoch(state, metrics, images, labels, order, 0, stop)
        return after.params, metrics, evaluate(after.variables, images, labels, order)

    arguments = (case.state, Metrics.empty(10), order), data()
    return both, arguments, jax.device_get(jax.jit(both)(*arguments[0], *arguments[1], 2))


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_loops_take_images_that_are_sharded_over_a_mesh(loops, kind):
    """The loops gather from the images, and the evaluation divides each batch."""
    both, (start, arrays), expected = loops
    mesh = device_mesh(kind)
    everywhere, divided = (NamedSharding(mesh, spec) for spec in (P(), P("devices")))
    actual = jax.jit(both)(*jax.device_put(start, everywhere), *jax.device_put(arrays, divided), 2)
    for leaf, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("check_vma", [True, False])
def test_the_evaluation_step_adds_up_in_shard_map(case, check_vma):
    batch = host_batch(np.array([*range(13), -1, -1, -1]))
    step = jax.shard_map(
        make_eval_step(case.model, axis_name="devices"),
        mesh=device_mesh(),
        in_specs=(P(), P("devices")),
        out_specs=P(),
        check_vma=check_vma,
    )
    metrics = jax.jit(step)(case.state.variables, batch)
    expected = jax.jit(make_eval_step(case.model))(case.state.variables, batch)
    assert len(batch.mask) % DEVICES == 0
    np.testing.assert_array_equal(metrics.confusion, expected.confusion)
    np.testing.assert_allclose(metrics.loss_sum, expected.loss_sum, rtol=1e-5)

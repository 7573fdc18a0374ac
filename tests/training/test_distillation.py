"""Distillation: the step takes the gradient of the loss that it promises, under every transform."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from training_cases import (
    BATCH,
    CLASSES,
    Case,
    assert_close,
    device_mesh,
    host_batch,
    take_steps,
    two_batches,
    uneven_batch,
)

from mnistjax import TrainConfig
from mnistjax.data import Batch
from mnistjax.training import create_train_state, distillation_loss, make_train_step, scale_pixels

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.normal(size=(3, 12 * 12, CLASSES)), jnp.float32)


def vote(images):
    """The logits of three networks that vote, one after the other, as an ensemble has them."""

    def probabilities(weights):
        return jax.nn.softmax(images.reshape(len(images), -1) @ weights)

    return jnp.log(jnp.mean(jax.lax.map(probabilities, WEIGHTS), 0))


@pytest.fixture(scope="module")
def case():
    return Case("plain", "momentum")


def taught(case, teacher=vote, *, optimizer=None, **options):
    return make_train_step(
        case.quiet_model, optimizer or case.optimizer(), teacher=teacher, **options
    )


def gradient(case, batch, **options):
    """The gradient that a step follows: what plain descent at a rate of one subtracts."""
    descent = optax.sgd(1.0)
    state = create_train_state(
        case.model, descent, jnp.zeros((1, 12, 12, 1)), key=jax.random.key(3)
    )
    step = jax.jit(taught(case, optimizer=descent, **options))
    after = step(state, batch)[0].params
    return state, jax.tree.map(jnp.subtract, state.params, after)


def norm(tree):
    return float(optax.tree.norm(tree))


logits = st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4)


@given(student=logits, teacher=logits, temperature=st.floats(0.1, 100))
def test_the_loss_is_the_divergence_times_the_temperature_squared(student, teacher, temperature):
    def log_softmax(values):
        scaled = np.array(values, np.float64) / temperature
        return scaled - np.logaddexp.reduce(scaled)

    p, q = log_softmax(teacher), log_softmax(student)
    found = distillation_loss(jnp.array([student]), jnp.array([teacher]), temperature)
    assert found.shape == (1,)
    expected = temperature**2 * np.sum(np.exp(p) * (p - q))
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-6 * max(1, temperature**2))


def test_a_teacher_without_doubt_has_a_finite_loss_and_gradient():
    certain = jnp.log(jnp.array([[1.0, 0.0, 0.0]]))
    loss, slope = jax.value_and_grad(lambda it: distillation_loss(it, certain, 2.0)[0])(
        jnp.zeros((1, 3))
    )
    assert jnp.isfinite(loss)
    # The temperature times the difference of the probabilities.
    np.testing.assert_allclose(slope[0], 2 * (np.full(3, 1 / 3) - np.eye(3)[0]), rtol=1e-5)


def test_no_gradient_flows_into_the_teacher():
    slope = jax.grad(lambda it: distillation_loss(jnp.ones((1, 3)), it, 2.0)[0])(jnp.eye(3)[:1])
    assert not slope.any()


def test_logits_of_another_shape_are_refused(case):
    for shape in ((BATCH, 1), (BATCH, CLASSES + 1), (CLASSES,)):
        with pytest.raises(ValueError, match="expected logits of the teacher of shape"):
            jax.eval_shape(
                taught(case, lambda _, shape=shape: jnp.zeros(shape)), case.state, uneven_batch()
            )


def test_a_step_follows_the_gradient_of_the_loss(case):
    weight, temperature, smoothing = 0.3, 3.0, 0.1
    batch = uneven_batch()

    def loss(params):
        given = {"params": params, "batch_stats": {}}
        student, _ = case.model.apply(given, scale_pixels(batch.images))
        targets = (1 - smoothing) * jax.nn.one_hot(batch.labels, CLASSES) + smoothing / CLASSES
        labels = -jnp.sum(targets * jax.nn.log_softmax(student), 1)
        q = jax.nn.log_softmax(student / temperature)
        p = jax.nn.log_softmax(vote(scale_pixels(batch.images)) / temperature)
        distance = temperature**2 * jnp.sum(jnp.exp(p) * (p - q), 1)
        rows = (1 - weight) * labels + weight * distance
        return jnp.mean(rows[batch.mask])

    options = {"distill_weight": weight, "temperature": temperature, "label_smoothing": smoothing}
    state, found = gradient(case, batch, **options)
    expected = jax.jit(jax.grad(loss))(state.params)
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-3, atol=1e-6)


def test_without_weight_the_teacher_changes_nothing(case):
    ignored = take_steps(jax.jit(taught(case, distill_weight=0.0)), case.state, two_batches())
    assert_close(ignored, case.expected, case.state)


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(case, temperature, size):
    start, _ = gradient(case, uneven_batch())
    options = {"distill_weight": 1.0, "temperature": temperature, "microbatch_size": size}
    _, alike = gradient(
        case,
        uneven_batch(),
        teacher=lambda images: case.model.apply(start.variables, images)[0],
        **options,
    )
    _, unlike = gradient(case, uneven_batch(), **options)
    assert norm(alike) < 1e-5
    assert norm(unlike) > 1e-2


def test_the_gradient_hardly_depends_on_the_temperature(case):
    norms = [
        norm(gradient(case, two_batches()[0], distill_weight=1.0, temperature=temperature)[1])
        for temperature in (1.0, 4.0, 20.0, 100.0)
    ]
    assert max(norms) < 5 * min(norms)
    assert norms[2] == pytest.approx(norms[3], rel=0.3)


def test_the_metrics_are_those_against_the_labels(case):
    batch = uneven_batch()
    _, metrics = jax.jit(taught(case))(case.state, batch)
    _, expected = case.jitted(case.state, batch)
    np.testing.assert_array_equal(metrics.confusion, expected.confusion)
    np.testing.assert_allclose(metrics.loss_sum, expected.loss_sum, rtol=1e-6)


def test_masked_rows_have_no_part_in_it(case):
    batch = host_batch(np.array([*range(10), *[-1] * 6]))
    images, labels = batch.images.copy(), batch.labels.copy()
    images[10:], labels[10:] = 200, 7
    step = jax.jit(taught(case, distill_weight=0.7))
    changed = step(case.state, Batch(images, labels, batch.mask))
    assert_close(changed, step(case.state, batch), case.state)


def test_the_teacher_sees_what_the_student_sees(case):
    seen = []

    def teacher(images):
        seen.append(np.asarray(images))
        return vote(images)

    def invert(images, *, key):
        return 1 - images

    step = taught(case, teacher, augment=invert)
    step(case.state, uneven_batch())
    (images,) = seen
    np.testing.assert_allclose(images, 1 - scale_pixels(uneven_batch().images))


def eagerly(case):
    return taught(case)


def in_pieces(case):
    return jax.jit(taught(case, microbatch_size=3))


def in_pieces_for_a_cache(case):
    return jax.jit(taught(case, microbatch_size=lambda bytes_per_row: 4))


def shard_mapped(check_vma, size=None):
    def make(case):
        step = jax.shard_map(
            taught(case, axis_name="devices", microbatch_size=size),
            mesh=device_mesh(),
            in_specs=(P(), P("devices")),
            out_specs=P(),
            check_vma=check_vma,
        )
        return jax.jit(step)

    return make


def made_inside(case):
    """With the weights of the teacher as arguments."""

    @jax.jit
    def step(weights, state, batch):
        def teacher(images):
            flat = images.reshape(len(images), -1)
            votes = jax.lax.map(lambda one: jax.nn.softmax(flat @ one), weights)
            return jnp.log(jnp.mean(votes, 0))

        return taught(case, teacher)(state, batch)

    return lambda state, batch: step(WEIGHTS, state, batch)


WAYS = {
    "eager": eagerly,
    "pieces": in_pieces,
    "pieces-for-a-cache": in_pieces_for_a_cache,
    "shard_map": shard_mapped(True),
    "shard_map-unchecked": shard_mapped(False),
    "shard_map-pieces": shard_mapped(True, 1),
    "made-inside": made_inside,
}


@pytest.fixture(scope="module")
def expected(case):
    return take_steps(jax.jit(taught(case)), case.state, two_batches())


@pytest.mark.parametrize("way", WAYS)
def test_every_transform_gives_the_same_step(case, expected, way):
    assert_close(take_steps(WAYS[way](case), case.state, two_batches()), expected, case.state)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_gives_the_same_step(case, expected, kind):
    mesh = device_mesh(kind)
    state = jax.device_put(case.state, NamedSharding(mesh, P()))
    batches = jax.device_put(two_batches(), NamedSharding(mesh, P("devices")))
    assert_close(take_steps(jax.jit(taught(case)), state, batches), expected, case.state)


def test_many_students_have_one_teacher(case):
    keys = jax.random.split(jax.random.key(6), 2)
    states = jax.vmap(case.create_state)(keys)
    together, _ = jax.jit(jax.vmap(taught(case), in_axes=(0, None)))(states, uneven_batch())
    for index, key in enumerate(keys):
        alone, _ = jax.jit(taught(case))(case.create_state(key), uneven_batch())
        for name, leaf in alone.params.items():
            np.testing.assert_allclose(together.params[name][index], leaf, rtol=1e-4, atol=1e-6)


def test_a_teacher_in_half_precision_is_a_teacher(case, expected):
    half = taught(case, lambda images: vote(images).astype(jnp.bfloat16))
    state, metrics = take_steps(jax.jit(half), case.state, two_batches())
    for name, leaf in state.params.items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, expected[0].params[name], atol=2e-3)
    assert metrics.loss_sum.dtype == jnp.float32


def test_the_step_and_the_settings_have_the_same_defaults():
    parameters = inspect.signature(make_train_step).parameters
    for name in ("distill_weight", "temperature", "label_smoothing"):
        assert parameters[name].default == getattr(TrainConfig(), name)

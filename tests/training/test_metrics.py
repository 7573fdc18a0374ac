"""Metrics: against NumPy and scikit-learn, and as the monoid that they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from mnistjax.data import Batch, sequential_order
from mnistjax.errors import DataFormatError
from mnistjax.models import Model
from mnistjax.training import Metrics, make_eval_fn, make_eval_step

# Few shapes, for each is compiled anew; every number of images.
sizes = st.tuples(
    st.integers(1, 40), st.sampled_from([1, 7, 16]), st.sampled_from([2, 5]), st.integers(0, 99)
)
figures_of = jax.jit(lambda metrics: (metrics.count, metrics.correct, metrics.compute()))
from_logits_under_jit = jax.jit(Metrics.from_logits)


def draw(count, classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, count).astype(np.int32)


def measured(logits, labels, batch_size):
    """The metrics of all rows, gathered in padded batches whose padding holds infinities."""
    total = Metrics.empty(logits.shape[1])
    for start in range(0, len(labels), batch_size):
        rows = np.arange(start, start + batch_size)
        mask = rows < len(labels)
        rows *= mask
        batch = np.where(mask[:, None], logits[rows], np.float32(np.inf))
        total = total.merge(Metrics.from_logits(batch, labels[rows], mask))
    return total


@settings(max_examples=15)
@given(size=sizes)
def test_agrees_with_scikit_learn_at_any_batch_size(size):
    count, batch_size, classes, seed = size
    logits, labels = draw(count, classes, seed)
    metrics = measured(logits, labels, batch_size)
    guesses, every = logits.argmax(1), range(classes)
    np.testing.assert_array_equal(
        metrics.confusion, confusion_matrix(labels, guesses, labels=every)
    )
    total, correct, figures = jax.device_get(figures_of(metrics))
    assert total == count
    assert correct == np.sum(guesses == labels)
    np.testing.assert_allclose(figures["accuracy"], accuracy_score(labels, guesses), rtol=1e-6)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(
        figures["loss"], log_loss(labels, probabilities, labels=every), rtol=1e-4, atol=1e-5
    )


def assert_same(one, other):
    np.testing.assert_array_equal(one.confusion, other.confusion)
    np.testing.assert_allclose(one.loss_sum, other.loss_sum, rtol=1e-6)


@settings(max_examples=15)
@given(seeds=st.tuples(*[st.integers(0, 99)] * 3))
def test_merging_is_associative_and_commutative_with_the_empty_as_identity(seeds):
    a, b, c = (measured(*draw(5 + seed % 3, 4, seed), 4) for seed in seeds)
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same(a.merge(b), b.merge(a))
    assert_same(a.merge(Metrics.empty(4)), a)
    assert_same(Metrics.empty(4).merge(a), a)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_masked_row_may_hold_anything(bad):
    logits, labels = draw(4, 3, 0)
    expected = Metrics.from_logits(logits[:3], labels[:3], np.ones(3, bool))
    logits[3] = bad
    mask = np.array([True, True, True, False])
    assert_same(Metrics.from_logits(logits, labels, mask), expected)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_row_that_counts_and_is_not_finite_shows_in_the_loss(bad):
    logits, labels = draw(4, 3, 0)
    logits[2] = bad
    assert not np.isfinite(Metrics.from_logits(logits, labels, np.ones(4, bool)).loss_sum)


@pytest.mark.parametrize("how", [Metrics.compute, Metrics.summary])
def test_no_image_at_all_has_no_accuracy(how):
    assert all(np.isnan(value) for value in how(Metrics.empty(3)).values())


def test_the_summary_is_count_over_count_in_double_precision():
    metrics = Metrics(np.float32(2_500), np.array([[9_288, 712], [0, 0]], np.int32))
    assert metrics.summary() == {"loss": 0.25, "accuracy": 0.9288}
    # More images than an int32 holds.
    metrics = Metrics(np.float32(0), np.full((2, 2), 2**31 - 1, np.int32))
    assert metrics.summary() == {"loss": 0.0, "accuracy": 0.5}


@pytest.mark.parametrize("label", [-1, 3, 300])
def test_a_label_without_a_class_is_an_error_and_under_jit_no_number(label):
    logits, labels = draw(4, 3, 0)
    labels[2], mask = label, np.ones(4, bool)
    with pytest.raises(DataFormatError, match=f"from 0 to 2, found {label} at index 2"):
        Metrics.from_logits(logits, labels, mask)
    assert np.isnan(from_logits_under_jit(logits, labels, mask).loss_sum)
    mask[2] = False
    assert np.isfinite(Metrics.from_logits(logits, labels, mask).loss_sum)


def test_labels_of_eight_bits_do_with_any_number_of_classes():
    logits, labels = np.zeros((2, 300), np.float32), np.array([0, 255], np.uint8)
    assert from_logits_under_jit(logits, labels, np.ones(2, bool)).count == 2


@pytest.mark.parametrize(
    ("logits", "labels", "mask"),
    [
        ((4, 3), (3,), (4,)),
        ((4, 3), (4,), (3,)),
        ((4, 3), (4,), (4, 1)),
        ((4, 3), (4, 3), (4,)),
        ((3, 3), (4,), (4,)),
        ((4, 3), (4,), (1,)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(logits, labels, mask):
    with pytest.raises(ValueError, match=r"expected logits \[B, classes\], labels \[B\] and mask"):
        Metrics.from_logits(np.zeros(logits), np.zeros(labels, np.int32), np.ones(mask, bool))


def test_metrics_of_an_ensemble_are_computed_member_by_member():
    pairs = [draw(6, 4, seed) for seed in (0, 1)]
    logits, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    mask = np.ones((2, 6), bool)
    together = jax.device_get(jax.vmap(Metrics.from_logits)(logits, labels, mask))
    counts, corrects, figures = jax.device_get(figures_of(together))
    for index in range(2):
        alone = Metrics.from_logits(logits[index], labels[index], mask[index])
        np.testing.assert_array_equal(together.confusion[index], alone.confusion)
        count, correct, of_one = figures_of(alone)
        assert counts[index] == count == 6
        assert corrects[index] == correct
        np.testing.assert_allclose(figures["loss"][index], of_one["loss"], rtol=1e-6)


def test_a_batch_is_measured_by_one_program(caplog):
    logits, labels = draw(11, 3, 0)
    with jax.log_compiles():
        Metrics.from_logits(logits, labels, np.ones(11, bool))
    assert sum("Compiling" in record.getMessage() for record in caplog.records) == 1


def brightness_model():
    """Says the class that the first pixel names."""

    def apply(variables, images, **_):
        return 9.0 * jax.nn.one_hot(jnp.round(images[:, 0, 0, 0] * 255).astype(jnp.int32), 4), {}

    return Model(lambda key, images: {"params": {}, "batch_stats": {}}, apply, "brightness")


MODEL = brightness_model()


EMPTY = {"params": {}, "batch_stats": {}}


# Less than a batch, one that is full, several, and a last one that is ragged.
@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 7), (7, 7), (35, 7), (40, 16)])
def test_the_evaluation_loop_counts_every_image_once(count, batch_size):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 4, (count, 2, 2, 1), dtype=np.uint8)
    labels = rng.integers(0, 4, count).astype(np.int32)
    evaluate = jax.jit(make_eval_fn(make_eval_step(MODEL)))
    metrics = evaluate(EMPTY, images, labels, sequential_order(count, batch_size))
    expected = confusion_matrix(labels, images[:, 0, 0, 0], labels=range(4))
    np.testing.assert_array_equal(metrics.confusion, expected)


def test_the_evaluation_step_adds_up_over_devices():
    images = (np.arange(8, dtype=np.uint8) % 4).reshape(8, 1, 1, 1)
    labels = np.array([0, 1, 2, 0, 0, 0, 0, 0], np.int32)
    batch = Batch(images, labels, np.array([1, 1, 1, 0, 1, 0, 0, 0], bool))
    expected = jax.jit(make_eval_step(MODEL))(EMPTY, batch)
    step = jax.pmap(
        make_eval_step(MODEL, axis_name="devices"), axis_name="devices", in_axes=(None, 0)
    )
    divided = Batch(*(array.reshape(4, 2, *array.shape[1:]) for array in batch))
    metrics = jax.device_get(step(EMPTY, divided))
    assert np.sum(expected.confusion) == 4
    leaves, structure = jax.tree.flatten(metrics)
    for of_device in zip(*leaves, strict=True):
        assert_same(jax.tree.unflatten(structure, of_device), expected)

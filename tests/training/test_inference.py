"""Running a network over images: any number of them, any batch size, one compiled program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistjax.errors import ConfigError
from mnistjax.models import Model
from mnistjax.training import Metrics, in_batches, measure_logits, predict_logits
from mnistjax.training.inference import logits_program

CLASSES = 4


def init(key, images):
    return {"params": {}, "batch_stats": {}}


def apply(variables, images, *, train=False, key=None, mask=None, axis_name=None):
    """The logits of an image are its first pixels."""
    return images.reshape(len(images), -1)[:, :CLASSES], {}


MODEL = Model(init, apply, "first-pixels")
VARIABLES = {"params": {}, "batch_stats": {}}


def draw(count, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, count).astype(np.int32)


@settings(max_examples=20)
@given(count=st.integers(0, 23), batch_size=st.sampled_from([1, 5, 8, 23]))
def test_rows_come_back_in_order_at_any_batch_size(count, batch_size):
    numbers = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    seen = []

    def double(rows):
        seen.append(rows.shape)
        return 2 * rows

    np.testing.assert_array_equal(in_batches(double, numbers, batch_size=batch_size), 2 * numbers)
    assert set(seen) == {(batch_size, 3)}


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="batch_size must be at least 1, found 0"):
        in_batches(jnp.negative, np.zeros(3), batch_size=0)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_logits_are_those_of_the_network(count):
    images, _ = draw(count)
    logits = predict_logits(MODEL, VARIABLES, images, batch_size=8)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, images.reshape(-1, 4).astype(np.float32) / 255, rtol=1e-6)


def test_one_program_serves_all_lengths(caplog):
    predict_logits(MODEL, VARIABLES, draw(3)[0], batch_size=8)
    assert logits_program(MODEL) is logits_program(MODEL)
    with jax.log_compiles():
        for count in (1, 8, 9, 30):
            predict_logits(MODEL, VARIABLES, draw(count)[0], batch_size=8)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


@pytest.mark.parametrize("batch_size", [1, 7, 8, 500])
def test_every_row_counts_once_at_any_batch_size(batch_size):
    images, labels = draw(30)
    logits = images.reshape(-1, 4).astype(np.float32)
    metrics = measure_logits(logits, labels, batch_size=batch_size)
    expected = Metrics.from_logits(logits, labels, np.ones(30, bool))
    np.testing.assert_array_equal(metrics.confusion, expected.confusion)
    np.testing.assert_allclose(metrics.loss_sum, expected.loss_sum, rtol=1e-5)
    assert int(metrics.count) == 30


def test_large_losses_are_not_clamped():
    logits = np.array([[0.0, 200.0]], np.float32)
    assert measure_logits(logits, np.array([0], np.int32)).summary()["loss"] == 200.0

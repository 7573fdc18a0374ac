from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistjax.data.batches import (
    check_labels,
    epoch_order,
    named_key,
    sequential_order,
    steps_per_epoch,
    take_batch,
)
from mnistjax.data.splits import Split
from mnistjax.data.streaming import Prefetched, gather, stream_batches
from mnistjax.errors import ConfigError, DataFormatError

# Each size compiles anew, so few of them stand for all: one image, one batch, one image per batch,
# batches that fill the last row and batches that do not.
SIZES = [(1, 1), (6, 6), (5, 1), (12, 4), (9, 4)]
sizes = st.sampled_from(SIZES)
any_size = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
jitted_epoch_order = jax.jit(epoch_order, static_argnums=(2, 3))
jitted_take_batch = jax.jit(take_batch)


def make_split(count):
    rng = np.random.default_rng(count)
    images = rng.integers(1, 256, (count, 4, 3, 2), dtype=np.uint8)
    return Split(images, np.arange(count, dtype=np.int32))


def assert_covers_once(order, num_examples, batch_size):
    assert order.dtype == jnp.int32
    assert order.shape == (steps_per_epoch(num_examples, batch_size), batch_size)
    flat = np.asarray(order).ravel()
    np.testing.assert_array_equal(np.sort(flat[:num_examples]), np.arange(num_examples))
    assert (flat[num_examples:] == -1).all()


@settings(max_examples=25)
@given(size=sizes, seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_an_epoch_visits_every_image_exactly_once(size, seed, epoch):
    assert_covers_once(jitted_epoch_order(jax.random.key(seed), epoch, *size), *size)


@settings(max_examples=25)
@given(size=any_size)
def test_an_order_of_any_size_has_a_row_for_each_step(size):
    order = jax.eval_shape(lambda: epoch_order(jax.random.key(0), 0, *size))
    assert order.shape == (steps_per_epoch(*size), size[1])
    assert order.shape == jax.eval_shape(lambda: sequential_order(*size)).shape
    assert 0 <= order.size - size[0] < size[1]


@pytest.mark.parametrize("size", SIZES)
def test_sequential_order_keeps_the_order(size):
    order = jax.jit(sequential_order, static_argnums=(0, 1))(*size)
    assert_covers_once(order, *size)
    np.testing.assert_array_equal(np.asarray(order).ravel()[: size[0]], np.arange(size[0]))


def test_evaluation_takes_a_batch_larger_than_the_data():
    np.testing.assert_array_equal(sequential_order(2, 4), [[0, 1, -1, -1]])


def test_the_order_depends_on_key_and_epoch_alone():
    key = jax.random.key(7)
    order = np.asarray(jitted_epoch_order(key, 3, 50, 8))
    np.testing.assert_array_equal(order, jitted_epoch_order(jax.random.key(7), 3, 50, 8))
    assert (order != np.asarray(jitted_epoch_order(key, 4, 50, 8))).any()
    assert (order != np.asarray(jitted_epoch_order(jax.random.key(8), 3, 50, 8))).any()


def test_the_order_is_the_same_under_jit_with_a_traced_epoch():
    key = jax.random.key(0)
    for epoch in range(3):
        np.testing.assert_array_equal(
            jitted_epoch_order(key, epoch, 50, 8), epoch_order(key, epoch, 50, 8)
        )


@given(
    indices=st.sampled_from([1, 12]).flatmap(
        lambda count: st.lists(st.integers(-1, 9), min_size=count, max_size=count)
    ),
    dtype=st.sampled_from([np.uint8, np.float32]),
)
def test_a_batch_holds_what_numpy_indexes_and_zeros_where_masked(indices, dtype):
    split = make_split(10)
    images, rows = split.images.astype(dtype), np.array(indices, np.int32)
    batch = jitted_take_batch(images, split.labels, rows)
    keep = rows >= 0
    assert (batch.images.dtype, batch.labels.dtype, batch.mask.dtype) == (dtype, np.int32, bool)
    np.testing.assert_array_equal(batch.mask, keep)
    np.testing.assert_array_equal(batch.images, images[rows] * keep[:, None, None, None])
    np.testing.assert_array_equal(batch.labels, split.labels[rows] * keep)


@settings(max_examples=20)
@given(size=sizes, epoch=st.integers(0, 3))
def test_streamed_batches_are_those_on_the_device(size, epoch):
    split, key = make_split(size[0]), jax.random.key(5)
    streamed = list(stream_batches(split, size[1], key=key, epoch=epoch))
    order = np.asarray(jitted_epoch_order(key, epoch, *size))
    assert len(streamed) == len(order)
    for batch, indices in zip(streamed, order, strict=True):
        expected = jitted_take_batch(split.images, split.labels, indices)
        jax.tree.map(np.testing.assert_array_equal, batch, expected)


def test_a_stream_can_start_in_the_middle():
    split, key = make_split(9), jax.random.key(1)
    whole = list(stream_batches(split, 4, key=key, epoch=2))
    rest = list(stream_batches(split, 4, key=key, epoch=2, start=1))
    assert len(rest) == len(whole) - 1
    jax.tree.map(np.testing.assert_array_equal, rest, whole[1:])


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_size_out_of_bounds_is_refused_at_the_call(batch_size):
    key, message = jax.random.key(0), f"batch_size must be .*10, found {batch_size}"
    with pytest.raises(ConfigError, match=message):
        epoch_order(key, 0, 10, batch_size)
    with pytest.raises(ConfigError, match=message):
        stream_batches(make_split(10), batch_size, key=key, epoch=0)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 0), (0, 10)])
def test_sequential_order_refuses_nothing_at_all(num_examples, batch_size):
    with pytest.raises(ConfigError, match="must be >= 1"):
        sequential_order(num_examples, batch_size)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10, 11], r"labels from 0 to 9, found 10 at index 1 \(2 of 3"),
        ([0, 1, -1], "labels from 0 to 9, found -1 at index 2"),
        ([0.0, 1.0], "labels of an integer dtype, found float"),
    ],
)
def test_labels_that_name_no_class_are_refused(labels, message):
    with pytest.raises(DataFormatError, match=message):
        check_labels(np.array(labels), 10)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_classes_pass_and_masked_rows_may_hold_anything(dtype):
    check_labels(np.arange(10, dtype=dtype), 10)
    check_labels(np.zeros(0, dtype), 10)
    check_labels(np.array([9, 10], dtype), 10, mask=np.array([True, False]))


def test_keys_of_different_names_and_of_a_split_differ():
    key = jax.random.key(0)
    keys = [named_key(key, name) for name in ("init", "augment", "dropout", "order")]
    split = np.asarray(jax.random.key_data(jax.random.split(key, 9)))
    drawn = {tuple(jax.random.key_data(k).tolist()) for k in [key, *keys]}
    drawn |= {tuple(row.tolist()) for row in split}
    assert len(drawn) == 1 + len(keys) + 9


def test_items_are_made_ahead_by_threads_and_each_once():
    made = []

    def make(index):
        made.append(index)
        return index

    items = Prefetched(make, 5)
    assert items[0] == 0
    assert [items[index] for index in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert sorted(made) == [0, 1, 2, 3, 4]
    assert items[1] == 1  # Gone, and made again.
    items.close()


def test_an_error_in_a_thread_is_raised_where_the_item_is_asked_for():
    def make(index):
        if index == 1:
            raise OSError("the disk is gone")
        return index

    items = Prefetched(make, 3)
    assert items[0] == 0
    with pytest.raises(OSError, match="the disk is gone"):
        items[1]
    items.close()


@given(rows=st.lists(st.lists(st.integers(-1, 8), min_size=3, max_size=3), min_size=1, max_size=4))
def test_gathering_on_the_host_is_gathering_on_the_device(rows):
    split, indices = make_split(9), np.array(rows, np.int32)
    gathered = gather(split, indices)
    keep = indices >= 0
    np.testing.assert_array_equal(gathered.mask, keep)
    np.testing.assert_array_equal(
        gathered.images, split.images[indices] * keep[..., None, None, None]
    )
    np.testing.assert_array_equal(gathered.labels, split.labels[indices] * keep)

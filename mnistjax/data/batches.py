"""The order in which an epoch visits the images, and the batches gathered in that order.

The order depends only on a key and the epoch number, so a resumed run sees the same batches as an
uninterrupted one. The last batch is padded with masked rows, so every image counts exactly once at
any batch size.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mnistjax.errors import ConfigError, DataFormatError


class Batch(NamedTuple):
    """One batch of images.

    Attributes:
        images: uint8 or float [B, H, W, C]; zeros where masked.
        labels: int32 [B]; 0 where masked.
        mask: bool [B]; False for the rows that pad the last batch.
    """

    images: jax.Array
    labels: jax.Array
    mask: jax.Array


def named_key(key: jax.Array, name: str) -> jax.Array:
    """Derives the key of one kind of random draw from the base key of a run.

    Folding step 0 and epoch 0 into the same key would give both the same random numbers. Each kind
    of draw therefore folds its number into a key of its own name.

    Args:
        key: the base key of the run.
        name: the kind of draw; this package uses "init", "augment", "dropout" and "order".

    Returns:
        `fold_in(key, crc32(name))`, a PRNG key.

    >>> key = jax.random.key(0)
    >>> bool(named_key(key, "order") == named_key(key, "init"))
    False
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def check_labels(
    labels: jax.Array | np.ndarray,
    num_classes: int,
    *,
    mask: jax.Array | np.ndarray | None = None,
) -> None:
    """Checks that every label names a class.

    Args:
        labels: integer [N].
        num_classes: the classes are 0 to num_classes - 1.
        mask: bool [N]; False rows may hold anything. None checks every row.

    Raises:
        DataFormatError: a label is out of range, or the labels are not integers.

    >>> check_labels(np.array([0, 9]), num_classes=10)
    """
    values = np.asarray(labels)
    if not np.issubdtype(values.dtype, np.integer):
        raise DataFormatError(f"expected labels of an integer dtype, found {values.dtype}")
    wrong = (values < 0) | (values >= num_classes)
    if mask is not None:
        wrong &= np.asarray(mask)
    if wrong.any():
        index = int(wrong.argmax())
        raise DataFormatError(
            f"expected labels from 0 to {num_classes - 1}, found {values[index]} at index {index} "
            f"({wrong.sum()} of {len(values)} labels are out of range)"
        )


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns the number of batches that hold every example once, the last one padded if needed.

    Args:
        num_examples: number of images, >= 1.
        batch_size: images per batch, >= 1 and at most `num_examples`.

    Raises:
        ConfigError: `batch_size` is out of bounds.

    >>> steps_per_epoch(60_000, 128)
    469
    """
    if not 1 <= batch_size <= num_examples:
        raise ConfigError(
            f"batch_size must be >= 1 and at most the number of images, {num_examples}, "
            f"found {batch_size}"
        )
    return -(-num_examples // batch_size)


def epoch_order(
    key: jax.Array, epoch: int | jax.Array, num_examples: int, batch_size: int
) -> jax.Array:
    """Draws the order in which an epoch visits the images.

    It is a pure function of its arguments; `num_examples` and `batch_size` are static under `jit`.

    Args:
        key: the base key of the run, as passed to `create_train_state`.
        epoch: number of the epoch, int32 scalar, counted from 0.
        num_examples: number of images.
        batch_size: images per batch.

    Returns:
        int32 [steps, batch_size]: every index from 0 to num_examples - 1 exactly once, then -1
        to the end of the last row.

    Raises:
        ConfigError: `batch_size` is less than 1 or more than `num_examples`.

    >>> order = epoch_order(jax.random.key(0), epoch=0, num_examples=5, batch_size=2)
    >>> order.shape, sorted(order.ravel().tolist())
    ((3, 2), [-1, 0, 1, 2, 3, 4])
    """
    steps = steps_per_epoch(num_examples, batch_size)
    epoch_key = jax.random.fold_in(named_key(key, "order"), epoch)
    permutation = jax.random.permutation(epoch_key, num_examples)
    return _pad_to_rows(permutation.astype(jnp.int32), steps, batch_size)


def sequential_order(num_examples: int, batch_size: int) -> jax.Array:
    """Returns the indices of all images in order, one batch per row, for use with `take_batch`.

    Args:
        num_examples: number of images, >= 1.
        batch_size: images per batch, >= 1; more than `num_examples` gives one padded row.

    Returns:
        int32 [steps, batch_size]: 0, 1, ..., num_examples - 1, then -1 to the end of the last row.

    Raises:
        ConfigError: a number is less than 1.

    >>> sequential_order(3, 2).tolist()
    [[0, 1], [2, -1]]
    """
    if batch_size < 1 or num_examples < 1:
        raise ConfigError(
            f"batch_size and the number of images must be >= 1, "
            f"found {batch_size} and {num_examples}"
        )
    steps = -(-num_examples // batch_size)
    return _pad_to_rows(jnp.arange(num_examples, dtype=jnp.int32), steps, batch_size)


def _pad_to_rows(indices: jax.Array, steps: int, batch_size: int) -> jax.Array:
    padding = steps * batch_size - len(indices)
    return jnp.pad(indices, (0, padding), constant_values=-1).reshape(steps, batch_size)


def take_batch(images: jax.Array, labels: jax.Array, indices: jax.Array) -> Batch:
    """Gathers one batch on the device.

    Args:
        images: [N, H, W, C] of any dtype.
        labels: int32 [N].
        indices: int32 [B], a row of `epoch_order` or `sequential_order`; -1 is a masked row.

    Returns:
        The batch; masked rows hold zero images and label 0.

    >>> images, labels = jnp.ones((3, 28, 28, 1)), jnp.array([7, 8, 9])
    >>> batch = jax.jit(take_batch)(images, labels, jnp.array([2, 0, -1]))
    >>> batch.labels.tolist(), batch.mask.tolist()
    ([9, 7, 0], [True, True, False])
    """
    return Batch(_take(images, indices), _take(labels, indices), indices >= 0)


def _take(array: jax.Array, indices: jax.Array) -> jax.Array:
    # Indices out of bounds read as 0, and so does -1 because it does not wrap around.
    rows = jnp.asarray(array).at[indices]
    return rows.get(mode="fill", fill_value=0, wrap_negative_indices=False)


def take_sharded_batch(
    images: jax.Array, labels: jax.Array, indices: jax.Array, *, mesh: Mesh
) -> Batch:
    """Gathers one batch from images that are divided over devices, each of which gets its rows.

    Every device looks up all indices among its own images, and a sum sends each row to the device
    that needs it, so that only one batch is sent and no device ever holds all images.

    Args:
        images: uint8 [N, H, W, C], the first axis divided over the mesh.
        labels: int32 [N], replicated.
        indices: int32 [B], divided over the mesh; -1 is a masked row.
        mesh: a mesh of one axis, whose size divides N and B.

    Returns:
        The batch of `take_batch`, its rows divided over the mesh.
    """
    (axis,) = mesh.axis_names
    rows = PartitionSpec(axis)

    def take(images: jax.Array, indices: jax.Array) -> jax.Array:
        wanted = jax.lax.all_gather(indices, axis, tiled=True)
        local = wanted - jax.lax.axis_index(axis) * len(images)
        found = _take(images, jnp.where(wanted >= 0, local, -1))
        # Only one device has other pixels than zeros, so that even uint8 cannot overflow.
        return jax.lax.psum_scatter(found, axis, tiled=True)

    exchange = jax.shard_map(take, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
    return Batch(exchange(images, indices), _take(labels, indices), indices >= 0)

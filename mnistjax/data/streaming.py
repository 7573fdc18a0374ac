"""Batches gathered in host memory by threads, for images that do not fit on a device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from mnistjax.data.batches import Batch, epoch_order, steps_per_epoch
from mnistjax.data.splits import Split

Item = TypeVar("Item")

# Number of batches, or of groups of batches, on their way to the device while one is in use.
AHEAD = 2


class Prefetched(Generic[Item]):
    """A sequence whose next items are made by threads while one is in use.

    >>> squares = Prefetched(lambda index: index**2, count=4)
    >>> [squares[index] for index in range(4)]
    [0, 1, 4, 9]
    """

    def __init__(self, make: Callable[[int], Item], count: int, *, ahead: int = AHEAD) -> None:
        """Makes nothing yet.

        Args:
            make: returns the item of an index; called by several threads at once.
            count: number of items.
            ahead: number of items that are made after the one that is asked for.
        """
        self._make, self._count, self._ahead = make, count, ahead
        self._pool = ThreadPoolExecutor(ahead, thread_name_prefix="mnistjax-batches")
        self._items: dict[int, Future[Item]] = {}

    def __getitem__(self, index: int) -> Item:
        """Returns an item, and drops all that are not among it and the next ones.

        Raises:
            Exception: what `make` raised for this item.
        """
        wanted = range(index, min(index + self._ahead + 1, self._count))
        self._items = {
            number: self._items.get(number) or self._pool.submit(self._make, number)
            for number in wanted
        }
        return self._items[index].result()

    def close(self) -> None:
        """Ends the threads, after the items that they are making."""
        self._pool.shutdown(cancel_futures=True)


def gather(split: Split, indices: np.ndarray) -> Batch:
    """Gathers images and labels in host memory, as `take_batch` does on the device.

    Args:
        split: the images, which may be memory-mapped.
        indices: int32 of any shape; -1 is a masked row.

    Returns:
        A batch of NumPy arrays, whose first axes are those of `indices`.
    """
    mask = indices >= 0
    images = np.zeros((*indices.shape, *split.images.shape[1:]), split.images.dtype)
    labels = np.zeros(indices.shape, split.labels.dtype)
    images[mask] = split.images[indices[mask]]
    labels[mask] = split.labels[indices[mask]]
    return Batch._make((images, labels, mask))


def stream_batches(
    split: Split, batch_size: int, *, key: jax.Array, epoch: int, start: int = 0
) -> Iterator[Batch]:
    """Yields the batches of an epoch from host memory, for data that does not fit on the device.

    The batches are those of `epoch_order` and `take_batch`. Threads gather the next two batches and
    send them to the device while the current one is in use.

    Args:
        split: the images, which may be memory-mapped.
        batch_size: images per batch.
        key: the base key of the run.
        epoch: number of the epoch, counted from 0.
        start: the first step to yield; a resumed run starts in the middle of an epoch.

    Returns:
        An iterator over the batches, on the default device.

    Raises:
        ConfigError: `batch_size` is less than 1 or more than the number of images. It is raised by
            the call itself, before the first batch is requested.

    >>> split = Split(np.zeros((3, 28, 28, 1), np.uint8), np.array([7, 8, 9], np.int32))
    >>> batches = stream_batches(split, batch_size=2, key=jax.random.key(0), epoch=0)
    >>> [batch.mask.tolist() for batch in batches]
    [[True, True], [True, False]]
    """
    steps_per_epoch(len(split), batch_size)
    order = np.asarray(_jitted_epoch_order(key, epoch, len(split), batch_size))
    return _yield_batches(split, order[start:])


_jitted_epoch_order = functools.partial(jax.jit, static_argnums=(2, 3))(epoch_order)


def _yield_batches(split: Split, order: np.ndarray) -> Iterator[Batch]:
    def make(step: int) -> Any:
        return Batch(*jax.device_put(tuple(gather(split, order[step]))))

    batches = Prefetched(make, len(order))
    try:
        for step in range(len(order)):
            yield batches[step]
    finally:
        batches.close()

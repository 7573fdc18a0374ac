"""The moving average of the weights, and the batch statistics that belong to it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mnistjax.data import Batch, take_batch
from mnistjax.models import Model, PyTree, Variables
from mnistjax.training.pixels import scale_pixels

# A start so much larger than any statistic that its remaining weight in a running average can be
# computed to float32 precision.
_FAR = 2.0**40


def ema_decay_at(decay: float | jax.Array, step: int | jax.Array) -> jax.Array:
    r"""Returns the decay of the moving average at one step, which is smaller early in training.

    $$d_t = \min\left(d, \frac{1 + t}{10 + t}\right)$$

    as in TensorFlow's `ExponentialMovingAverage` with `num_updates`
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage). With a constant
    decay of 0.999, the random initial parameters would still have a weight of 0.37 after 1,000
    steps; here it is less than 10^-21.

    Args:
        decay: the decay after many steps, from 0 to 1.
        step: number of updates before this one.

    Returns:
        float32 [].

    >>> [round(float(ema_decay_at(0.999, step)), 3) for step in (0, 90, 100_000)]
    [0.1, 0.91, 0.999]
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + step) / (10 + step))


def make_batch_stats_fn(
    model: Model, *, take: Callable[[jax.Array, jax.Array, jax.Array], Batch] = take_batch
) -> Callable[[Variables, jax.Array, jax.Array], PyTree]:
    """Makes a function that recomputes batch statistics, which averaged weights need.

    The running statistics kept in training belong to the latest weights. Averaged weights have
    different activations, so with those statistics a network may be no better than chance (Izmailov
    et al., 2018, https://arxiv.org/abs/1803.05407, section 3.2).

    Args:
        model: the network. Its statistics must be exponential moving averages of any momentum, as
            those of batch normalization are.
        take: `(images, labels, indices) -> batch`, gathers a batch on the device.

    Returns:
        A pure function `(variables, images, order) -> batch_stats`, with images uint8 or float
        [N, H, W, C] and order int32 [steps, B] from `sequential_order` or `epoch_order`. It runs
        the network in training mode, without augmentation, and returns the mean of the statistics
        of the batches, weighted by their numbers of images. For a network without statistics it
        returns an empty dict, and for an order without images the statistics in `variables`.
    """

    def batch_stats_fn(variables: Variables, images: jax.Array, order: jax.Array) -> PyTree:
        stats = variables["batch_stats"]
        if not jax.tree.leaves(stats):
            return stats
        labels = jnp.zeros(len(images), jnp.int32)

        def add(total: PyTree, indices: jax.Array) -> tuple[PyTree, None]:
            batch = take(images, labels, indices)
            count = jnp.sum(batch.mask, dtype=jnp.float32)
            found = _batch_statistics(model, variables, scale_pixels(batch.images), batch.mask)
            weighed = jax.tree.map(
                lambda total, value: total + jnp.where(count > 0, count * value, 0.0), total, found
            )
            return weighed, None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, stats), order)
        count = jnp.sum(order >= 0, dtype=jnp.float32)
        return jax.tree.map(
            lambda total, old: jnp.where(count > 0, total / jnp.maximum(count, 1), old),
            total,
            stats,
        )

    return batch_stats_fn


def _batch_statistics(
    model: Model, variables: Variables, images: jax.Array, mask: jax.Array
) -> PyTree:
    """Returns the statistics of one batch alone, computed from updates of running averages.

    The momentum `m` of a running average `m * start + (1 - m) * batch` is unknown, but follows from
    its values for two starts. The value for a start of 0 is then divided by `1 - m`, like the bias
    correction of Adam.
    """
    # The same key for every batch, so that the result depends on the arguments alone.
    key = jax.random.key(0)

    def update(start: jax.Array) -> PyTree:
        stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), variables["batch_stats"])
        variables_then = {"params": variables["params"], "batch_stats": stats}
        return model.apply(variables_then, images, train=True, key=key, mask=mask)[1]

    # Under vmap, all arithmetic that does not depend on the start is computed once.
    both = jax.vmap(update)(jnp.array([0.0, _FAR], jnp.float32))
    return jax.tree.map(lambda leaf: leaf[0] / (1 - (leaf[1] - leaf[0]) / _FAR), both)

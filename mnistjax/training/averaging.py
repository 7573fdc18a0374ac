"""The moving average of the weights, and the batch statistics that belong to it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mnistjax.data import take_batch
from mnistjax.models import Model, PyTree, Variables
from mnistjax.training.pixels import scale_pixels

# So far from every statistic that, where a running average started from here, what the start still
# weighs can be read off to float32 precision.
_FAR = 2.0**40


def ema_decay_at(decay: float | jax.Array, step: int | jax.Array) -> jax.Array:
    r"""Returns the decay of the moving average at one step, smaller at the start of the training.

    $$d_t = \min\left(d, \frac{1 + t}{10 + t}\right)$$

    as TensorFlow's `ExponentialMovingAverage` has it with `num_updates`
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage). With a constant
    decay of 0.999 the random start would still weigh 0.37 after 1,000 steps; here it weighs less
    than 10^-21.

    Args:
        decay: the decay of a long training, from 0 to 1.
        step: number of updates before this one.

    Returns:
        float32 [].

    >>> [round(float(ema_decay_at(0.999, step)), 3) for step in (0, 90, 100_000)]
    [0.1, 0.91, 0.999]
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + step) / (10 + step))


def make_batch_stats_fn(model: Model) -> Callable[[Variables, jax.Array, jax.Array], PyTree]:
    """Makes the function that computes batch statistics anew, for weights that never had their own.

    The running statistics of a training belong to its latest weights. Averaged weights have other
    activations, so with those statistics a network may be no better than chance (Izmailov et al.,
    2018, https://arxiv.org/abs/1803.05407, section 3.2).

    Args:
        model: the network. Its statistics must be exponential averages, each of a momentum that may
            be anything, as batch normalization keeps them.

    Returns:
        A pure function `(variables, images, order) -> batch_stats` of images uint8 or float
        [N, H, W, C] and the rows of `order`, int32 [steps, B] as `sequential_order` or
        `epoch_order` give it. It runs the network in training mode, without augmentation, and
        returns the mean of the statistics of the batches, each weighed by its number of images.
        A network without statistics gives what it has: an empty dict. Statistics of an `order`
        without any image are those that came in.
    """

    def batch_stats_fn(variables: Variables, images: jax.Array, order: jax.Array) -> PyTree:
        stats = variables["batch_stats"]
        if not jax.tree.leaves(stats):
            return stats
        labels = jnp.zeros(len(images), jnp.int32)

        def add(total: PyTree, indices: jax.Array) -> tuple[PyTree, None]:
            batch = take_batch(images, labels, indices)
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
    """The statistics of one batch alone, from what running averages become that meet it.

    A running average `m * start + (1 - m) * batch` keeps its momentum `m` to itself. Two starts
    give it away, and what is left is divided by `1 - m`, as Adam corrects its bias.
    """
    # The same draws of dropout for every batch: the result shall follow from the arguments alone.
    key = jax.random.key(0)

    def update(start: jax.Array) -> PyTree:
        stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), variables["batch_stats"])
        variables_then = {"params": variables["params"], "batch_stats": stats}
        return model.apply(variables_then, images, train=True, key=key, mask=mask)[1]

    # Under vmap, what does not depend on the start (all the arithmetic) is computed once.
    both = jax.vmap(update)(jnp.array([0.0, _FAR], jnp.float32))
    return jax.tree.map(lambda leaf: leaf[0] / (1 - (leaf[1] - leaf[0]) / _FAR), both)

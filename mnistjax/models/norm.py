"""Batch normalization that is exact under masks and across devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last.

    `y = scale * (x - mean) / sqrt(var + epsilon) + bias`, as in Ioffe and Szegedy,
    https://arxiv.org/abs/1502.03167.

    `flax.linen.BatchNorm` averages the means of the devices, which is wrong if masks leave them
    with unequal counts. Here sums and counts are added over the devices before dividing, so the
    statistics are those of one device that sees the whole batch without its padding.

    Attributes:
        momentum: share of the old running statistics that each training batch keeps.
        epsilon: added to the variance.
        dtype: dtype of the output; parameters and statistics are always float32.

    Example:
        >>> import jax, mnistjax, numpy as np
        >>> norm, x = mnistjax.models.BatchNorm(), np.float32([[1], [3], [100]])
        >>> init = jax.jit(norm.init, static_argnames="train")
        >>> variables = init(jax.random.key(0), x, train=False)
        >>> apply = jax.jit(norm.apply, static_argnames=("train", "mutable"))
        >>> mask = np.array([True, True, False])
        >>> y, updates = apply(variables, x, train=True, mask=mask, mutable="batch_stats")
        >>> np.asarray(y)[:2, 0].round(2).tolist()
        [-1.0, 1.0]
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        """Normalizes activations.

        Args:
            x: activations, float [B, ..., F].
            **options: the keyword arguments of `normalizer`.

        Returns:
            Normalized activations [B, ..., F], of dtype `dtype`.
        """
        return self.normalizer([x], **options)(x)

    @nn.compact
    def normalizer(
        self,
        parts: Sequence[jax.Array],
        *,
        train: bool,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
        input_bias: jax.Array | float = 0.0,
    ) -> Callable[[jax.Array], jax.Array]:
        """Returns the function that normalizes by the statistics of a batch or the running ones.

        Args:
            parts: activations in one or several arrays of one shape, float [B, ..., F]; the
                statistics are those of all of them together.
            train: whether to use, and to record, the statistics of this batch.
            mask: bool [B]; False rows are left out of the statistics.
            axis_name: mapped axis over which the statistics are summed.
            input_bias: float [F]; normalizes `x + input_bias` without adding it to every
                activation. The batch statistics cancel it, so in training it affects only the
                running mean, and its gradient is exactly zero. If it were added, Adam would scale
                the rounding errors in its gradient up to full steps.

        Returns:
            A function of one part, which returns it normalized, [B, ..., F] of dtype `dtype`.
        """
        features = parts[0].shape[-1:]
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        if train:
            mean, var, count = batch_moments(parts, mask, axis_name)
            # A batch that is all padding leaves the running statistics as they are.
            keep = jnp.where(count > 0, jnp.float32(self.momentum), 1)
            running_mean.value = keep * running_mean.value + (1 - keep) * (mean + input_bias)
            running_var.value = keep * running_var.value + (1 - keep) * var
        else:
            mean, var = running_mean.value - input_bias, running_var.value
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        shift = bias - mean * gain
        return lambda part: (part * _align(gain, part) + _align(shift, part)).astype(self.dtype)


def batch_moments(
    parts: Sequence[jax.Array], mask: jax.Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes mean and variance over all axes but the last.

    Args:
        parts: activations in one or several arrays of one shape, float [B, ..., F].
        mask: bool [B] or None; False rows do not count.
        axis_name: mapped axis to sum over, or None.

    Returns:
        Mean and (biased) variance, float32 [F], and the number of values behind each, float32 [].
        Where that number is 0, mean and variance are 0.
    """
    parts = [part.astype(jnp.float32) for part in parts]
    batch, *inner, _ = parts[0].shape
    weights = jnp.ones(batch, jnp.float32) if mask is None else mask.astype(jnp.float32)
    weighting = weights.reshape(-1, *(1 for _ in inner), 1)
    axes = tuple(range(1 + len(inner)))
    sums = (
        sum(jnp.sum(part * weighting, axes) for part in parts),
        sum(jnp.sum(jnp.square(part) * weighting, axes) for part in parts),
        jnp.sum(weights) * (math.prod(inner) * len(parts)),
    )
    total, total_of_squares, count = jax.lax.psum(sums, axis_name) if axis_name else sums
    divisor = jnp.maximum(count, 1.0)
    mean = total / divisor
    return mean, jnp.maximum(total_of_squares / divisor - jnp.square(mean), 0.0), count


def _align(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Reshapes `vector` [F] to [1, ..., 1, F], of the rank of `like`, to broadcast against it."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,))

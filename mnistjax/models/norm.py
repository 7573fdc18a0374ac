"""Batch normalisation that is exact under masks and across devices."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# An array [B, ..., F], or a list of arrays of one shape that are parts of one batch.
Activations = Any


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, 2015) over the last axis.

    Flax's own averages the means of the devices, which is wrong as soon as masks leave them
    unequal counts. Here sums are added up and divided by the added counts: the statistics are those
    of one device that saw the whole batch without its padding.

    Attributes:
        momentum: share of the old running statistics that each training batch keeps.
        epsilon: added to the variance.
        dtype: dtype of the output; the statistics are always float32.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Activations,
        *,
        train: bool,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
        input_bias: jax.Array | float = 0.0,
    ) -> Activations:
        """Normalises `x` [B, ..., F] by the batch (`train`) or by the running statistics.

        Args:
            x: activations, or a list of arrays of one shape that are parts of them (the pixels of
                pooling windows): their statistics are common.
            train: whether to use, and to record, the statistics of this batch.
            mask: bool [B]; False rows are left out of the statistics.
            axis_name: mapped axis over which the statistics are summed.
            input_bias: [F], normalises `x + input_bias` without adding it to every activation: in
                the batch's own statistics it cancels out, and only the running mean knows it. Its
                gradient is exactly zero, not rounding errors that Adam would blow up to steps.
        """
        features = jax.tree.leaves(x)[0].shape[-1:]
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "var", jnp.ones, features)
        if train:
            mean, var, count = batch_moments(x, mask, axis_name)
            # A batch that is all padding leaves the running statistics as they are.
            keep = jnp.where(count > 0, self.momentum, 1.0)
            running_mean.value = keep * running_mean.value + (1 - keep) * (mean + input_bias)
            running_var.value = keep * running_var.value + (1 - keep) * var
        else:
            mean, var = running_mean.value - input_bias, running_var.value
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        shift = bias - mean * gain

        def normalise(part: jax.Array) -> jax.Array:
            return (part * lift(gain, part) + lift(shift, part)).astype(self.dtype)

        return jax.tree.map(normalise, x)


def batch_moments(
    x: Activations, mask: jax.Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns float32 mean and (biased) variance [F] of `x` [B, ..., F] over all but its last axis.

    The third is the count that they stem from; where it is 0, both are 0.

    Args:
        x: activations, or a list of arrays of one shape that are parts of them.
        mask: bool [B] or None; False rows do not count.
        axis_name: mapped axis to sum over, or None.
    """
    parts = [part.astype(jnp.float32) for part in jax.tree.leaves(x)]
    batch, *inner, _ = parts[0].shape
    weights = jnp.ones(batch) if mask is None else mask.astype(jnp.float32)
    weigh = weights.reshape(-1, *(1 for _ in inner), 1)
    axes = tuple(range(1 + len(inner)))
    sums = (
        sum(jnp.sum(part * weigh, axes) for part in parts),
        sum(jnp.sum(jnp.square(part) * weigh, axes) for part in parts),
        jnp.sum(weights) * (math.prod(inner) * len(parts)),
    )
    total, total_of_squares, count = jax.lax.psum(sums, axis_name) if axis_name else sums
    divisor = jnp.maximum(count, 1.0)
    mean = total / divisor
    return mean, jnp.maximum(total_of_squares / divisor - jnp.square(mean), 0.0), count


def lift(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Returns `vector` [F] as [1, ..., 1, F], of the rank of `like`."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,))

"""Dense layers and biases whose gradients are summed in float32, whatever the arithmetic."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a bias along the last axis, with a gradient that is summed in the dtype of the bias.

    Added in bfloat16, a bias would get a gradient that is summed over batch and pixels in bfloat16,
    where a sum of ones stops at 256.

    Args:
        x: float [..., F].
        bias: float32 [F].

    Returns:
        float [..., F], of the dtype of `x`.
    """
    shape = (1,) * (x.ndim - 1) + bias.shape
    return (x.astype(bias.dtype) + bias.reshape(shape)).astype(x.dtype)


class Dense(nn.Module):
    """A dense layer like `flax.linen.Dense`, with float32 parameters and a bias of `add_bias`.

    Attributes:
        features: number of outputs.
        dtype: dtype of the product and of the result.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps `inputs` [..., N] to [..., features] of dtype `dtype`."""
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return add_bias(inputs.astype(self.dtype) @ kernel.astype(self.dtype), bias)

"""Dense networks: softmax regression and the multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnistjax.models.layers import Dense


class MLP(nn.Module):
    """Multi-layer perceptron: dense layers with ReLU and dropout, then a dense output layer.

    Attributes:
        features: widths of the hidden layers; empty for softmax (logistic) regression.
        num_classes: width of the output.
        dropout: dropout rate after each hidden layer (Srivastava et al.,
            https://jmlr.org/papers/v15/srivastava14a.html).
        dtype: dtype of the arithmetic; parameters stay float32.

    Example:
        >>> import jax, mnistjax
        >>> network, images = mnistjax.models.MLP(features=(8,)), jax.numpy.zeros((2, 4, 4, 1))
        >>> init = jax.jit(network.init_with_output, static_argnames="train")
        >>> logits, variables = init(jax.random.key(0), images, train=False)
        >>> logits.shape
        (2, 10)
    """

    features: Sequence[int] = (100,)
    num_classes: int = 10
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> jax.Array:
        """Returns logits [B, num_classes] of `images` [B, H, W, C]; the last two are ignored."""
        del mask, axis_name
        x = images.reshape(images.shape[0], -1)
        for width in self.features:
            x = nn.relu(Dense(width, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.num_classes, dtype=self.dtype)(x)

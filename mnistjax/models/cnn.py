"""Convolutional networks: one module, whose variants are settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnistjax.models.norm import BatchNorm, lift
from mnistjax.models.ops import conv, conv_pool, conv_windows, max_pool, max_windows


class Stage(nn.Module):
    """Convolution, batch normalisation if asked for, ReLU, max pooling if asked for, dropout.

    Bias and ReLU are monotonic, so pooling before them gives the same numbers and leaves them a
    quarter of the work. Batch normalisation is not (its gain may be negative): it comes first.

    Attributes:
        features: number of output channels.
        kernel_size: height and width of the kernel.
        padding: "SAME" or "VALID".
        batch_norm: whether to normalise before the ReLU.
        pool: side and stride of the pooling window; 1 is no pooling.
        dropout: rate at the end of the stage.
        dtype: dtype of the arithmetic; parameters stay float32.
    """

    features: int
    kernel_size: int = 3
    padding: Literal["SAME", "VALID"] = "SAME"
    batch_norm: bool = False
    pool: int = 1
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> jax.Array:
        """Maps `x` [B, H, W, C] to [B, H' // pool, W' // pool, features]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = x.astype(self.dtype)
        if self.batch_norm:
            norm = BatchNorm(dtype=self.dtype, name="norm")
            normalise = partial(norm, train=train, mask=mask, axis_name=axis_name, input_bias=bias)
            if train and self._pools_every_pixel(x):
                x = max_windows(normalise(conv_windows(x, kernel, padding=self.padding)))
            else:
                x = max_pool(normalise(conv(x, kernel, padding=self.padding)), self.pool)
        else:
            if self.pool == 2:
                x = conv_pool(x, kernel, padding=self.padding)
            else:
                x = max_pool(conv(x, kernel, padding=self.padding), self.pool)
            x = x + lift(bias.astype(self.dtype), x)
        return nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))

    def _pools_every_pixel(self, x: jax.Array) -> bool:
        """Whether 2x2 windows leave none out: the statistics of a batch are those of all pixels."""
        lost = 0 if self.padding == "SAME" else self.kernel_size - 1
        return self.pool == 2 and all((side - lost) % 2 == 0 for side in x.shape[1:3])


class CNN(nn.Module):
    """Convolutional stages, flatten, dense layers with ReLU, and a dense layer to the classes.

    Attributes:
        features: channels of each stage.
        pools: pooling of each stage, as long as `features`; 1 is none.
        kernel_sizes: kernel side of each stage, as long as `features`.
        padding: of every convolution, "SAME" or "VALID".
        batch_norm: whether every stage normalises.
        stage_dropout: dropout rate after every stage.
        dense: widths of the dense layers after the stages.
        dropouts: dropout rate after the flattening and after each dense layer: one more than
            `dense` has.
        num_classes: width of the output.
        dtype: dtype of the arithmetic; parameters stay float32.
    """

    features: Sequence[int] = (32, 64)
    pools: Sequence[int] = (2, 2)
    kernel_sizes: Sequence[int] = (3, 3)
    padding: Literal["SAME", "VALID"] = "VALID"
    batch_norm: bool = False
    stage_dropout: float = 0.0
    dense: Sequence[int] = ()
    dropouts: Sequence[float] = (0.3,)
    num_classes: int = 10
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
        """Returns logits [B, num_classes] of `images` [B, H, W, C]."""
        x = images
        for width, size, pool in zip(self.features, self.kernel_sizes, self.pools, strict=True):
            x = Stage(
                width,
                size,
                padding=self.padding,
                batch_norm=self.batch_norm,
                pool=pool,
                dropout=self.stage_dropout,
                dtype=self.dtype,
            )(x, train=train, mask=mask, axis_name=axis_name)
        x = x.reshape(x.shape[0], -1)
        first, *rest = self.dropouts
        x = nn.Dropout(first, deterministic=not train)(x)
        for width, rate in zip(self.dense, rest, strict=True):
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
            x = nn.Dropout(rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x)

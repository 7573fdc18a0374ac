"""Convolutional networks, as one configurable module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnistjax.errors import ConfigError
from mnistjax.models.layers import Dense, add_bias
from mnistjax.models.norm import BatchNorm
from mnistjax.models.ops import conv_pool


class Stage(nn.Module):
    """Convolution, optional batch normalization, optional max pooling, ReLU and dropout.

    Bias and ReLU are monotonic, so applying them after max pooling gives the same numbers with a
    quarter of the work. Batch normalization comes before the pooling, because its scale may be
    negative. Dropout is that of Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html.

    Attributes:
        features: number of output channels.
        kernel_size: height and width of the kernel.
        padding: "SAME" or "VALID".
        stride: stride of the convolution, as for `mnistjax.ops.conv`.
        batch_norm: whether to normalize before the ReLU.
        pool: side and stride of the pooling window; 1 disables pooling.
        dropout: dropout rate at the end of the stage.
        dtype: dtype of the arithmetic; parameters stay float32.
    """

    features: int
    kernel_size: int = 3
    padding: Literal["SAME", "VALID"] = "SAME"
    stride: int = 1
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
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        normalizer: Callable[..., Any] | None = None
        if self.batch_norm:
            norm = BatchNorm(dtype=self.dtype, name="norm")
            normalizer = partial(
                norm.normalizer, train=train, mask=mask, axis_name=axis_name, input_bias=bias
            )
        x = conv_pool(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            padding=self.padding,
            stride=self.stride,
            pool=self.pool,
            between=normalizer,
            differentiated=train,
        )
        if not self.batch_norm:
            x = add_bias(x, bias)
        return nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))


def _middle(x: jax.Array, side: int) -> jax.Array:
    """Returns [B, min(H, side), min(W, side), C] of the middle of `x` [B, H, W, C]."""
    for axis in (1, 2):
        size = min(x.shape[axis], side)
        start = (x.shape[axis] - size) // 2
        x = jax.lax.slice_in_dim(x, start, start + size, axis=axis)
    return x


class CNN(nn.Module):
    """Convolutional stages, followed by dense layers with ReLU and a dense output layer.

    Attributes:
        features: channels of each stage.
        pools: side of the pooling window of each stage, as long as `features`; 1 disables pooling.
        kernel_sizes: side of the kernel of each stage, as long as `features`.
        padding: padding of every convolution, "SAME" or "VALID".
        crop_to: side of the square in the middle of the images that is used, in pixels; smaller
            images, and all if it is None, are used whole.
        first_stride: stride of the first convolution; that of the others is 1.
        batch_norm: whether every stage uses batch normalization.
        stage_dropout: dropout rate after every stage.
        dense: widths of the dense layers after the stages.
        dropouts: dropout rates after flattening and after each dense layer, one more than there
            are entries in `dense`.
        num_classes: width of the output.
        dtype: dtype of the arithmetic; parameters stay float32.

    Raises:
        ConfigError: the lengths of the attributes do not match.

    Example:
        >>> import jax, mnistjax
        >>> shape = {"features": (4,), "pools": (2,), "kernel_sizes": (3,), "num_classes": 3}
        >>> network = mnistjax.models.CNN(**shape)
        >>> images = jax.numpy.zeros((2, 6, 6, 1))
        >>> init = jax.jit(network.init_with_output, static_argnames="train")
        >>> logits, variables = init(jax.random.key(0), images, train=False)
        >>> logits.shape
        (2, 3)
    """

    features: Sequence[int] = (32, 64)
    pools: Sequence[int] = (2, 2)
    kernel_sizes: Sequence[int] = (3, 3)
    padding: Literal["SAME", "VALID"] = "VALID"
    crop_to: int | None = None
    first_stride: int = 1
    batch_norm: bool = False
    stage_dropout: float = 0.0
    dense: Sequence[int] = ()
    dropouts: Sequence[float] = (0.3,)
    num_classes: int = 10
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        """Checks that the lengths of the attributes match."""
        stages, pools, kernels = len(self.features), len(self.pools), len(self.kernel_sizes)
        if not stages == pools == kernels:
            raise ConfigError(
                "expected features, pools and kernel_sizes of one length, one entry per stage, "
                f"found features={self.features} ({stages}), pools={self.pools} ({pools}), "
                f"kernel_sizes={self.kernel_sizes} ({kernels})"
            )
        if len(self.dropouts) != len(self.dense) + 1:
            raise ConfigError(
                f"expected dropouts to be one longer than dense, found dropouts={self.dropouts} "
                f"({len(self.dropouts)}), dense={self.dense} ({len(self.dense)})"
            )
        super().__post_init__()

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
        x = images if self.crop_to is None else _middle(images, self.crop_to)
        stages = zip(self.features, self.kernel_sizes, self.pools, strict=True)
        for index, (features, size, pool) in enumerate(stages):
            x = Stage(
                features,
                size,
                padding=self.padding,
                stride=self.first_stride if index == 0 else 1,
                batch_norm=self.batch_norm,
                pool=pool,
                dropout=self.stage_dropout,
                dtype=self.dtype,
            )(x, train=train, mask=mask, axis_name=axis_name)
        x = x.reshape(x.shape[0], -1)
        first, *rest = self.dropouts
        x = nn.Dropout(first, deterministic=not train)(x)
        for width, rate in zip(self.dense, rest, strict=True):
            x = nn.relu(Dense(width, dtype=self.dtype)(x))
            x = nn.Dropout(rate, deterministic=not train)(x)
        return Dense(self.num_classes, dtype=self.dtype)(x)

"""Metrics as a monoid of sums, so that batches, epochs and devices add up exactly."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Metrics:
    """Sums over images, from which every figure follows.

    Attributes:
        loss_sum: float32 [], sum of the cross-entropies in nats.
        confusion: int32 [num_classes, num_classes], images by true class (row) and predicted class
            (column).
    """

    loss_sum: jax.Array
    confusion: jax.Array

    @classmethod
    def empty(cls, num_classes: int) -> Metrics:
        """Returns the metrics of no image at all."""
        return cls(jnp.zeros(()), jnp.zeros((num_classes, num_classes), jnp.int32))

    @classmethod
    def from_logits(cls, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Metrics:
        """Returns the metrics of one batch.

        Args:
            logits: float [B, num_classes].
            labels: int [B], from 0 to num_classes - 1.
            mask: bool [B]; False rows count for nothing.

        Raises:
            ValueError: the three do not belong to one batch.
        """
        if not logits.shape[:1] == labels.shape == mask.shape:
            raise ValueError(
                "expected logits [B, classes], labels [B] and mask [B], "
                f"got {logits.shape}, {labels.shape} and {mask.shape}"
            )
        log_probabilities = jax.nn.log_softmax(logits)
        truth = jax.nn.one_hot(labels, logits.shape[-1]) * mask[:, None]
        guess = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])
        # A product of one-hot matrices counts pairs, and is faster than a scatter everywhere.
        confusion = jnp.round(truth.T @ guess).astype(jnp.int32)
        # where, not *: a masked row may hold anything, infinities included.
        losses = jnp.where(truth > 0, -log_probabilities, 0.0)
        return cls(jnp.sum(losses), confusion)

    def merge(self, other: Metrics) -> Metrics:
        """Returns the metrics of the images of both."""
        return jax.tree.map(jnp.add, self, other)

    @property
    def count(self) -> jax.Array:
        """Number of images, int32 []."""
        return jnp.sum(self.confusion, (-2, -1))

    @property
    def correct(self) -> jax.Array:
        """Number of images whose class was predicted, int32 []."""
        return jnp.trace(self.confusion, axis1=-2, axis2=-1)

    def compute(self) -> dict[str, jax.Array]:
        """Returns mean `loss` in nats and `accuracy` in [0, 1]; both are NaN for no image."""
        return {"loss": self.loss_sum / self.count, "accuracy": self.correct / self.count}

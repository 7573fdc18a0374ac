"""Metrics as sums, which can be added over batches, epochs and devices."""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import check_labels


@flax.struct.dataclass
class Metrics:
    """Sums over images, from which the loss, the accuracy and per-class rates are computed.

    Attributes:
        loss_sum: float32 [], sum of the cross-entropies in nats.
        confusion: int32 [num_classes, num_classes], number of images by true class (row) and
            predicted class (column).

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]]))
    >>> metrics = Metrics.from_logits(logits, jnp.array([0, 0, 1]), jnp.array([True, False, True]))
    >>> metrics = Metrics.empty(num_classes=2).merge(metrics)
    >>> metrics.confusion.tolist()
    [[1, 0], [0, 1]]
    >>> metrics.summary()["accuracy"]
    1.0
    """

    loss_sum: jax.Array
    confusion: jax.Array

    @classmethod
    def empty(cls, num_classes: int) -> Metrics:
        """Returns the metrics of zero images."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((num_classes, num_classes), jnp.int32))

    @classmethod
    def from_logits(cls, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Metrics:
        r"""Computes the metrics of one batch, with the softmax cross-entropy as the loss.

        For logits $z$ and label $y$, it is $$\ell = \log \sum_k \exp z_k - z_y.$$

        Args:
            logits: float [B, num_classes].
            labels: integer [B], from 0 to num_classes - 1.
            mask: bool [B]; False rows are ignored and may hold anything.

        Returns:
            The sums over the rows whose mask is True. Under `jit` and other transforms, where
            labels cannot be checked, a label out of range makes the loss NaN.

        Raises:
            ValueError: the shapes of the arguments do not match.
            DataFormatError: a label is out of range.
        """
        if not logits.shape[:1] == labels.shape == mask.shape:
            raise ValueError(
                "expected logits [B, classes], labels [B] and mask [B], "
                f"got {logits.shape}, {labels.shape} and {mask.shape}"
            )
        if _is_known(labels) and _is_known(mask):
            check_labels(labels, logits.shape[-1], mask=mask)
        return cls(*_sums(logits, labels, mask))

    def merge(self, other: Metrics) -> Metrics:
        """Returns the metrics of the images of both together."""
        return jax.tree.map(jnp.add, self, other)

    def total(self) -> Metrics:
        """Returns the sum of metrics that are stacked along a first axis."""
        return jax.tree.map(lambda leaf: jnp.sum(leaf, 0, dtype=leaf.dtype), self)

    @property
    def count(self) -> jax.Array:
        """Number of images, int32 []."""
        return jnp.sum(self.confusion, (-2, -1), dtype=jnp.int32)

    @property
    def correct(self) -> jax.Array:
        """Number of images whose class was predicted, int32 []."""
        return jnp.trace(self.confusion, axis1=-2, axis2=-1, dtype=jnp.int32)

    def compute(self) -> dict[str, jax.Array]:
        """Returns mean `loss` in nats and `accuracy` in [0, 1], float32 []; NaN without images."""
        count = self.count.astype(jnp.float32)
        return {"loss": self.loss_sum / count, "accuracy": self.correct / count}

    def summary(self) -> dict[str, float]:
        """Returns mean `loss` in nats and `accuracy` in [0, 1] as Python floats.

        The accuracy is computed in double precision, so 9,288 of 10,000 gives exactly 0.9288. Both
        are NaN if there are no images.

        >>> Metrics(jnp.float32(3), jnp.array([[9288, 712], [0, 0]])).summary()
        {'loss': 0.0003, 'accuracy': 0.9288}
        """
        confusion = np.asarray(self.confusion, np.int64)
        count = int(confusion.sum())
        if count == 0:
            return {"loss": float("nan"), "accuracy": float("nan")}
        correct = int(np.trace(confusion))
        return {"loss": float(self.loss_sum) / count, "accuracy": correct / count}


# Jitted so that an eager call compiles one program; inlined into the program of a jitted caller.
@functools.partial(jax.jit, inline=True)
def _sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns `loss_sum` and `confusion` of one batch; see `Metrics.from_logits`."""
    num_classes = logits.shape[-1]
    log_probabilities = jax.nn.log_softmax(logits)
    truth, unknown = one_hot_labels(labels, mask, num_classes)
    truth = truth * mask[:, None]
    guess = jax.nn.one_hot(jnp.argmax(logits, -1), num_classes, dtype=jnp.float32)
    # A product of one-hot matrices counts the pairs, faster than a scatter on every platform.
    confusion = jnp.round(truth.T @ guess).astype(jnp.int32)
    # `where` instead of `*`, because a masked row may hold infinities.
    losses = jnp.where(truth > 0, -log_probabilities, 0.0)
    loss_sum = jnp.where(jnp.any(unknown), jnp.nan, jnp.sum(losses))
    return loss_sum.astype(jnp.float32), confusion


def one_hot_labels(
    labels: jax.Array, mask: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Returns one-hot labels, and which of the unmasked labels are out of range.

    Args:
        labels: integer [B].
        mask: bool [B].
        num_classes: the classes are 0 to num_classes - 1.

    Returns:
        float32 [B, num_classes], zeros where the label is out of range, and bool [B].
    """
    # At least 32 bits, because uint8 labels are compared with class numbers that may exceed 255.
    wide = jnp.asarray(labels).astype(jnp.promote_types(labels.dtype, jnp.int32))
    rows = jax.nn.one_hot(wide, num_classes, dtype=jnp.float32)
    return rows, mask & (jnp.sum(rows, -1) == 0)


def _is_known(array: jax.Array) -> bool:
    """Returns whether the values are available: outside any transform, and on this host."""
    if isinstance(array, jax.core.Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable

"""Gradients of a batch that is taken in pieces, which need less memory and stay in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mnistjax.data import Batch
from mnistjax.models import PyTree
from mnistjax.training.transforms import vary_like

MicrobatchSize = int | Callable[[float], int] | None

# `(params, batch, key) -> (loss, auxiliary)`, where losses of pieces of a batch add up.
LossFn = Callable[[PyTree, Batch, jax.Array], tuple[jax.Array, Any]]


def gradient_in_pieces(
    loss_fn: LossFn, params: PyTree, batch: Batch, key: jax.Array, *, size: MicrobatchSize
) -> tuple[PyTree, Any, int]:
    """Computes the gradient of a batch, at once or as the sum over pieces of it.

    Args:
        loss_fn: `(params, batch, key) -> (loss, auxiliary)`. The loss of the batch is the sum of
            the losses of its pieces.
        params: parameters to differentiate by.
        batch: the whole batch of B rows.
        key: key of the random draws; a piece folds its number into it.
        size: most rows in a piece; or a function that returns it, given how many bytes per row the
            forward pass keeps for the backward pass; or None, to take the whole batch at once.

    Returns:
        The gradient, the auxiliary results of the pieces, stacked, and the number of pieces. If it
        is 1, the auxiliary results are not stacked.
    """
    rows = batch.mask.shape[0]
    if not isinstance(size, int):
        # Traced for the whole batch: if that turns out too large, the compiler drops it again.
        loss, backward, auxiliary = jax.vjp(
            lambda params: loss_fn(params, batch, key), params, has_aux=True
        )
        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))
        size = rows if size is None else size(kept / rows)
        if rows <= size:
            (gradient,) = backward(jnp.ones_like(loss))
            return gradient, auxiliary, 1
    pieces = -(-rows // size)
    if pieces == 1:
        return *jax.grad(loss_fn, has_aux=True)(params, batch, key), 1

    def add(total: PyTree, piece: tuple[jax.Array, Batch]) -> tuple[PyTree, Any]:
        number, part = piece
        gradient, auxiliary = jax.grad(loss_fn, has_aux=True)(
            params, part, jax.random.fold_in(key, number)
        )
        return jax.tree.map(jnp.add, total, gradient), auxiliary

    # Else JAX may sum the gradient of each piece over the devices, rather than that of the batch.
    params = vary_like(params, batch.mask)
    zeros = vary_like(jax.tree.map(jnp.zeros_like, params), batch.mask)
    numbered = jnp.arange(pieces), _cut(batch, pieces)
    gradient, auxiliary = jax.lax.scan(add, zeros, numbered)
    return gradient, auxiliary, pieces


def _cut(batch: Batch, pieces: int) -> Batch:
    """Returns the batch with the pieces along a new first axis; the last rows may be padding.

    Row r is in piece r % pieces, so that every device has a share of every piece if the rows are
    divided over devices.
    """
    rows = batch.mask.shape[0]
    missing = -rows % pieces

    def cut(leaf: jax.Array) -> jax.Array:
        leaf = jnp.pad(leaf, [(0, missing), *((0, 0) for _ in leaf.shape[1:])])
        return leaf.reshape(-1, pieces, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)

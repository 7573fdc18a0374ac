"""The train step, the evaluation step, and the loop over batches that compiles as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mnistjax.data import Augment, Batch, take_batch
from mnistjax.models import Model, PyTree, Variables
from mnistjax.training.metrics import Metrics
from mnistjax.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[Variables, Batch], Metrics]


def scale_pixels(images: jax.Array) -> jax.Array:
    """Returns float32 images: integers 0 to 255 are scaled to [0, 1], floats stay as they are."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / 255


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    label_smoothing: float = 0.0,
    ema_decay: float | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Makes one pure, un-jitted update: `jit`, `vmap`, `pmap`, `scan` or a mesh are the caller's.

    The loss is the mean cross-entropy over the rows whose mask is set. Under `axis_name`, sums are
    added over the devices and divided by the added counts, so that uneven masks weigh right.

    Args:
        model: the network.
        optimizer: an optax optimizer; the step closes over it.
        augment: random change of the images, drawn anew in each step.
        label_smoothing: share of the target that is spread evenly over all classes.
        ema_decay: decay a step of the moving average of the parameters. The state must then have
            been created with `ema=True`.
        axis_name: name of the mapped axis over which the batch is divided, as in `pmap`.

    Returns:
        `(state, batch) -> (state, metrics)`. The metrics are those of the whole batch, before the
        update, of the plain cross-entropy. It raises ValueError for a state that keeps a moving
        average where the step does not, or the other way round.
    """

    def total(tree: PyTree) -> PyTree:
        return jax.lax.psum(tree, axis_name) if axis_name else tree

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if (ema_decay is None) != (state.ema_params is None):
            raise ValueError(
                f"expected a state with ema={ema_decay is not None}, as ema_decay is {ema_decay}"
            )
        augment_key, dropout_key = jax.random.split(_step_key(state, axis_name))
        images = scale_pixels(batch.images)
        if augment is not None:
            images = augment(images, key=augment_key)
        # An all-padding batch must give zero gradients, not 0 / 0.
        count = jnp.maximum(total(jnp.sum(batch.mask)), 1)

        def loss_fn(params: PyTree) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
            logits, batch_stats = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                key=dropout_key,
                mask=batch.mask,
                axis_name=axis_name,
            )
            losses = _cross_entropies(logits, batch.labels, label_smoothing)
            return jnp.sum(losses, where=batch.mask) / count, (logits, batch_stats)

        grads, (logits, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(total(grads), state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = None
        if ema_decay is not None:
            ema_params = optax.incremental_update(params, state.ema_params, 1 - ema_decay)
        metrics = total(Metrics.from_logits(logits, batch.labels, batch.mask))
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema_params=ema_params,
        )
        return new_state, metrics

    return train_step


def _cross_entropies(logits: jax.Array, labels: jax.Array, label_smoothing: float) -> jax.Array:
    """The loss of each row, float32 [B], in nats."""
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def _step_key(state: TrainState, axis_name: str | None) -> jax.Array:
    """The key of this step; devices that share a batch draw different numbers."""
    key = jax.random.fold_in(state.key, state.step)
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name)) if axis_name else key


def make_eval_step(model: Model, *, axis_name: str | None = None) -> EvalStep:
    """Makes the pure `(variables, batch) -> metrics` of a network that is not being trained."""

    def eval_step(variables: Variables, batch: Batch) -> Metrics:
        logits, _ = model.apply(variables, scale_pixels(batch.images))
        metrics = Metrics.from_logits(logits, batch.labels, batch.mask)
        return jax.lax.psum(metrics, axis_name) if axis_name else metrics

    return eval_step


def make_epoch_fn(train_step: TrainStep) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes the loop over the batches of an epoch, or of any stretch of one, to be compiled whole.

    Args:
        train_step: what `make_train_step` gave.

    Returns:
        `(state, metrics, images, labels, order, start, stop) -> (state, metrics)`: takes the steps
        `start` to `stop - 1` of `order` (int32 [steps, B], see `epoch_order`), gathering each batch
        from `images` [N, H, W, C] and `labels` [N] that stay on the device, and adds their metrics
        to those that came in. The bounds are traced, so stretches of every length share one
        compiled program, and an epoch in pieces gives the very bits of an epoch in one.
    """

    def epoch_fn(
        state: TrainState,
        metrics: Metrics,
        images: jax.Array,
        labels: jax.Array,
        order: jax.Array,
        start: jax.Array | int,
        stop: jax.Array | int,
    ) -> tuple[TrainState, Metrics]:
        def body(index: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = carry
            state, new = train_step(state, take_batch(images, labels, order[index]))
            return state, metrics.merge(new)

        return jax.lax.fori_loop(start, stop, body, (state, metrics))

    return epoch_fn


def make_eval_fn(eval_step: EvalStep) -> Callable[..., Metrics]:
    """Makes the compiled loop over a whole split.

    Args:
        eval_step: what `make_eval_step` gave.

    Returns:
        `(variables, images, labels, order) -> metrics`, with `order` int32 [steps, B] as
        `sequential_order` gives it: every image of the split counts exactly once.
    """

    def eval_fn(
        variables: Variables, images: jax.Array, labels: jax.Array, order: jax.Array
    ) -> Metrics:
        def evaluate_batch(indices: jax.Array) -> Metrics:
            return eval_step(variables, take_batch(images, labels, indices))

        return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), jax.lax.map(evaluate_batch, order))

    return eval_fn

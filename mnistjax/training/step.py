"""The train step, the evaluation step, and the loops over batches that compile as a whole."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnistjax.data import Augment, Batch, named_key, take_batch
from mnistjax.errors import ConfigError
from mnistjax.models import Model, PyTree, Variables
from mnistjax.training.averaging import ema_decay_at
from mnistjax.training.distillation import Teacher, distillation_loss
from mnistjax.training.metrics import Metrics, one_hot_labels
from mnistjax.training.microbatches import MicrobatchSize, gradient_in_pieces
from mnistjax.training.pixels import scale_pixels
from mnistjax.training.state import TrainState
from mnistjax.training.transforms import on_any_mesh, sum_gradients

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[Variables, Batch], Metrics]
TakeBatch = Callable[[jax.Array, jax.Array, jax.Array], Batch]


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    label_smoothing: float | jax.Array = 0.0,
    ema_decay: float | jax.Array | None = None,
    teacher: Teacher | None = None,
    distill_weight: float | jax.Array = 0.9,
    temperature: float | jax.Array = 2.0,
    microbatch_size: MicrobatchSize = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Makes a pure, un-jitted train step, which the caller transforms.

    The loss is the mean softmax cross-entropy over the rows whose mask is True. If the batch is
    divided over devices, sums and counts are added before dividing, so that uneven masks are
    weighted correctly. Use the step as follows:

    - one device: `jax.jit(step)`. A loop over batches: `make_epoch_fn(step)`.
    - many networks: `jax.vmap(step, in_axes=(0, None))`, on states of `vmap(create_train_state)`.
    - a mesh, `jax.make_mesh((4,), ("data",))`: `jax.jit(step)`, on a replicated state and a batch
      whose first axis is sharded by `jax.device_put`. It needs no `axis_name`, because the compiler
      divides the work, whether the axes of the mesh are explicit or automatic.
    - a mapped axis: `jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())`,
      `jax.pmap(step, axis_name="data")` or `jax.vmap` with an axis name, on a step made with
      `axis_name="data"`. The last two take a state and a part of the batch for each device,
      stacked; with `in_axes=(None, 0), out_axes=None` they take one state.

    Args:
        model: the network.
        optimizer: an optax optimizer; the step closes over it.
        augment: random change of the images, drawn anew in each step.
        label_smoothing: share s of the target that is spread evenly over all K classes,
            `(1 - s) * one_hot + s / K` (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567).
        ema_decay: decay per step of the moving average of the parameters, smaller in the first
            steps (`ema_decay_at`). The state must then have been created with `ema=True`.
        teacher: `(images) -> logits` of another network, which sees the same augmented images as
            the student (Beyer et al., 2022, https://arxiv.org/abs/2106.05237), without gradients.
            The loss is then `(1 - w) * cross-entropy + w * distillation_loss`. The step closes over
            it: make the step inside the jitted function where the weights of the teacher are to be
            arguments of the program instead of constants.
        distill_weight: w, from 0 to 1; used only with a teacher.
        temperature: of the softmax of teacher and student in `distillation_loss`, positive; used
            only with a teacher.
        microbatch_size: most rows for which gradients are computed at a time; those of the pieces
            of a batch are added up before the update, which is the same up to rounding. It saves
            memory, and time where a whole batch does not fit in the cache. Dropout draws anew for
            each piece. Under a mapped axis it counts the rows of one device. A function is given
            the number of bytes per row that the forward pass keeps for the backward pass, and
            returns the size. None takes the whole batch at once.
        axis_name: name of the mapped axis over which the batch is divided.

    Raises:
        ConfigError: `microbatch_size` is less than 1.

    Returns:
        `(state, batch) -> (state, metrics)`. The metrics are those of the whole batch before the
        update, with the cross-entropy without label smoothing and teacher. The step raises
        ValueError if only one of state and step keeps a moving average, if the logits of the
        teacher are of another shape, or if `microbatch_size` is given for a network with batch
        statistics, which are those of a whole batch. It raises DataFormatError if a label is out of
        range. In pieces and under a transform, where labels cannot be checked, such a label makes
        the loss and the parameters NaN instead.

    >>> from mnistjax.data import Batch
    >>> from mnistjax.models import create_model
    >>> from mnistjax.training import create_train_state
    >>> model, optimizer = create_model("softmax"), optax.sgd(0.1)
    >>> images = jnp.zeros((2, 28, 28, 1))
    >>> state = create_train_state(model, optimizer, images, key=jax.random.key(0))
    >>> step = jax.jit(make_train_step(model, optimizer))
    >>> state, metrics = step(state, Batch(images, jnp.array([3, 5]), jnp.array([True, True])))
    >>> int(state.step), round(metrics.summary()["loss"], 3)  # ln 10
    (1, 2.303)
    """
    if microbatch_size is not None and not callable(microbatch_size):
        microbatch_size = _check_size(microbatch_size)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if (ema_decay is None) != (state.ema_params is None):
            raise ValueError(
                f"expected a state with ema={ema_decay is not None}, as ema_decay is {ema_decay}"
            )
        images = scale_pixels(batch.images)
        if augment is not None:
            images = augment(images, key=_step_key(state, "augment", axis_name))
        batch = Batch(images, batch.labels, batch.mask)
        # An all-padding batch must give zero gradients, not 0 / 0.
        count = jnp.maximum(_sum(jnp.sum(batch.mask, dtype=jnp.int32), axis_name), 1)

        def loss_fn(
            params: PyTree, part: Batch, key: jax.Array
        ) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            logits, batch_stats = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                part.images,
                train=True,
                key=key,
                mask=part.mask,
                axis_name=axis_name,
            )
            losses = _cross_entropies(logits, part, label_smoothing)
            if teacher is not None:
                weight = jnp.asarray(distill_weight, jnp.float32)
                distances = distillation_loss(logits, teacher(part.images), temperature)
                losses = (1 - weight) * losses + weight * distances
            metrics = Metrics.from_logits(logits, part.labels, part.mask)
            return jnp.sum(losses, where=part.mask) / count, (metrics, batch_stats)

        size = _whole_if_normalized(microbatch_size, state)
        grads, (metrics, batch_stats), pieces = gradient_in_pieces(
            loss_fn, state.params, batch, _step_key(state, "dropout", axis_name), size=size
        )
        if pieces > 1:
            metrics, batch_stats = metrics.total(), state.batch_stats
        if axis_name:
            grads = sum_gradients(grads, of=batch.mask, axis_name=axis_name)
        new_state = _update(state, grads, optimizer, ema_decay)
        return dataclasses.replace(new_state, batch_stats=batch_stats), _sum(metrics, axis_name)

    return on_any_mesh(train_step)


def _sum(tree: PyTree, axis_name: str | None) -> PyTree:
    return jax.lax.psum(tree, axis_name) if axis_name else tree


def _step_key(state: TrainState, name: str, axis_name: str | None) -> jax.Array:
    """Returns the key of one kind of draw in this step, different on each device of the axis."""
    key = jax.random.fold_in(named_key(state.key, name), state.step)
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name)) if axis_name else key


def _check_size(size: Any) -> int:
    size = operator.index(size)
    if size < 1:
        raise ConfigError(f"expected a microbatch_size of at least 1, found {size}")
    return size


def _whole_if_normalized(size: MicrobatchSize, state: TrainState) -> MicrobatchSize:
    """Returns None for a network with batch statistics, which are those of a whole batch."""
    if not jax.tree.leaves(state.batch_stats):
        return size
    if isinstance(size, int):
        raise ValueError(
            f"expected microbatch_size=None for a network with batch normalization, found {size}: "
            "its statistics are those of a whole batch"
        )
    return None


def _cross_entropies(
    logits: jax.Array, batch: Batch, label_smoothing: float | jax.Array
) -> jax.Array:
    """Returns the loss of each row in nats, float32 [B]; NaN where a label is out of range."""
    targets, unknown = one_hot_labels(batch.labels, batch.mask, logits.shape[-1])
    # NaN in the targets instead of the loss makes the gradients NaN as well.
    targets = jnp.where(unknown[:, None], jnp.nan, targets)
    smoothing = jnp.asarray(label_smoothing, jnp.float32)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _update(
    state: TrainState,
    grads: PyTree,
    optimizer: optax.GradientTransformation,
    ema_decay: float | jax.Array | None,
) -> TrainState:
    """Returns the state after the update of the optimizer."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = None
    if ema_decay is not None:
        share = 1 - ema_decay_at(ema_decay, state.step)
        ema_params = optax.incremental_update(params, state.ema_params, share)
    return dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params
    )


def make_eval_step(model: Model, *, axis_name: str | None = None) -> EvalStep:
    """Makes a pure, un-jitted evaluation step, which the caller transforms.

    Args:
        model: the network.
        axis_name: name of the mapped axis over which the batch is divided, as in `make_train_step`.

    Returns:
        `(variables, batch) -> metrics`. Labels, transforms and meshes are handled as in
        `make_train_step`.
    """

    def eval_step(variables: Variables, batch: Batch) -> Metrics:
        logits, _ = model.apply(variables, scale_pixels(batch.images))
        return _sum(Metrics.from_logits(logits, batch.labels, batch.mask), axis_name)

    return on_any_mesh(eval_step)


def make_epoch_fn(
    train_step: TrainStep, *, take: TakeBatch = take_batch
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes an un-jitted loop over the batches of an epoch, or of part of one.

    Args:
        train_step: a step from `make_train_step`.
        take: `(images, labels, indices) -> batch`, gathers a batch on the device.

    Returns:
        `(state, metrics, images, labels, order, start, stop) -> (state, metrics)`. It takes the
        steps `start` to `stop - 1` of `order` (int32 [steps, B], see `epoch_order`), gathers each
        batch from `images` [N, H, W, C] and `labels` [N], which stay on the device, and adds the
        metrics of the steps to `metrics`. The bounds are traced, so one compiled program serves
        parts of any length, and an epoch in parts gives the same bits as a whole one.
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
        def batch_at(index: jax.Array) -> Batch:
            return take(images, labels, order[index])

        return _take_steps(train_step, batch_at, state, metrics, start, stop)

    return on_any_mesh(epoch_fn)


def make_stream_fn(train_step: TrainStep) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes an un-jitted loop over batches that were gathered on the host.

    Args:
        train_step: a step from `make_train_step`.

    Returns:
        `(state, metrics, batches, start, stop) -> (state, metrics)`. It takes the steps `start` to
        `stop - 1` of `batches`, a `Batch` with one more axis in front, and adds their metrics to
        `metrics`, as the loop of `make_epoch_fn` does.
    """

    def stream_fn(
        state: TrainState,
        metrics: Metrics,
        batches: Batch,
        start: jax.Array | int,
        stop: jax.Array | int,
    ) -> tuple[TrainState, Metrics]:
        def batch_at(index: jax.Array) -> Batch:
            return jax.tree.map(lambda leaf: leaf[index], batches)

        return _take_steps(train_step, batch_at, state, metrics, start, stop)

    return on_any_mesh(stream_fn)


def _take_steps(
    train_step: TrainStep,
    batch_at: Callable[[jax.Array], Batch],
    state: TrainState,
    metrics: Metrics,
    start: jax.Array | int,
    stop: jax.Array | int,
) -> tuple[TrainState, Metrics]:
    def body(index: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        state, new = train_step(state, batch_at(index))
        return state, metrics.merge(new)

    return jax.lax.fori_loop(start, stop, body, (state, metrics))


def make_eval_fn(eval_step: EvalStep) -> Callable[..., Metrics]:
    """Makes an un-jitted loop that evaluates a whole split.

    Args:
        eval_step: a step from `make_eval_step`.

    Returns:
        `(variables, images, labels, order) -> metrics`, with `order` int32 [steps, B] from
        `sequential_order`, so that every image of the split counts exactly once.
    """

    def eval_fn(
        variables: Variables, images: jax.Array, labels: jax.Array, order: jax.Array
    ) -> Metrics:
        def evaluate_batch(indices: jax.Array) -> Metrics:
            return eval_step(variables, take_batch(images, labels, indices))

        return jax.lax.map(evaluate_batch, order).total()

    return on_any_mesh(eval_fn)

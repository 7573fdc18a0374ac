"""The state of a training run, which consists of arrays only."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import optax

from mnistjax.data import named_key
from mnistjax.models import Model, PyTree, Variables


@flax.struct.dataclass
class TrainState:
    """Everything that changes while a network is trained.

    It holds arrays only. The train step closes over model and optimizer instead, because a new
    optimizer in a static field would cause recompilation and could not be mapped by `vmap`.

    Attributes:
        step: int32 [], number of updates so far. The random numbers of a step depend only on `key`
            and `step`.
        params: trainable parameters.
        batch_stats: running statistics of batch normalization; an empty dict where there are none.
        opt_state: state of the optax optimizer.
        key: base PRNG key of the run. It is never split: each draw folds its name (`named_key`) and
            its number into it, so the same key can be passed to `epoch_order`.
        ema_params: exponential moving average of `params`, or None if none is kept.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    key: jax.Array
    ema_params: PyTree | None = None

    @property
    def variables(self) -> Variables:
        """Variables to evaluate and save: parameters, averaged if kept, and batch statistics.

        The statistics belong to the latest parameters. If a network with batch statistics keeps
        averaged parameters, recompute the statistics from training images before evaluating it:

            stats = make_batch_stats_fn(model)(state.variables, images, order)
            variables = {**state.variables, "batch_stats": stats}
        """
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def create_train_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    example_images: jax.Array,
    *,
    key: jax.Array,
    ema: bool = False,
) -> TrainState:
    """Initializes the parameters of a network and the state of its optimizer.

    `vmap` over `key` creates an ensemble.

    Args:
        model: the network.
        optimizer: the optax optimizer that will train it.
        example_images: float [B, H, W, C]; only shape and dtype matter.
        key: base PRNG key of the run. The state keeps it for the random draws of the steps.
        ema: whether to keep a moving average of the parameters.

    Returns:
        The state at step 0.

    >>> from mnistjax.models import create_model
    >>> images = jnp.zeros((1, 28, 28, 1))
    >>> state = create_train_state(
    ...     create_model("softmax"), optax.sgd(0.1), images, key=jax.random.key(0)
    ... )
    >>> jax.tree.map(jnp.shape, state.params)
    {'Dense_0': {'bias': (10,), 'kernel': (784, 10)}}
    """
    variables = model.init(named_key(key, "init"), example_images)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(params),
        # Copies: a donated state must not hold one buffer twice, nor the caller's key.
        key=jnp.copy(key),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )

"""The state of a training run: arrays, and nothing else."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import optax

from mnistjax.models import Model, PyTree, Variables


@flax.struct.dataclass
class TrainState:
    """Everything that changes while a network is trained.

    It holds arrays only. Model and optimizer are closed over by the train step: a static field with
    a freshly built optimizer in it would make every call compile anew, and could not be vmapped.

    Attributes:
        step: int32 [], number of updates so far. It is the position in training: the random numbers
            of a step follow from `key` and `step` alone.
        params: trainable parameters.
        batch_stats: running statistics of batch normalisation; an empty dict where there are none.
        opt_state: state of the optax optimizer.
        key: base PRNG key; never split, only folded with `step`.
        ema_params: exponential moving average of `params`, or None where none is kept.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    key: jax.Array
    ema_params: PyTree | None = None

    @property
    def variables(self) -> Variables:
        """What to evaluate and to save: the averaged parameters if kept, and the statistics."""
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
    """Draws the parameters of a network and starts its optimizer; `vmap` over `key` is an ensemble.

    Args:
        model: the network.
        optimizer: the optax optimizer that will train it.
        example_images: float [B, H, W, C]; only shape and dtype matter.
        key: PRNG key, from which both the parameters and the base key of the state are drawn.
        ema: whether to keep a moving average of the parameters.

    Returns:
        The state at step 0.
    """
    init_key, base_key = jax.random.split(key)
    variables = model.init(init_key, example_images)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(params),
        key=base_key,
        # A copy: a donated state must not hold one buffer twice.
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )

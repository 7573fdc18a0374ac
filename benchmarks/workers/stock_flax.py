"""Flax as in its examples: nn.Conv, nn.max_pool, TrainState, one jitted step.

Variants: `loop` calls the step from Python, `scan` compiles an epoch as a `lax.scan` of steps.
Images are float32 on the device; each step gathers its batch there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from protocol import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    EPSILON,
    LEARNING_RATE,
    Layer,
    Task,
    serve,
)


def make_network(layers: list[Layer], dtype: str) -> Any:
    """Returns the network as a Linen module, called with `(images, train)`."""
    import flax.linen as nn

    def conv(features: int, size: int, padding: str, stride: int = 1) -> Any:
        return nn.Conv(features, (size, size), stride, padding.upper(), dtype=dtype)

    def pool(side: int) -> Any:
        return lambda x: nn.max_pool(x, (side, side), strides=(side, side))

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            makers: dict[str, Any] = {
                "crop": lambda side: lambda x: x[:, side:-side, side:-side],
                "conv": conv,
                "batch_norm": lambda: nn.BatchNorm(
                    use_running_average=not train,
                    momentum=BATCH_NORM_MOMENTUM,
                    epsilon=BATCH_NORM_EPSILON,
                    dtype=dtype,
                ),
                "relu": lambda: nn.relu,
                "pool": pool,
                "flatten": lambda: lambda x: x.reshape(x.shape[0], -1),
                "dropout": lambda rate: nn.Dropout(rate, deterministic=not train),
                "dense": lambda features: nn.Dense(features, dtype=dtype),
            }
            for kind, *numbers in layers:
                x = makers[kind](*numbers)(x)
            return x.astype("float32")

    return Network()


def build(task: Task) -> StockFlax:
    """Creates the peer."""
    return StockFlax(task)


class StockFlax:
    """This framework as a `protocol.Peer`."""

    def __init__(self, task: Task) -> None:
        import jax
        import jax.numpy as jnp
        import optax
        from flax.training import train_state

        class TrainState(train_state.TrainState):
            batch_stats: Any

        self.task = task
        self.train = [jnp.asarray(array) for array in task.scaled("train")]
        self.test = jnp.asarray(task.scaled("test")[0])
        network = make_network(task.layers, task.dtype)
        init_key, self.key = jax.random.split(jax.random.key(task.seed))
        variables = network.init(init_key, self.train[0][:1], False)
        self.state = TrainState.create(
            apply_fn=network.apply,
            params=variables["params"],
            tx=optax.adam(LEARNING_RATE, eps=EPSILON),
            batch_stats=variables.get("batch_stats", {}),
        )
        self.step = jax.jit(_train_step, donate_argnums=0)
        self.scan = jax.jit(_scan_epoch, donate_argnums=0)
        self.predict = jax.jit(_predict)

    def describe(self) -> dict[str, Any]:
        """Returns the description; see `protocol.Peer`."""
        import jax

        device = jax.devices()[0]
        return {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.state.params)),
            "packages": ["flax", "jax", "jaxlib", "optax"],
            "platform": device.platform,
            **({} if device.platform == "cpu" else {"device": device.device_kind}),
            "how": f"step in a {self.task.variant}; float32 on the device",
        }

    def train_epoch(self) -> None:
        """Trains on every training image once."""
        import jax

        self.key, key = jax.random.split(self.key)
        order = jax.random.permutation(key, len(self.train[0])).reshape(-1, self.task.batch_size)
        if self.task.variant == "scan":
            self.state = self.scan(self.state, *self.train, order, key)
        else:
            for indices in order:
                self.state = self.step(self.state, *self.train, indices, key)
        jax.block_until_ready(self.state.params)

    def classify(self) -> np.ndarray:
        """Returns the predicted classes of all test images."""
        size = self.task.eval_batch_size
        parts = [
            self.predict(self.state, self.test[i : i + size])
            for i in range(0, len(self.test), size)
        ]
        return np.concatenate([np.asarray(part) for part in parts])


def _train_step(state: Any, images: Any, labels: Any, indices: Any, key: Any) -> Any:
    import jax
    import optax

    dropout_key = jax.random.fold_in(key, state.step)

    def loss_fn(params: Any) -> Any:
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images[indices],
            True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[indices])
        return losses.mean(), updates.get("batch_stats", {})

    grads, batch_stats = jax.grad(loss_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads).replace(batch_stats=batch_stats)


def _scan_epoch(state: Any, images: Any, labels: Any, order: Any, key: Any) -> Any:
    import jax

    def body(state: Any, indices: Any) -> Any:
        return _train_step(state, images, labels, indices, key), None

    return jax.lax.scan(body, state, order)[0]


def _predict(state: Any, images: Any) -> Any:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return state.apply_fn(variables, images, False).argmax(-1)


if __name__ == "__main__":
    serve(build)

"""This library: compiled epochs, uint8 images resident on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
from protocol import EPSILON, LEARNING_RATE, Task, serve


def build(task: Task) -> Library:
    """Creates the peer."""
    return Library(task)


class Library:
    """This framework as a `protocol.Peer`."""

    def __init__(self, task: Task) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        import mnistjax

        self.batch_size = task.batch_size
        model = mnistjax.create_model(task.model, dtype=jnp.dtype(task.dtype), num_classes=10)
        optimizer = optax.adam(LEARNING_RATE, eps=EPSILON)
        self.train = [jnp.asarray(array) for array in task.arrays("train")]
        test = [jnp.asarray(array) for array in task.arrays("test")]
        self.test = (test[0], mnistjax.data.sequential_order(len(test[0]), task.eval_batch_size))
        state_key, self.order_key = jax.random.split(jax.random.key(task.seed))
        example = jnp.zeros((1, *self.train[0].shape[1:]))
        self.state = mnistjax.create_train_state(model, optimizer, example, key=state_key)
        step = mnistjax.make_train_step(
            model, optimizer, microbatch_size=mnistjax.runs.microbatch_for_cache
        )
        options = mnistjax.compiler_options()
        self.epoch_fn = jax.jit(
            mnistjax.make_epoch_fn(step), donate_argnums=0, compiler_options=options
        )
        self.draw = jax.jit(mnistjax.epoch_order, static_argnums=(2, 3))
        self.epoch = 0

        def classify(variables: Any, images: Any, order: Any) -> Any:
            def batch(indices: Any) -> Any:
                logits, _ = model.apply(variables, mnistjax.scale_pixels(images[indices]))
                return jnp.argmax(logits, -1)

            return jax.lax.map(batch, order).reshape(-1)[: len(images)]

        self.classify_fn = jax.jit(classify, compiler_options=options)

    def describe(self) -> dict[str, Any]:
        """Returns the description; see `protocol.Peer`."""
        import jax

        import mnistjax

        device = jax.devices()[0]
        return {
            "parameters": mnistjax.count_parameters(self.state.params),
            "packages": ["mnistjax", "jax", "jaxlib", "flax", "optax"],
            "platform": device.platform,
            **({} if device.platform == "cpu" else {"device": device.device_kind}),
            "how": "whole epoch in one compiled loop; uint8 on the device",
        }

    def train_epoch(self) -> None:
        """Trains on every training image once."""
        import mnistjax

        images, labels = self.train
        order = self.draw(self.order_key, self.epoch, len(images), self.batch_size)
        metrics = mnistjax.Metrics.empty(10)
        self.state, metrics = self.epoch_fn(
            self.state, metrics, images, labels, order, 0, len(order)
        )
        metrics.loss_sum.block_until_ready()
        self.epoch += 1

    def classify(self) -> np.ndarray:
        """Returns the predicted classes of all test images."""
        return np.asarray(self.classify_fn(self.state.variables, *self.test))


if __name__ == "__main__":
    serve(build)

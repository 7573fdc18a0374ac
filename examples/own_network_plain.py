"""Trains a convolutional network that is written in plain JAX, without any module system.

Command:   python examples/own_network_plain.py
Expected:  98.38 % on the test images of MNIST, in 17 seconds on one CPU core.

A model is a pair of pure functions, `init` and `apply`. Training, evaluation, `mnistjax.predict`
and `mnistjax.serving.make_app` take it like the networks of the library.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import mnistjax
from mnistjax.cli import one_line_errors, use_compilation_cache

EPOCHS, BATCH_SIZE, CHANNELS = 3, 128, 24


def init(key: jax.Array, images: jax.Array) -> dict[str, Any]:
    """Returns the weights for images of this shape."""
    pixels = jax.eval_shape(mnistjax.ops.max_pool, images[:, 4:, 4:])  # What `apply` flattens.
    initialize, keys = jax.nn.initializers.he_normal(), jax.random.split(key)
    kernel = initialize(keys[0], (5, 5, images.shape[-1], CHANNELS))
    dense = initialize(keys[1], (pixels.size * CHANNELS, 10))
    return {"params": {"kernel": kernel, "dense": dense}, "batch_stats": {}}


def apply(variables: dict[str, Any], images: jax.Array, **_: Any) -> tuple[jax.Array, dict]:
    """Returns the logits; other arguments are for dropout and for statistics of the batch."""
    params = variables["params"]
    x = mnistjax.ops.conv_pool(images, params["kernel"], padding="VALID")  # Fast on CPU, too.
    return jax.nn.relu(x).reshape(len(images), -1) @ params["dense"], {}


@one_line_errors
def main() -> None:
    """Trains, printing one line per epoch, and evaluates on the test images."""
    use_compilation_cache()  # A second run loads the compiled programs.
    dataset = mnistjax.load_dataset()
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    model, key = mnistjax.Model(init, apply, "plain"), jax.random.key(0)
    optimizer = optax.adam(2e-3)
    state = mnistjax.create_train_state(model, optimizer, jnp.zeros((1, 28, 28, 1)), key=key)
    step = mnistjax.make_train_step(model, optimizer)
    train_epoch = jax.jit(mnistjax.make_epoch_fn(step), donate_argnums=0)
    for epoch in range(EPOCHS):
        order = mnistjax.epoch_order(key, epoch, len(images), BATCH_SIZE)
        metrics = mnistjax.Metrics.empty(dataset.info.num_classes)
        state, metrics = train_epoch(state, metrics, images, labels, order, 0, len(order))
        print(f"epoch {epoch + 1}: training accuracy {metrics.summary()['accuracy']:.2%}")
    trained = mnistjax.TrainedModel(model, state.variables, dataset.info)
    print(f"test accuracy {mnistjax.evaluate(trained, dataset.test).summary()['accuracy']:.2%}")


if __name__ == "__main__":
    main()

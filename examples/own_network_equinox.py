"""Trains a network that is written with Equinox.

Command:   pip install -q -e ".[equinox]" && python examples/own_network_equinox.py
Expected:  98.00 % on the test images of MNIST, in 9 seconds on one CPU core.

A model is a pair of pure functions. `apply` joins the arrays of a module with its structure again.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import mnistjax
from mnistjax.cli import one_line_errors, use_compilation_cache

EPOCHS, BATCH_SIZE = 10, 128


def split(key: jax.Array) -> tuple[Any, Any]:
    """Returns the arrays of a new network, and its structure."""
    network = eqx.nn.MLP(28 * 28, 10, width_size=256, depth=2, key=key)
    return eqx.partition(network, eqx.is_inexact_array)


def init(key: jax.Array, images: jax.Array) -> dict[str, Any]:
    """Returns the parameters of a new network."""
    return {"params": split(key)[0], "batch_stats": {}}


def apply(variables: dict[str, Any], images: jax.Array, **_: Any) -> tuple[jax.Array, dict]:
    """Returns the logits; other arguments are for dropout and for statistics of the batch."""
    network = eqx.combine(variables["params"], split(jax.random.key(0))[1])
    return jax.vmap(network)(images.reshape(len(images), -1)), {}  # Its layers take one image.


@one_line_errors
def main() -> None:
    """Trains, printing one line per epoch, and evaluates on the test images."""
    use_compilation_cache()  # A second run loads the compiled programs.
    dataset = mnistjax.load_dataset()
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    model, key = mnistjax.Model(init, apply, "equinox"), jax.random.key(0)
    optimizer = optax.adam(1e-3)
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

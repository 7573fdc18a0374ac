"""Keras on TensorFlow: `compile` and `fit` on float32 arrays in memory.

Variants: `fit` lets Keras choose (`jit_compile="auto"`), `xla` compiles with XLA
(`jit_compile=True`).
"""

from __future__ import annotations

import os
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

STEPS_PER_CALL = 32  # Steps that TensorFlow takes per call from Python.


def make_layer(layer: Layer) -> Any:
    """Returns the Keras layer."""
    from keras import layers

    def batch_norm() -> Any:
        return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON)

    makers: dict[str, Any] = {
        "crop": layers.Cropping2D,
        "conv": lambda features, size, padding, stride=1: layers.Conv2D(
            features, size, stride, padding
        ),
        "batch_norm": batch_norm,
        "relu": layers.ReLU,
        "pool": layers.MaxPooling2D,
        "flatten": layers.Flatten,
        "dropout": layers.Dropout,
        "dense": layers.Dense,
    }
    kind, *numbers = layer
    return makers[kind](*numbers)


def build(task: Task) -> Keras:
    """Creates the peer."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    return Keras(task)


class Keras:
    """This framework as a `protocol.Peer`."""

    def __init__(self, task: Task) -> None:
        import keras

        keras.utils.set_random_seed(task.seed)
        if task.dtype == "bfloat16":
            keras.mixed_precision.set_global_policy("mixed_bfloat16")
        self.task = task
        self.images, self.labels = task.scaled("train")
        self.test_images, _ = task.scaled("test")
        self.network = keras.Sequential(
            [keras.Input(self.images.shape[1:]), *map(make_layer, task.layers)]
        )
        self.network.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=STEPS_PER_CALL,
            jit_compile=True if task.variant == "xla" else "auto",
        )

    def describe(self) -> dict[str, Any]:
        """Returns the description; see `protocol.Peer`."""
        import keras

        trainable = self.network.trainable_weights
        gpu = keras.distribution.list_devices("gpu")
        return {
            "parameters": sum(int(np.prod(weight.shape)) for weight in trainable),
            "packages": ["keras", "tensorflow", "tensorflow-cpu"],
            "platform": "gpu" if gpu else "cpu",
            **({"device": gpu[0]} if gpu else {}),
            "how": f"{self.task.variant}; float32 arrays, {STEPS_PER_CALL} steps a call",
        }

    def train_epoch(self) -> None:
        """Trains on every training image once."""
        self.network.fit(
            self.images, self.labels, batch_size=self.task.batch_size, epochs=1, verbose=0
        )

    def classify(self) -> np.ndarray:
        """Returns the predicted classes of all test images."""
        logits = self.network.predict(
            self.test_images, batch_size=self.task.eval_batch_size, verbose=0
        )
        return np.argmax(logits, -1)


if __name__ == "__main__":
    serve(build)

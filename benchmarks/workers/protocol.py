"""Shared by all peers: the task, the timing, and the protocol.

A peer is a process. It reads its task from a JSON file and prints a description of itself. For each
line of JSON on stdin it then trains an epoch or classifies the test images, and answers with a line
on stdout. Time and accuracy are measured here, in the same way for all peers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

LEARNING_RATE, EPSILON = 1e-3, 1e-8  # Adam; the other settings are the same everywhere.
BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON = 0.99, 1e-3

Layer = list[Any]  # A kind and its arguments: ["conv", 32, 3, "valid"], ["relu"], ["dense", 10] ...


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
        layers: the network: crop (pixels at each side), conv (features, kernel side, "valid" or
            "same", and the stride if it is not 1), batch_norm, relu, pool (side), flatten,
            dropout (rate), dense (features).
        model: the name of the same network in this library.
        batch_size: images per step.
        eval_batch_size: test images at a time.
        dtype: "float32" or "bfloat16".
        variant: how the framework is used, one of the variants of its worker.
        folder: contains train_images.npy (uint8 [N, H, W, 1], N a multiple of the batch size),
            train_labels.npy (int32 [N]), and test_images.npy and test_labels.npy likewise.
        seed: seed of parameters, order and dropout.
    """

    layers: list[Layer]
    model: str
    batch_size: int
    eval_batch_size: int
    dtype: str
    variant: str
    folder: str
    seed: int

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of "train" or "test"."""
        folder = Path(self.folder)
        return np.load(folder / f"{split}_images.npy"), np.load(folder / f"{split}_labels.npy")

    def scaled(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same, with the images as float32 in [0, 1]."""
        images, labels = self.arrays(split)
        return images.astype(np.float32) / 255, labels


class Peer(Protocol):
    """A network in a framework."""

    def describe(self) -> dict[str, Any]:
        """Describes the peer.

        Returns:
            `parameters` (number of trainable scalars), `packages` (names, to report their
            versions), `platform` ("cpu", "gpu" or "tpu"), `device` (its name, unless it is a CPU)
            and `how` (how the framework is used).
        """

    def train_epoch(self) -> None:
        """Trains on every training image once, in a new random order, and waits for the device."""

    def classify(self) -> np.ndarray:
        """Returns the predicted classes, int [N], of all test images in order."""


def num_threads() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(build: Callable[[Task], Peer]) -> None:
    """Runs a worker until its stdin ends.

    Args:
        build: imports the framework and creates the peer.
    """
    # What frameworks print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")

    try:
        peer = build(task)
    except ModuleNotFoundError as error:
        answer({"missing": error.name})
        return
    description = peer.describe()
    packages = ["numpy", *description.pop("packages")]
    answer({**description, "versions": _versions(packages), "threads": num_threads()})
    num_train, test_labels = len(task.arrays("train")[1]), task.arrays("test")[1]
    for line in sys.stdin:
        answer(_timed(peer, json.loads(line)["do"], num_train, test_labels))


def _versions(packages: list[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _timed(peer: Peer, what: str, num_train: int, test_labels: np.ndarray) -> dict[str, Any]:
    begin = time.perf_counter()
    if what == "train":
        peer.train_epoch()
        images, accuracy = num_train, None
        seconds = time.perf_counter() - begin
    else:
        classes = peer.classify()
        seconds = time.perf_counter() - begin
        images, accuracy = len(classes), float(np.mean(classes == test_labels))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "images": images,
        "accuracy": accuracy,
        "peak_memory_bytes": 1024 * kilobytes,
    }

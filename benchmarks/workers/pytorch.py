"""PyTorch: float32 tensors in memory, gathered by index, a fused Adam.

Variants: `eager`, `channels-last` (the memory format of images and network), `compiled`
(`torch.compile`), and `uint8-channels-last`, which keeps the images as uint8 and converts each
batch, where the others convert all images once, before training.
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
    num_threads,
    serve,
)


def make_layer(layer: Layer) -> Any:
    """Returns a lazy layer, which infers its number of inputs from the first batch."""
    from torch import nn

    makers: dict[str, Any] = {
        "crop": lambda side: nn.ZeroPad2d(-side),
        "conv": lambda features, size, padding, stride=1: nn.LazyConv2d(
            features, size, stride, padding
        ),
        "batch_norm": lambda: nn.LazyBatchNorm2d(BATCH_NORM_EPSILON, 1 - BATCH_NORM_MOMENTUM),
        "relu": nn.ReLU,
        "pool": nn.MaxPool2d,
        "flatten": nn.Flatten,
        "dropout": nn.Dropout,
        "dense": nn.LazyLinear,
    }
    kind, *numbers = layer
    return makers[kind](*numbers)


def build(task: Task) -> PyTorch:
    """Creates the peer."""
    return PyTorch(task)


class PyTorch:
    """This framework as a `protocol.Peer`."""

    def __init__(self, task: Task) -> None:
        import torch

        torch.manual_seed(task.seed)
        torch.set_num_threads(num_threads())
        self.task = task
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.images, self.labels = self._tensors("train")
        self.test_images, _ = self._tensors("test")
        network: Any = torch.nn.Sequential(*map(make_layer, task.layers))
        network(self._scaled(self.images[:2]).cpu())
        network.to(self.device)
        if task.variant.endswith("channels-last"):
            network.to(memory_format=torch.channels_last)
        self.network = network
        self.forward = torch.compile(network) if task.variant == "compiled" else network
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=LEARNING_RATE, eps=EPSILON, fused=True
        )

    def _tensors(self, split: str) -> tuple[Any, Any]:
        import torch

        stored = self.task.variant.startswith("uint8")
        images, labels = (self.task.arrays if stored else self.task.scaled)(split)
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(self.device)
        if self.task.variant.endswith("channels-last"):
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor, torch.from_numpy(labels).long().to(self.device)

    def _scaled(self, images: Any) -> Any:
        """Returns float32 pixels from 0 to 1."""
        return images if images.is_floating_point() else images.float().div_(255)

    def _autocast(self) -> Any:
        import torch

        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.task.dtype == "bfloat16"
        )

    def describe(self) -> dict[str, Any]:
        """Returns the description; see `protocol.Peer`."""
        import torch

        cuda = self.device.type == "cuda"
        return {
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "packages": ["torch"],
            "platform": "gpu" if cuda else "cpu",
            **({"device": torch.cuda.get_device_name()} if cuda else {}),
            "how": f"{self.task.variant}; {self.images.dtype} in memory, fused Adam",
        }

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def train_epoch(self) -> None:
        """Trains on every training image once."""
        import torch

        self.network.train()
        order = torch.randperm(len(self.images), device=self.device)
        for indices in order.split(self.task.batch_size):
            with self._autocast():
                logits = self.forward(self._scaled(self.images[indices]))
                loss = torch.nn.functional.cross_entropy(logits, self.labels[indices])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self._wait()

    def classify(self) -> np.ndarray:
        """Returns the predicted classes of all test images."""
        import torch

        self.network.eval()
        with torch.inference_mode(), self._autocast():
            batches = map(self._scaled, self.test_images.split(self.task.eval_batch_size))
            classes = torch.cat([self.forward(images).argmax(-1) for images in batches])
        return classes.cpu().numpy()


if __name__ == "__main__":
    serve(build)

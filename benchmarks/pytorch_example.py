"""Seconds to a test accuracy in PyTorch's own MNIST example, to compare `time_to_accuracy.py` with.

    python benchmarks/pytorch_example.py --json benchmarks/results/pytorch_example.jsonl

The network, optimizer and schedule are those of the MNIST example that PyTorch publishes: two 3x3
convolutions of 32 and 64 channels, max pooling, dropout, a dense layer of 128; Adadelta with a
learning rate of 1 that decays by a factor of 0.7 per epoch; batches of 64, images normalized. Its
data loader is omitted in its favor: the tensors are in memory. Test images are evaluated after
every epoch, as in the example, and that time is not counted; a seed ends when the target is
reached, or after 14 epochs.
"""

import dataclasses
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro
from conditions import Row, command, conditions, table, threads, write_json_lines

import mnistjax
from mnistjax.cli import one_line_errors


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How often to train, and the accuracy to reach."""

    target: float = 99.0
    """Test accuracy to reach, in percent."""
    seeds: int = 3
    """Number of trainings, from the seeds 0, 1, ..."""
    epochs: int = 14
    """Epochs after which a seed gives up; the example trains so many."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File for the results, one JSON line per seed."""


def make_network() -> Any:
    """Returns the example's network."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten()),
        *(nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    )


def tensors(split: mnistjax.Split) -> tuple[Any, Any]:
    """Returns normalized images, float32 [N, 1, 28, 28], and labels, int64 [N]."""
    import torch

    images = torch.from_numpy(split.images.copy()).permute(0, 3, 1, 2).float() / 255
    mean, deviation = 0.1307, 0.3081  # Of MNIST's training pixels, as in the example.
    return (images - mean) / deviation, torch.from_numpy(split.labels.copy()).long()


def train(dataset: mnistjax.Dataset, seed: int, epochs: int) -> Iterator[tuple[float, float]]:
    """Yields after each epoch the seconds of training so far and the test accuracy."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    torch.set_num_threads(threads())
    images, labels = tensors(dataset.train)
    test_images, test_labels = tensors(dataset.test)
    network = make_network()
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    seconds = 0.0
    for _ in range(epochs):
        begin = time.perf_counter()
        network.train()
        for indices in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(network(images[indices]), labels[indices]).backward()
            optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - begin
        network.eval()
        with torch.inference_mode():
            logits = torch.cat([network(part) for part in test_images.split(1000)])
        yield seconds, (logits.argmax(-1) == test_labels).double().mean().item()


def make_row(seed: int, arguments: Arguments, dataset: mnistjax.Dataset) -> Row:
    """Trains with one seed until the target is reached, and returns the row."""
    epochs: list[tuple[float, float]] = []
    for epoch in train(dataset, seed, arguments.epochs):
        epochs.append(epoch)
        if 100 * epoch[1] >= arguments.target:
            break
    seconds, accuracy = epochs[-1]
    return {
        "benchmark": "pytorch_example",
        "seed": seed,
        "target_accuracy": arguments.target / 100,
        "reached": 100 * accuracy >= arguments.target,
        "epochs": len(epochs),
        "train_seconds": seconds,
        "test_accuracies": [accuracy for _, accuracy in epochs],
        **conditions(),
        "packages": {"torch": importlib.metadata.version("torch")},
        "command": command(),
    }


COLUMNS: dict[str, Callable[[Row], str]] = {
    "seed": lambda row: str(row["seed"]),
    "epochs": lambda row: str(row["epochs"]),
    "training s": lambda row: f"{row['train_seconds']:.1f}",
    "test accuracy %": lambda row: f"{100 * row['test_accuracies'][-1]:.2f}",
    "target": lambda row: "reached" if row["reached"] else "missed",
}


@one_line_errors
def main(arguments: Arguments) -> None:
    """Trains with all seeds, prints a table and the median, and writes the file."""
    dataset = mnistjax.load_dataset("mnist", data_dir=arguments.data_dir)
    rows: list[Row] = []
    for seed in range(arguments.seeds):
        rows.append(make_row(seed, arguments, dataset))
        write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))
    print(f"median: {statistics.median(row['train_seconds'] for row in rows):.1f} s of training")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

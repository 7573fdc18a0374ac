"""Seconds that a checkpoint takes, and the share of the training time that the default costs.

    python benchmarks/checkpoints.py --json benchmarks/results/checkpoints.jsonl

Each recipe trains on random images and saves a checkpoint after every step, to the disk of
`--folder`.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from conditions import Row, command, conditions, spread, table, write_json_lines
from programs import CLASSES, IMAGE_SHAPE

import mnistjax
from mnistjax.cli import one_line_errors

DEFAULT_SECONDS, _ = mnistjax.CheckpointPolicy().interval
DEFAULT_SHARE = 50  # The default interval is at least this many times what a checkpoint takes.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    recipes: tuple[str, ...] = tuple(mnistjax.runs.RECIPES)
    """Names of recipes."""
    steps: int = 30
    """Checkpoints of each recipe."""
    folder: Path | None = None
    """Folder on the disk to write to; if not given, that of temporary files."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per recipe; none if not given."""


class Clock(mnistjax.Callback):
    """Notes when each step was finished; its checkpoint is saved after that."""

    def __init__(self) -> None:
        """Starts without a step."""
        self.times: list[float] = []

    def on_steps(self, step: int) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())


def measure(recipe: str, dataset: mnistjax.Dataset, arguments: Arguments) -> Row:
    """Measures one recipe.

    Args:
        recipe: the name of the recipe.
        dataset: images to train on, at least one batch per step.
        arguments: number of checkpoints, and where they are written.

    Returns:
        The row of the measurement; `checkpoint_seconds` is the time between two steps minus the
        mean length of a step, and `default_share` what that is of the default interval.
    """
    config = mnistjax.get_recipe(recipe).replace(steps=arguments.steps, validation_fraction=0)
    clock, policy = Clock(), mnistjax.CheckpointPolicy(every="1step")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run = Path(folder, "run")
        result = mnistjax.fit(
            config, dataset, workdir=run, checkpoints=policy, callbacks=[clock]
        ).result
        size = max(file.stat().st_size for file in (run / "checkpoints").iterdir())
    step = result["train_seconds"] / arguments.steps
    costs = [gap - step for gap in np.diff(clock.times).tolist()]
    cost = statistics.median(costs)
    return {
        "benchmark": "checkpoints",
        "recipe": recipe,
        "bytes": size,
        "step_seconds": step,
        **spread("checkpoint_seconds", costs),
        "default_share": cost / max(DEFAULT_SECONDS, DEFAULT_SHARE * cost),
    }


COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "MB": lambda row: f"{row['bytes'] / 1e6:.2f}",
    "ms per checkpoint": lambda row: f"{1e3 * row['checkpoint_seconds']:.0f}",
    "lowest to highest": lambda row: (
        f"{1e3 * row['checkpoint_seconds_min']:.0f} to {1e3 * row['checkpoint_seconds_max']:.0f}"
    ),
    "share of the time": lambda row: f"{row['default_share']:.2%}",
}


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures, prints the table, and writes the file."""
    random = np.random.default_rng(0)
    count = max(mnistjax.get_recipe(name).batch_size for name in arguments.recipes)
    split = mnistjax.Split(
        images=random.integers(0, 256, ((arguments.steps + 1) * count, *IMAGE_SHAPE), np.uint8),
        labels=random.integers(0, CLASSES, (arguments.steps + 1) * count, np.int32),
    )
    test = mnistjax.Split(split.images[:100], split.labels[:100])
    dataset = mnistjax.Dataset(split, test, mnistjax.DatasetInfo("random", CLASSES), "random")
    shared = {**conditions(), "command": command()}
    rows: list[Row] = []
    for recipe in arguments.recipes:
        rows.append(measure(recipe, dataset, arguments) | shared)
        write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

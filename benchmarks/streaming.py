"""How fast training is with images streamed from the host, relative to images on the device.

    python benchmarks/streaming.py --recipes cnn --json benchmarks/results/streaming.jsonl

Each recipe trains on random images with both in turn, so that what else the machine does affects
both. `--folder` keeps the images in a file that is mapped into memory.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from conditions import Row, command, conditions, spread, table, write_json_lines
from programs import CLASSES, IMAGE_SHAPE

import mnistjax
from mnistjax.cli import one_line_errors


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    recipes: tuple[str, ...] = tuple(mnistjax.runs.RECIPES)
    """Names of recipes."""
    batch_size: int | None = None
    """Images per step; that of the recipe if not given."""
    epochs: int = 1
    """Epochs per run."""
    runs: int = 5
    """Timed runs of each, after a warm-up run."""
    images: int = 60_000
    """Random images to train on."""
    devices: int = 1
    """Number of devices."""
    folder: Path | None = None
    """Folder for a memory-mapped file of the images; if not given, they are in memory."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per recipe; none if not given."""


def measure(recipe: str, dataset: mnistjax.Dataset, arguments: Arguments) -> Row:
    """Measures one recipe.

    Args:
        recipe: the name of the recipe.
        dataset: images to train on.
        arguments: number and length of the runs.

    Returns:
        The row of the measurement; `ratio` is the median over runs of the streamed rate divided by
        the resident rate of the same round.
    """
    config = mnistjax.get_recipe(recipe)
    batch_size = arguments.batch_size or config.batch_size
    config = config.replace(batch_size=batch_size, epochs=arguments.epochs, steps=None)
    config = config.replace(validation_fraction=0, patience=None)
    rates: dict[str, list[float]] = {"replicated": [], "streamed": []}
    for run in range(arguments.runs + 1):
        for images, found in rates.items():
            trained = mnistjax.fit(config, dataset, devices=arguments.devices, images=images)
            if run:
                found.append(trained.result["images_per_second"])
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    return {
        "benchmark": "streaming",
        "recipe": recipe,
        "batch_size": batch_size,
        "devices": arguments.devices,
        "memory_mapped": arguments.folder is not None,
        **spread("resident_images_per_second", rates["replicated"]),
        **spread("streamed_images_per_second", rates["streamed"]),
        **spread("ratio", ratios),
    }


COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "batch": lambda row: str(row["batch_size"]),
    "resident images/s": lambda row: f"{row['resident_images_per_second']:,.0f}",
    "streamed images/s": lambda row: f"{row['streamed_images_per_second']:,.0f}",
    "ratio": lambda row: f"{row['ratio']:.1%}",
    "lowest to highest": lambda row: f"{row['ratio_min']:.1%} to {row['ratio_max']:.1%}",
}


def random_dataset(count: int, folder: Path | None) -> mnistjax.Dataset:
    """Returns random images, in memory or in a file of a folder that is mapped into memory."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *IMAGE_SHAPE), np.uint8)
    if folder is not None:
        np.save(folder / "images.npy", images)
        images = np.load(folder / "images.npy", mmap_mode="r")
    split = mnistjax.Split(images, random.integers(0, CLASSES, count, np.int32))
    test = mnistjax.Split(split.images[:100], split.labels[:100])
    return mnistjax.Dataset(split, test, mnistjax.DatasetInfo("random", CLASSES), "random")


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures, prints the table, and writes the file."""
    shared = {**conditions(), "command": command()}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        mapped = Path(folder) if arguments.folder else None
        dataset = random_dataset(arguments.images, mapped)
        for recipe in arguments.recipes:
            rows.append(measure(recipe, dataset, arguments) | shared)
            write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Accuracy of the recipes on MNIST: mean and standard deviation over seeds, last epoch.

Trains every recipe with every seed, and writes one JSON line per run, which replaces an older one:

    python benchmarks/accuracy.py --json benchmarks/results/accuracy.jsonl
    python benchmarks/readme.py

All test images count, nothing is selected by test accuracy, and every seed is reported.
"""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Literal

import tyro
from conditions import write_json_lines

import mnistjax
from mnistjax.cli import one_line_errors

ALL_RECIPES = tuple(mnistjax.runs.RECIPES)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to train."""

    recipes: tuple[str, ...] = ALL_RECIPES
    """Names of recipes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training per seed."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the arithmetic; parameters stay float32."""
    dataset: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File of JSON lines, one for each recipe and seed; none if not given."""


@one_line_errors
def main(arguments: Arguments) -> None:
    """Trains, prints one line per recipe, and writes the file."""
    configs = {name: mnistjax.get_recipe(name) for name in arguments.recipes}
    dataset = mnistjax.load_dataset(arguments.dataset, data_dir=arguments.data_dir)
    for name, config in configs.items():
        results = []
        for seed in arguments.seeds:
            result = mnistjax.fit(config.replace(seed=seed, dtype=arguments.dtype), dataset).result
            # The path of the images on this machine does not belong in a published file.
            results.append({key: value for key, value in result.items() if key != "source"})
        print(f"{name:12} {_spread(results, 'validation')} {_spread(results, 'test')}", flush=True)
        if arguments.json:
            write_json_lines(arguments.json, merge(_read(arguments.json), results))


def merge(old: list[dict], new: list[dict]) -> list[dict]:
    """Returns the rows of both, in the order of the recipes; a new row replaces an old one."""
    rows = {(row["recipe"], row["seed"]): row for row in (*old, *new)}
    names = [*ALL_RECIPES, *sorted({name for name, _ in rows} - set(ALL_RECIPES))]
    return [rows[key] for key in sorted(rows, key=lambda key: (names.index(key[0]), key[1]))]


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _spread(results: list[dict], split: str) -> str:
    values = [result[f"{split}_accuracy"] for result in results]
    if None in values:
        return f"{split} -"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{split} {100 * statistics.mean(values):.2f} +- {100 * deviation:.2f} %"


if __name__ == "__main__":
    main(tyro.cli(Arguments))

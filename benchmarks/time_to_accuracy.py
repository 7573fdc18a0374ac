"""Seconds to a test accuracy, over seeds, counting everything that a user waits for.

    python benchmarks/time_to_accuracy.py --json benchmarks/results/time_to_accuracy.jsonl

Each seed trains the recipe to the end of its schedule in a process of its own. The target is
reached if the mean test accuracy over the seeds reaches it. The rules of MLPerf are followed where
they apply: the recipe is fixed beforehand, nothing is selected by test accuracy (test images are
evaluated once, after the last step), the order of the data depends on the seed, and every run is
reported.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro
from conditions import Row, command, table, write_json_lines
from fresh_process import fresh_place, run_once

import mnistjax
from mnistjax.cli import one_line_errors


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to train, and the accuracy to reach."""

    recipe: str = "speed"
    """Name of the recipe."""
    target: float = 99.0
    """Mean test accuracy to reach, in percent."""
    seeds: int = 20
    """Number of trainings, from the seeds 0, 1, ..."""
    cold: int = 3
    """Number of trainings that start with an empty compilation cache; the others use the cache
    that the last of these has filled."""
    dataset: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per seed; none if not given."""


def make_row(cache: str, target: float, run: Row) -> Row:
    """Returns the row of a seed, from what `run_once` returned."""
    result, stages = run["result"], run["stages"]
    kept = ("recipe", "dataset", "seed", "epochs", "steps", "batch_size", "parameters")
    return {
        "benchmark": "time_to_accuracy",
        **{key: result[key] for key in kept},
        "train_count": result["train_count"],
        "test_count": result["test_count"],
        "test_accuracy": result["test_accuracy"],
        "target_accuracy": target / 100,
        "cache": cache,
        "train_seconds": stages["first_step"] + stages["train"],
        "evaluation_seconds": stages["evaluate"],
        "compile_seconds": stages["compile"],
        "process_seconds": run["process_seconds"],
        "stages": stages,
        **run["conditions"],
        "command": command(),
    }


def summarize(rows: Sequence[Row]) -> Row:
    """Summarizes all seeds; times that depend on the cache are given for cold and warm runs."""
    accuracies = [row["test_accuracy"] for row in rows]

    def median(name: str, cache: str | None = None) -> float | None:
        values = [row[name] for row in rows if cache in (None, row["cache"])]
        return statistics.median(values) if values else None

    return {
        "recipe": rows[0]["recipe"],
        "seeds": len(rows),
        "accuracy_mean": statistics.mean(accuracies),
        "accuracy_sd": statistics.stdev(accuracies) if len(rows) > 1 else 0.0,
        "accuracy_min": min(accuracies),
        "target_accuracy": rows[0]["target_accuracy"],
        "reached": statistics.mean(accuracies) >= rows[0]["target_accuracy"],
        "train_seconds": median("train_seconds"),
        "evaluation_seconds": median("evaluation_seconds"),
        "compile_seconds_cold": median("compile_seconds", "cold"),
        "compile_seconds_warm": median("compile_seconds", "warm"),
        "process_seconds_cold": median("process_seconds", "cold"),
        "process_seconds_warm": median("process_seconds", "warm"),
    }


def _seconds(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else f"{row[name]:.2f}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "seeds": lambda row: str(row["seeds"]),
    "test accuracy %": lambda row: (
        f"{100 * row['accuracy_mean']:.3f} ± {100 * row['accuracy_sd']:.3f}"
    ),
    "lowest %": lambda row: f"{100 * row['accuracy_min']:.2f}",
    "target": lambda row: (
        f"{100 * row['target_accuracy']:g} {'reached' if row['reached'] else 'missed'}"
    ),
    "training s": _seconds("train_seconds"),
    "evaluation s": _seconds("evaluation_seconds"),
    "compile s, cold": _seconds("compile_seconds_cold"),
    "warm": _seconds("compile_seconds_warm"),
    "from process start s, cold": _seconds("process_seconds_cold"),
    "warm ": _seconds("process_seconds_warm"),
}


@one_line_errors
def main(arguments: Arguments) -> None:
    """Trains with all seeds, prints the table, and writes the file."""
    recipe = mnistjax.get_recipe(arguments.recipe).replace(dataset=arguments.dataset)
    configs = [recipe.replace(seed=seed) for seed in range(arguments.seeds)]
    first = max(1, min(arguments.cold, arguments.seeds))
    rows: list[Row] = []

    def add(cache: str, run: Row) -> None:
        rows.append(make_row(cache, arguments.target, run))
        write_json_lines(arguments.json, rows)

    for config in configs[: first - 1]:
        with fresh_place(arguments.dataset, arguments.data_dir) as place:
            add("cold", run_once(config, place))
    with fresh_place(arguments.dataset, arguments.data_dir) as place:
        add("cold", run_once(configs[first - 1], place))
        for config in configs[first:]:
            add("warm", run_once(config, place))
    print(table([summarize(rows)], COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

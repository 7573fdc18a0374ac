"""From the start of the process to the first step: import, data, compilation, cold and warm.

    python benchmarks/startup.py --json benchmarks/results/startup.jsonl

A cold run starts without compiled programs and decoded data; a warm run uses those of the previous
run. Both use Python's bytecode and the file cache of the operating system.
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

STAGES = ("interpreter", "import", "backend", "data", "compile", "first_step")
STEPS = 8  # Enough for any schedule; only the first step is reported.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to start."""

    recipes: tuple[str, ...] = ("cnn",)
    """Names of recipes."""
    runs: int = 5
    """Pairs of a cold and a warm run, each of them reported."""
    dataset: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per run; none if not given."""


def make_row(recipe: str, cache: str, run: Row) -> Row:
    """Returns the row of a run, from what `run_once` returned."""
    seconds = {f"{stage}_seconds": run["stages"][stage] for stage in STAGES}
    return {
        "benchmark": "startup",
        "recipe": recipe,
        "cache": cache,
        "dataset": run["result"]["dataset"],
        "batch_size": run["result"]["batch_size"],
        **seconds,
        "total_seconds": sum(seconds.values()),
        **run["conditions"],
        "command": command(),
    }


def summarize(rows: Sequence[Row]) -> Row:
    """Returns medians over the runs of one recipe and cache, and the range of the total."""
    names = [f"{stage}_seconds" for stage in STAGES]
    totals = [row["total_seconds"] for row in rows]
    return {
        "recipe": rows[0]["recipe"],
        "cache": rows[0]["cache"],
        "runs": len(rows),
        **{name: statistics.median(row[name] for row in rows) for name in names},
        "total_seconds": statistics.median(totals),
        "total_seconds_min": min(totals),
        "total_seconds_max": max(totals),
    }


def _seconds(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:.2f}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "caches": lambda row: row["cache"],
    "runs": lambda row: str(row["runs"]),
    **{f"{stage.replace('_', ' ')} s": _seconds(f"{stage}_seconds") for stage in STAGES},
    "total s": _seconds("total_seconds"),
    "lowest to highest": lambda row: (
        f"{row['total_seconds_min']:.2f} to {row['total_seconds_max']:.2f}"
    ),
}


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures, prints the table, and writes the file."""
    configs = [
        mnistjax.get_recipe(name).replace(steps=STEPS, dataset=arguments.dataset)
        for name in arguments.recipes
    ]
    rows: list[Row] = []
    for _ in range(arguments.runs):
        for config in configs:
            with fresh_place(arguments.dataset, arguments.data_dir) as place:
                for cache in ("cold", "warm"):
                    rows.append(make_row(config.recipe, cache, run_once(config, place)))
                    write_json_lines(arguments.json, rows)
    groups = [
        [row for row in rows if (row["recipe"], row["cache"]) == (name, cache)]
        for name in arguments.recipes
        for cache in ("cold", "warm")
    ]
    print(table(map(summarize, groups), COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

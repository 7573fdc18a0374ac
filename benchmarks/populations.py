"""What a population costs: K members against K times one, and a sweep from the start of a process.

    python benchmarks/populations.py --json benchmarks/results/populations.jsonl

In each round, `fit` trains one network and `fit_population` trains K of them, in turn and with
programs that are compiled before; `cost` is the median over the rounds of the ratio of the seconds
to K times those of one. With `--process`, a new process without compiled programs trains K networks
of a recipe, and the seconds from its start are compared with K trainings and one compilation.

With `--peer`, K networks of the benchmark against peers are trained for an epoch, here and, one
after the other, by that peer: `cost` is then the seconds here as a share of the peer's.
"""

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import peers
import tyro
from conditions import Row, command, conditions, spread, table, write_json_lines
from networks import NETWORKS
from peer_processes import start_workers

import mnistjax
from mnistjax.cli import one_line_errors


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    recipes: tuple[str, ...] = ("speed", "cnn", "mlp")
    """Recipes."""
    members: int = 8
    """Networks in a population."""
    steps: int = 200
    """Updates per network."""
    rounds: int = 5
    """Rounds."""
    together: int | None = None
    """Networks that are trained side by side, as one program; if not given, what `fit_population`
    chooses: 1 on CPU, and as many as fit in memory on GPU and TPU."""
    process: str | None = None
    """Recipe of the population that a new process trains, with all of its epochs; none if not
    given."""
    peer: str | None = None
    """Framework to compare with, as `pytorch-eager`; none if not given."""
    peer_network: Literal["softmax", "mlp", "cnn", "cnn-bn", "speed"] = "mlp"
    """Network of that comparison."""
    peer_batch_size: int = 64
    """Images per update of that comparison."""
    dataset: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per recipe; none if not given."""


def measure(recipe: str, dataset: mnistjax.Dataset, arguments: Arguments) -> Row:
    """Returns the row of a recipe."""
    config = mnistjax.get_recipe(recipe).replace(steps=arguments.steps)
    seeds = range(arguments.members)
    together: int | Literal["auto"] = arguments.together or "auto"
    mnistjax.fit(config, dataset)  # Compiles.
    if arguments.together != 1:
        mnistjax.fit_population(config, dataset, seeds=seeds, together=together)  # Compiles.
    one, all_members, training = [], [], []
    for _ in range(arguments.rounds):
        begin = time.perf_counter()
        fitted = mnistjax.fit(config, dataset)
        middle = time.perf_counter()
        mnistjax.fit_population(config, dataset, seeds=seeds, together=together)
        one.append(middle - begin)
        all_members.append(time.perf_counter() - middle)
        training.append(fitted.result["train_seconds"])
    costs = [whole / (len(seeds) * single) for whole, single in zip(all_members, one, strict=True)]
    return {
        "benchmark": "populations",
        "recipe": recipe,
        "members": arguments.members,
        "together": arguments.together,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        **spread("one_seconds", one),
        **spread("population_seconds", all_members),
        **spread("train_seconds", training),
        **spread("cost", costs),
        **conditions(),
        "command": command(),
    }


# What the new process runs; it prints the seconds that its networks took, and the compilation.
_PROCESS = """
import sys, mnistjax
dataset = mnistjax.load_dataset(sys.argv[2], data_dir=sys.argv[4] or None)
seeds = range(int(sys.argv[3]))
found = mnistjax.fit_population(mnistjax.get_recipe(sys.argv[1]), dataset, seeds=seeds)
results = [member.trained.result for member in found.members]
print(sum(row["train_seconds"] for row in results), max(row["compile_seconds"] for row in results))
"""


def measure_process(recipe: str, arguments: Arguments) -> Row:
    """Returns the row of a population that a new process trains."""
    totals, trainings, compilations = [], [], []
    words = [recipe, arguments.dataset, str(arguments.members), str(arguments.data_dir or "")]
    for _ in range(arguments.rounds):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _PROCESS, *words], check=True, capture_output=True, text=True
        )
        totals.append(time.perf_counter() - begin)
        training, compilation = map(float, done.stdout.split()[-2:])
        trainings.append(training)
        compilations.append(compilation)
    costs = [
        total / (training + compilation)
        for total, training, compilation in zip(totals, trainings, compilations, strict=True)
    ]
    return {
        "benchmark": "populations",
        "recipe": f"{recipe}, new process",
        "members": arguments.members,
        "steps": None,
        "rounds": arguments.rounds,
        **spread("one_seconds", [training / arguments.members for training in trainings]),
        **spread("population_seconds", totals),
        **spread("compile_seconds", compilations),
        **spread("cost", costs),
        **conditions(),
        "command": command(),
    }


def measure_peer(dataset: mnistjax.Dataset, arguments: Arguments) -> Row:
    """Returns the row of a population that is compared with a peer, which trains one by one.

    The peer trains the same network on all images for as many epochs; creating and testing its
    networks is not counted, while here it is.
    """
    assert arguments.peer is not None
    network, size = arguments.peer_network, arguments.peer_batch_size
    config = mnistjax.TrainConfig(
        model=NETWORKS[network].model, batch_size=size, epochs=1, validation_fraction=0.0
    )
    mnistjax.fit(config, dataset)  # Compiles.
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        setting = peers.Setting(network, size)
        given = peers.Arguments(dataset=arguments.dataset, data_dir=arguments.data_dir)
        task = peers.write_task(given, setting, Path(folder))
        started = start_workers([arguments.peer], task, sys.executable, Path(folder), stack)
        if not started:
            raise mnistjax.errors.ConfigError(f"expected {arguments.peer}, which cannot start")
        started[0].ask("train")  # Compiles.
        for _ in range(arguments.rounds):
            answers = [started[0].ask("train") for _ in range(arguments.members)]
            theirs.append(sum(answer["seconds"] for answer in answers))
            begin = time.perf_counter()
            mnistjax.fit_population(config, dataset, seeds=range(arguments.members))
            ours.append(time.perf_counter() - begin)
    costs = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "benchmark": "populations",
        "recipe": f"{network}, one by one in {arguments.peer}",
        "members": arguments.members,
        "steps": answers[0]["images"] // size,
        "batch_size": size,
        "rounds": arguments.rounds,
        **spread("one_seconds", [seconds / arguments.members for seconds in theirs]),
        **spread("population_seconds", ours),
        **spread("cost", costs),
        **conditions(),
        "command": command(),
    }


COLUMNS = {
    "recipe": lambda row: row["recipe"],
    "members": lambda row: str(row["members"]),
    "one s": lambda row: f"{row['one_seconds']:.2f}",
    "population s": lambda row: f"{row['population_seconds']:.2f}",
    "cost": lambda row: f"{row['cost']:.3f} ({row['cost_min']:.3f} to {row['cost_max']:.3f})",
}


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures, prints the table and writes the file."""
    if min(arguments.members, arguments.rounds, arguments.steps) < 1:
        raise mnistjax.errors.ConfigError(
            "expected at least 1 member, round and step, found "
            f"{arguments.members}, {arguments.rounds} and {arguments.steps}"
        )
    dataset = mnistjax.load_dataset(arguments.dataset, data_dir=arguments.data_dir)
    rows = [measure(recipe, dataset, arguments) for recipe in arguments.recipes]
    if arguments.process:
        rows.append(measure_process(arguments.process, arguments))
    if arguments.peer:
        rows.append(measure_peer(dataset, arguments))
    write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

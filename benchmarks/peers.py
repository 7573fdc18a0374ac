"""The same training in several frameworks: speed in interleaved rounds, with equal accuracy.

    pip install -e ".[peers]"
    python benchmarks/peers.py --json benchmarks/results/peers.jsonl

Every peer is a process that holds the same images in memory and trains the same network with the
same batch size, dtype and Adam (1e-3). A round is one epoch; the peers take turns within each
round, so that other load on the machine affects all of them, and times are compared within a
round. The first round, in which programs are compiled, is not compared. The program fails unless
all peers reach about the same test accuracy in the end, which shows that none does less work. A
peer that is not installed is skipped.
"""

import contextlib
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro
from conditions import (
    Row,
    command,
    cpu_details,
    processor,
    spread,
    table,
    write_json_lines,
)
from networks import NETWORKS
from peer_processes import PEERS, start_workers, take_turns

import mnistjax
from mnistjax.cli import one_line_errors

REFERENCE = "mnistjax"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to compare."""

    networks: tuple[Literal["softmax", "mlp", "cnn", "cnn-bn", "speed"], ...] = ("cnn",)
    """The networks."""
    peers: tuple[str, ...] = tuple(PEERS)
    """The frameworks to measure."""
    batch_sizes: tuple[int, ...] = (128,)
    """Training images per step."""
    threads: tuple[int, ...] = ()
    """Numbers of CPU cores that the peers may use; all cores if not given."""
    eval_batch_size: int = 500
    """Test images at a time."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the arithmetic."""
    rounds: int = 5
    """Epochs that are compared, after the one in which programs are compiled."""
    images: int = 60_000
    """Training images, at most; cut to full batches."""
    tolerance: float = 0.5
    """Most that a peer's test accuracy may differ from the median of all, in percentage points."""
    seed: int = 0
    """Seed of every peer."""
    dataset: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    python: str = sys.executable
    """Interpreter of the peers, where this library is installed as well."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per peer and phase; none if not given."""


class Setting(NamedTuple):
    """What the peers have in common in one comparison."""

    network: str
    batch_size: int


def write_task(arguments: Arguments, setting: Setting, folder: Path) -> Row:
    """Writes the images to `folder`, and returns the task of all peers."""
    dataset = mnistjax.load_dataset(arguments.dataset, data_dir=arguments.data_dir)
    available = min(arguments.images, len(dataset.train))
    count = available // setting.batch_size * setting.batch_size
    mnistjax.steps_per_epoch(available, setting.batch_size)  # Rejects too large a batch.
    for name, split, size in (("train", dataset.train, count), ("test", dataset.test, None)):
        np.save(folder / f"{name}_images.npy", split.images[:size])
        np.save(folder / f"{name}_labels.npy", split.labels[:size])
    network = NETWORKS[setting.network]
    return {
        "layers": network.layers,
        "model": network.model,
        "batch_size": setting.batch_size,
        "eval_batch_size": arguments.eval_batch_size,
        "dtype": arguments.dtype,
        "folder": str(folder),
        "seed": arguments.seed,
    }


def make_row(
    worker_description: Row,
    name: str,
    phase: str,
    answers: dict[str, list[Row]],
    arguments: Arguments,
    setting: Setting,
) -> Row:
    """Returns the row of a peer in one phase.

    Args:
        worker_description: the description that the peer gave.
        name: name of the peer.
        phase: "training" or "inference".
        answers: the answers of all peers in this phase; the first of each includes compilation.
        arguments: the settings of the program.
        setting: what the peers have in common.
    """
    first, *timed = answers[name]
    rates = [answer["images"] / answer["seconds"] for answer in timed]
    seconds = [answer["seconds"] for answer in timed]
    ratios = _ratios(seconds, answers.get(REFERENCE))
    return {
        "benchmark": "peers",
        "network": setting.network,
        "peer": name,
        "phase": phase,
        "dataset": arguments.dataset,
        "batch_size": setting.batch_size,
        "eval_batch_size": arguments.eval_batch_size,
        "dtype": arguments.dtype,
        "seed": arguments.seed,
        "images_per_round": first["images"],
        "rounds": len(timed),
        "warm_up_rounds": 1,
        # The extra time of the first round: compiling, tracing, tuning.
        "compile_seconds": max(0.0, first["seconds"] - statistics.median(seconds)),
        **spread("round_seconds", seconds),
        **spread("images_per_second", rates),
        "reference": REFERENCE,
        "reference_is_faster_by": ratios and statistics.median(ratios),
        "reference_is_faster_by_runs": ratios,
        "peak_memory_bytes": timed[-1]["peak_memory_bytes"],
        "device": processor(),
        **worker_description,
        "processor": processor(),
        **cpu_details(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "command": command(),
    }


def _ratios(seconds: list[float], reference: list[Row] | None) -> list[float] | None:
    """Returns the ratio of each round's seconds to the reference's, if there is a reference."""
    if reference is None:
        return None
    return [mine / other["seconds"] for mine, other in zip(seconds, reference[1:], strict=True)]


def disagreements(rows: Sequence[Row], tolerance: float) -> list[str]:
    """Returns a line per peer whose accuracy or number of parameters differs from the others.

    Args:
        rows: one row per peer, with `test_accuracy` and `parameters`.
        tolerance: largest difference of an accuracy from the median, in percentage points.
    """
    accuracy = statistics.median(row["test_accuracy"] for row in rows)
    parameters = statistics.mode(row["parameters"] for row in rows)
    found = []
    for row in rows:
        if abs(row["test_accuracy"] - accuracy) * 100 > tolerance:
            found.append(
                f"{row['peer']}: expected a test accuracy within {tolerance:g} points of "
                f"{accuracy:.2%}, found {row['test_accuracy']:.2%}"
            )
        if row["parameters"] != parameters:
            found.append(
                f"{row['peer']}: expected {parameters:,} parameters, found {row['parameters']:,}"
            )
    return found


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


COLUMNS: dict[str, Callable[[Row], str]] = {
    "peer": lambda row: row["peer"],
    "phase": lambda row: row["phase"],
    "images/s": lambda row: f"{row['images_per_second']:,.0f}",
    "lowest to highest": lambda row: (
        f"{row['images_per_second_min']:,.0f} to {row['images_per_second_max']:,.0f}"
    ),
    f"{REFERENCE} is faster by": lambda row: _optional(row["reference_is_faster_by"], ".2f"),
    "compile s": lambda row: f"{row['compile_seconds']:.2f}",
    "peak MiB": lambda row: f"{row['peak_memory_bytes'] / 2**20:,.0f}",
    "test accuracy": lambda row: f"{row['test_accuracy']:.2%}",
}


def compare(arguments: Arguments, setting: Setting, folder: Path) -> list[Row]:
    """Runs all peers, and returns one row per peer and phase."""
    task = write_task(arguments, setting, folder)
    with contextlib.ExitStack() as stack:
        workers = start_workers(arguments.peers, task, arguments.python, folder, stack)
        training = take_turns(workers, "train", arguments.rounds + 1)
        inference = take_turns(workers, "classify", arguments.rounds + 1)
        rows = []
        for phase, answers in (("training", training), ("inference", inference)):
            lasted = {worker.name: answers[worker.name] for worker in workers}
            for worker in workers:
                row = make_row(worker.description, worker.name, phase, lasted, arguments, setting)
                row["test_accuracy"] = inference[worker.name][-1]["accuracy"]
                rows.append(row)
    return rows


def on_each_number_of_cores(numbers: Sequence[int]) -> Iterator[None]:
    """Restricts this process, and those that it starts, to each number of CPU cores in turn.

    Raises:
        ConfigError: there are fewer cores, or the system cannot restrict a process.
    """
    if not numbers:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise mnistjax.errors.ConfigError("--threads works on Linux only")
    cores = sorted(os.sched_getaffinity(0))
    for number in numbers:
        if not 1 <= number <= len(cores):
            raise mnistjax.errors.ConfigError(
                f"expected --threads from 1 to {len(cores)}, the cores here, found {number}"
            )
    try:
        for number in numbers:
            os.sched_setaffinity(0, cores[:number])
            yield
    finally:
        os.sched_setaffinity(0, cores)


@one_line_errors
def main(arguments: Arguments) -> None:
    """Compares, prints the tables, writes the file, and fails if the peers disagree."""
    if arguments.rounds < 1:
        raise mnistjax.errors.ConfigError(f"expected at least 1 round, found {arguments.rounds}")
    all_rows, found = [], []
    for _ in on_each_number_of_cores(arguments.threads):
        for setting in itertools.starmap(
            Setting, itertools.product(arguments.networks, arguments.batch_sizes)
        ):
            with tempfile.TemporaryDirectory() as folder:
                rows = compare(arguments, setting, Path(folder))
            if not rows:
                sys.exit("error: no peer could be measured")
            all_rows += rows
            # Written after each setting, because all of them may take hours.
            write_json_lines(arguments.json, all_rows)
            title = f"{setting.network}, batch {setting.batch_size}, {rows[0]['threads']} threads"
            print(f"\n{title}\n\n{table(rows, COLUMNS)}", flush=True)
            training = [row for row in rows if row["phase"] == "training"]
            found += [f"{title}: {it}" for it in disagreements(training, arguments.tolerance)]
    if found:
        sys.exit("\n".join(["error: the peers did not learn alike", *found]))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

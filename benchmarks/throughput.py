"""Training and inference images per second and device, of every recipe, on any platform.

    python benchmarks/throughput.py --json benchmarks/results/throughput.jsonl

Everything is measured twice: with the images resident on the device and whole stretches of steps
in one compiled loop (`device`), and with every batch sent from the host (`host`). Images are
random: no measurement depends on their content. README.md explains the columns.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from conditions import Row, command, conditions, spread, table, write_json_lines
from flops import layer_flops, matmul_peak, training_flops
from jax.sharding import Mesh
from programs import CLASSES, IMAGE_SHAPE, PROGRAMS, Case, Feed, Phase, Run

import mnistjax
from mnistjax.cli import one_line_errors


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    recipes: tuple[str, ...] = tuple(mnistjax.runs.RECIPES)
    """Names of recipes: network, optimizer, augmentation and, if none is given, batch size."""
    batch_sizes: tuple[int, ...] = ()
    """Images per step: of each device with weak scaling, of all devices together with strong."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the arithmetic; parameters stay float32."""
    devices: tuple[int, ...] = (1,)
    """Numbers of devices that share every batch; the efficiency is relative to the first."""
    scaling: Literal["weak", "strong"] = "weak"
    """Whether the batch grows with the number of devices, or is divided among them."""
    phases: tuple[Phase, ...] = ("training", "inference")
    """What the network does."""
    feeds: tuple[Feed, ...] = ("device", "host")
    """Where the images are."""
    runs: int = 5
    """Timed runs of each measurement, after a warm-up run."""
    seconds: float = 1.0
    """Least length of a run."""
    images: int = 60_000
    """Random images to draw the batches from."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per measurement; none if not given."""


def time_steps(run: Run, steps: int, *, runs: int, seconds: float) -> list[float]:
    """Returns the seconds per step of each timed run; a warm-up determines the length of runs."""

    def timed(repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            pending = run()
        jax.block_until_ready(pending)
        return time.perf_counter() - begin

    timed(1)
    repeats = max(1, round(seconds / timed(1)))
    return [timed(repeats) / (repeats * steps) for _ in range(runs)]


def measure(case: Case, phase: Phase, feed: Feed, peak: float, arguments: Arguments) -> Row:
    """Measures one case.

    Args:
        case: the recipe and the batch size.
        phase: training or inference.
        feed: where the images are.
        peak: peak FLOP/s of one device in matrix products.
        arguments: number and length of the runs.

    Returns:
        The row of the measurement.
    """
    run, compile_seconds = PROGRAMS[phase, feed](case)
    times = time_steps(run, case.steps, runs=arguments.runs, seconds=arguments.seconds)
    layers = layer_flops(case.model, IMAGE_SHAPE)
    flops = training_flops(layers) if phase == "training" else sum(layers)
    devices = case.mesh.size
    rates = [case.batch_size / seconds / devices for seconds in times]
    summary = spread("step_seconds", times) | spread("images_per_second_per_device", rates)
    achieved = summary["images_per_second_per_device"] * flops
    return {
        "benchmark": "throughput",
        "recipe": case.config.recipe,
        "phase": phase,
        "feed": feed,
        "batch_size_per_device": case.batch_size // devices,
        "devices": devices,
        "scaling": arguments.scaling,
        "dtype": arguments.dtype,
        "runs": arguments.runs,
        "warm_up_runs": 2,
        "compile_seconds": compile_seconds,
        **summary,
        "flops_per_image": flops,
        "flops_per_second_per_device": achieved,
        "matmul_peak_flops_per_second": peak,
        "share_of_peak": achieved / peak,
    }


COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "phase": lambda row: row["phase"],
    "images on": lambda row: row["feed"],
    "devices": lambda row: str(row["devices"]),
    "batch per device": lambda row: str(row["batch_size_per_device"]),
    "images/s per device": lambda row: f"{row['images_per_second_per_device']:,.0f}",
    "lowest to highest": lambda row: (
        f"{row['images_per_second_per_device_min']:,.0f} to "
        f"{row['images_per_second_per_device_max']:,.0f}"
    ),
    "efficiency": lambda row: f"{row['efficiency']:.0%}",
    "ms per step": lambda row: f"{1e3 * row['step_seconds']:.3f}",
    "MFLOP per image": lambda row: f"{row['flops_per_image'] / 1e6:.2f}",
    "GFLOP/s per device": lambda row: f"{row['flops_per_second_per_device'] / 1e9:,.1f}",
    "of matmul peak": lambda row: f"{row['share_of_peak']:.1%}",
    "compile s": lambda row: f"{row['compile_seconds']:.2f}",
}


def add_efficiency(rows: list[Row]) -> None:
    """Adds to each row its rate per device as a share of that on the first number of devices."""

    def case(row: Row) -> tuple[object, ...]:
        weak = row["scaling"] == "weak"
        size = row["batch_size_per_device"] * (1 if weak else row["devices"])
        return row["recipe"], row["phase"], row["feed"], size

    first: dict[tuple[object, ...], float] = {}
    for row in rows:
        rate = row["images_per_second_per_device"]
        row["efficiency"] = rate / first.setdefault(case(row), rate)


def make_case(
    config: mnistjax.TrainConfig,
    batch_size: int,
    devices: int,
    split: mnistjax.Split,
    arguments: Arguments,
) -> Case:
    """Returns the case of a recipe on a number of devices."""
    available = jax.devices()
    if not 1 <= devices <= len(available):
        raise mnistjax.errors.ConfigError(
            f"expected from 1 to {len(available)} devices, found --devices {devices}"
        )
    if arguments.scaling == "strong" and batch_size % devices:
        raise mnistjax.errors.ConfigError(
            f"expected a batch size that {devices} devices can share, found {batch_size}"
        )
    total = batch_size * (devices if arguments.scaling == "weak" else 1)
    mnistjax.steps_per_epoch(len(split), total)  # Rejects batches larger than the data.
    mesh = Mesh(np.array(available[:devices]), ("devices",))
    model = mnistjax.create_model(config.model, dtype=jnp.dtype(arguments.dtype))
    return Case(config, model, mesh, total, split)


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures, prints the table, and writes the file."""
    configs = [mnistjax.get_recipe(name) for name in arguments.recipes]
    random = np.random.default_rng(0)
    split = mnistjax.Split(
        images=random.integers(0, 256, (arguments.images, *IMAGE_SHAPE), np.uint8),
        labels=random.integers(0, CLASSES, arguments.images, np.int32),
    )
    cases = [
        make_case(config, batch_size, devices, split, arguments)
        for config in configs
        for batch_size in arguments.batch_sizes or (config.batch_size,)
        for devices in arguments.devices
    ]
    shared = {**conditions(), "command": command()}
    peak = matmul_peak(jnp.dtype(arguments.dtype))
    print(f"{shared['device']}, {arguments.dtype}: matmul peak {peak / 1e9:,.0f} GFLOP/s")
    rows: list[Row] = []
    for case, phase, feed in itertools.product(cases, arguments.phases, arguments.feeds):
        rows.append(measure(case, phase, feed, peak, arguments) | shared)
        add_efficiency(rows)
        write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

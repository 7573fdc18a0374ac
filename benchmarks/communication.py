"""What the devices exchange in one training step, read from the compiled program.

    python benchmarks/communication.py --devices 8

The parameters are the same on every kind of device, so virtual CPU devices show what is exchanged:
`XLA_FLAGS=--xla_force_host_platform_device_count=8`. From that, and from what the makers of two
machines say of them, a second table estimates how training would scale. SCALING.md explains it.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import tyro
from conditions import Row, command, conditions, table, write_json_lines
from flops import layer_flops, training_flops
from jax.sharding import NamedSharding, PartitionSpec
from programs import IMAGE_SHAPE, Case
from throughput import Arguments as ThroughputArguments
from throughput import make_case

import mnistjax
from mnistjax.cli import one_line_errors

_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute|collective-broadcast)(?:-start)?\("
)
_SHAPE = re.compile(r"(?P<dtype>[a-z]+)(?P<bits>\d*)\[(?P<sides>[\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices that train together; nothing of it is measured here.

    Attributes:
        name: what they are.
        devices: their number.
        flops: peak FLOP/s of one device in bfloat16, from its maker.
        bandwidth: bytes/s that one device sends to the others, from its maker.
        latency: seconds until a small message arrives, assumed.
        overhead: seconds of a step that no device saves, assumed: the start of its kernels.
    """

    name: str
    devices: int
    flops: float
    bandwidth: float
    latency: float
    overhead: float

    def exchange_seconds(self, size: float, operations: int) -> float:
        """Returns the time of sums of `size` bytes in all: bandwidth of a ring, depth of a tree."""
        if self.devices == 1:
            return 0.0
        share = 2 * (self.devices - 1) / self.devices
        depth = 2 * math.ceil(math.log2(self.devices))
        return share * size / self.bandwidth + operations * depth * self.latency

    def compute_seconds(self, flops: float) -> float:
        """Returns the time that one device computes, without the overhead."""
        return flops / (self.flops * _UTILIZATION)


# Small networks use a small share of a large device.
_UTILIZATION = 0.1
MACHINES = (
    Machine("8 H100 SXM (NVLink)", 8, 989e12, 450e9, 3e-6, 100e-6),
    Machine("256 TPU v5e (ICI)", 256, 197e12, 100e9, 1e-6, 30e-6),
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to compile."""

    recipes: tuple[str, ...] = tuple(mnistjax.runs.RECIPES)
    """Names of recipes."""
    devices: int = 8
    """Devices that share every batch."""
    json: Path | None = None
    """File of JSON lines to write anew, one line per recipe; none if not given."""


def collectives(program: str) -> dict[str, list[int]]:
    """Returns the sizes in bytes of what the devices exchange, by the kind of exchange.

    Args:
        program: the text of a compiled program.

    Returns:
        One entry per collective operation: the bytes of its result on one device.
    """
    found: dict[str, list[int]] = collections.defaultdict(list)
    for match in _COLLECTIVE.finditer(program):
        sizes = []
        for shape in _SHAPE.finditer(match["shapes"]):
            bits = int(shape["bits"] or 8)  # A predicate takes a byte.
            sizes.append(math.prod(int(side) for side in shape["sides"].split(",") if side) * bits)
        found[match["kind"]].append(sum(sizes) // 8)
    return dict(found)


def compile_step(case: Case) -> str:
    """Returns the text of the compiled train step."""
    step, state = case.train_step()
    batch = mnistjax.data.gather(case.split, np.zeros(case.batch_size, np.int32))
    whole = NamedSharding(case.mesh, PartitionSpec())
    jitted = jax.jit(step, out_shardings=whole, compiler_options=mnistjax.compiler_options())
    text = jitted.lower(state, case.place(batch, "devices")).compile().as_text()
    assert text is not None
    return text


def measure(case: Case) -> Row:
    """Compiles the step of a recipe and counts what it exchanges."""
    exchanged = collectives(compile_step(case))
    sizes = [size for kind in exchanged.values() for size in kind]
    parameters = jax.tree.leaves(case.train_step()[1].params)
    return {
        "benchmark": "communication",
        "recipe": case.config.recipe,
        "devices": case.mesh.size,
        "batch_size": case.batch_size,
        "flops_per_image": training_flops(layer_flops(case.model, IMAGE_SHAPE)),
        "parameter_bytes": sum(leaf.nbytes for leaf in parameters),
        "collectives": {kind: len(found) for kind, found in exchanged.items()},
        "bytes_per_step": sum(sizes),
    }


COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "devices": lambda row: str(row["devices"]),
    "batch": lambda row: str(row["batch_size"]),
    "MFLOP per image": lambda row: f"{row['flops_per_image'] / 1e6:.2f}",
    "parameters, kB": lambda row: f"{row['parameter_bytes'] / 1e3:,.1f}",
    "exchanged per step, kB": lambda row: f"{row['bytes_per_step'] / 1e3:,.1f}",
    "operations": lambda row: ", ".join(
        f"{count} {kind}" for kind, count in row["collectives"].items()
    ),
}


def estimate(row: Row, machine: Machine) -> Row:
    """Estimates how the training of a recipe scales.

    Args:
        row: what it exchanges, from `measure`.
        machine: the devices.

    Returns:
        Seconds of an exchange; the smallest batch per device that computes for as long as the
        exchange and the overhead take together; the efficiencies of strong scaling (the batch of
        the recipe is divided) and weak scaling (each device has that batch).
    """
    exchange = machine.exchange_seconds(row["bytes_per_step"], sum(row["collectives"].values()))

    compute = machine.compute_seconds(row["batch_size"] * row["flops_per_image"])
    alone, fixed = compute + machine.overhead, exchange + machine.overhead
    return {
        "recipe": row["recipe"],
        "machine": machine.name,
        "exchange_seconds": exchange,
        "balanced_batch": fixed / machine.compute_seconds(row["flops_per_image"]),
        "strong": alone / (compute + machine.devices * fixed),
        "weak": alone / (compute + fixed),
    }


ESTIMATES: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: row["recipe"],
    "machine": lambda row: row["machine"],
    "exchange, microseconds": lambda row: f"{1e6 * row['exchange_seconds']:.0f}",
    "batch per device to balance": lambda row: f"{row['balanced_batch']:,.0f}",
    "efficiency, strong": lambda row: f"{row['strong']:.1%}",
    "efficiency, weak": lambda row: f"{row['weak']:.1%}",
}


@one_line_errors
def main(arguments: Arguments) -> None:
    """Compiles, prints the table, and writes the file."""
    split = mnistjax.Split(np.zeros((60_000, *IMAGE_SHAPE), np.uint8), np.zeros(60_000, np.int32))
    shared = {**conditions(), "command": command()}
    rows: list[Row] = []
    for name in arguments.recipes:
        config = mnistjax.get_recipe(name)
        size = -(-config.batch_size // arguments.devices)
        case = make_case(config, size, arguments.devices, split, ThroughputArguments())
        rows.append(measure(case) | shared)
        write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))
    print(table([estimate(row, machine) for row in rows for machine in MACHINES], ESTIMATES))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""Commands that list versions, data sets and recipes."""

from __future__ import annotations

import importlib.resources
import json
import os
from typing import Any

import jax

import mnistjax
from mnistjax.cli.shell import make_table, show


def info() -> None:
    """Show versions, devices, and the folder of the data sets."""
    table = make_table("what", "value")
    for package, version in mnistjax.runs.package_versions().items():
        table.add_row(package, version)
    table.add_row("devices", ", ".join(str(device) for device in jax.devices()))
    table.add_row("CPU cores", str(os.cpu_count()))
    table.add_row("data", str(mnistjax.data.data_directory()))
    show(table)


def datasets() -> None:
    """List the data sets by name."""
    table = make_table("name", "classes", "training", "test", "from")
    for name, known in mnistjax.data.DATASETS.items():
        counts = [f"{size:,}" if size else "?" for size in (known.train_size, known.test_size)]
        origin = f"TFDS {known.builder}" if known.builder else "embedded"
        table.add_row(name, str(known.num_classes), *counts, origin)
    show(table)


def recipes() -> None:
    """List the recipes and their accuracy on MNIST."""
    measured = read_measured()
    columns = ("recipe", "parameters", "epochs", "seeds", "test %", "seconds", "target %")
    table, networks = make_table(*columns, numbers_from=1), make_table("recipe", "network")
    for name, recipe in mnistjax.runs.RECIPES.items():
        found = measured[name]
        spread = found["test_accuracy_sd"]
        table.add_row(
            name,
            f"{found['parameters']:,}",
            f"{recipe.config.epochs:g}",
            str(found["seeds"]),
            f"{100 * found['test_accuracy']:.2f}" + (f" ± {100 * spread:.2f}" if spread else ""),
            f"{found['train_seconds']:.1f}",
            f"{recipe.target:g} {recipe.measured_on}",
        )
        networks.add_row(name, recipe.summary)
    show(table)
    conditions = {f"{row['device']}, jax {row['versions']['jax']}" for row in measured.values()}
    print(
        f"\ntest: mean ± standard deviation; training time on {' and '.join(sorted(conditions))}\n"
    )
    show(networks)


def read_measured() -> dict[str, dict[str, Any]]:
    """Reads the measured accuracies of the recipes on MNIST, which `benchmarks/readme.py` wrote.

    Returns:
        For each recipe: `parameters`, `epochs`, `seeds` (their number), `test_accuracy` and
        `validation_accuracy` (means; None without validation images), `test_accuracy_sd` and
        `validation_accuracy_sd` (standard deviations; None also with one seed), `train_seconds`
        (median), `device` and `versions`.
    """
    file = importlib.resources.files("mnistjax.runs") / "measured.json"
    return json.loads(file.read_text(encoding="utf-8"))

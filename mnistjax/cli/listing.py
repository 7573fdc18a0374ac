"""Commands that list what there is."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import jax

import mnistjax
from mnistjax.cli.shell import make_table, show


def info() -> None:
    """Show versions, devices and where data is looked for."""
    packages = ("mnistjax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
    table = make_table("what", "value")
    table.add_row("python", platform.python_version())
    for package in packages:
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("devices", ", ".join(str(device) for device in jax.devices()))
    table.add_row("CPU cores", str(os.cpu_count()))
    table.add_row("data", str(mnistjax.data_directory()))
    show(table)


def datasets() -> None:
    """List the data sets by name."""
    table = make_table("name", "classes", "training", "test", "from")
    for name, known in mnistjax.DATASETS.items():
        counts = [f"{size:,}" if size else "?" for size in (known.train_size, known.test_size)]
        origin = f"TFDS {known.builder}" if known.builder else "embedded"
        table.add_row(name, str(known.num_classes), *counts, origin)
    show(table)


def recipes() -> None:
    """List the recipes, and the MNIST accuracy that each is to reach."""
    table = make_table("recipe", "epochs", "batch", "target", "network and training")
    for name, recipe in mnistjax.RECIPES.items():
        target = f"{recipe.target:g} % {recipe.measured_on}"
        epochs = f"{recipe.config.epochs:g}"
        table.add_row(name, epochs, str(recipe.config.batch_size), target, recipe.summary)
    show(table)

"""The command `mnistjax`: the door of the house, and its only `print` and `exit`."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

import mnistjax
from mnistjax.errors import MnistjaxError

_TYRO = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)

INTERRUPTED = 130  # What a shell reports for a program that Ctrl-C ended.


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Makes `main` end in one line and a non-zero status on a user's error or Ctrl-C.

    Args:
        main: the entry point of a program. Errors other than `MnistjaxError` pass: they are
            mistakes of the program, and their traceback is needed.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
        except MnistjaxError as error:
            sys.exit("error: " + " ".join(str(error).split()))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

    return wrapped


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """What a training program was asked for on its command line.

    Attributes:
        config: the settings.
        workdir: directory of the run.
        overwrite: whether the run that it already holds may be replaced.
        data_dir: folder of the data sets, or None for the default.
    """

    config: mnistjax.TrainConfig
    workdir: Path
    overwrite: bool
    data_dir: Path | None

    def run(self) -> mnistjax.FitResult:
        """Loads the data set, trains with a progress bar, and writes the run directory."""
        dataset = mnistjax.load_dataset(self.config.dataset, data_dir=self.data_dir)
        return mnistjax.fit(
            self.config,
            dataset,
            workdir=self.workdir,
            overwrite=self.overwrite,
            callbacks=[mnistjax.ProgressBar()],
        )


def parse_run_arguments(
    default: mnistjax.TrainConfig, arguments: Sequence[str] | None = None
) -> RunArguments:
    """Reads the flags of a training program: one for every setting, and those of `RunArguments`.

    Args:
        default: the settings that the flags change, unless `--recipe` names others.
        arguments: the words of the command line; those of the process if None.

    Raises:
        ConfigError: a setting out of its bounds.
        UnknownNameError: a recipe, model, optimizer or schedule that does not exist.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return tyro.cli(_run_flags(default, words), args=words, config=_TYRO)


class _Settings(mnistjax.TrainConfig):
    """The settings as tyro collects them, not checked yet: so the checks' errors stay ours."""

    def __post_init__(self) -> None:
        """Checks nothing."""


def _run_flags(default: mnistjax.TrainConfig, words: Sequence[str]) -> Callable[..., RunArguments]:
    recipe = _flag_value("recipe", words)
    if recipe and recipe != default.recipe:
        default = mnistjax.get_recipe(recipe)
    values = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    if _has_flag("steps", words) and not _has_flag("epochs", words):
        values["epochs"] = None

    settings = _Settings(**values)

    def train(
        config: _Settings = settings,
        workdir: Path | None = None,
        overwrite: bool = False,
        data_dir: Path | None = None,
    ) -> RunArguments:
        """Train a network, and measure it on all test images.

        Args:
            config: The settings.
            workdir: Directory of the run; if not given, a new one below runs/.
            overwrite: Replace the run that the directory already holds.
            data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
                TensorFlow Datasets uses.
        """
        checked = mnistjax.TrainConfig(**vars(config))
        if checked.dataset and Path(checked.dataset).is_dir():
            # The run may be evaluated from another folder.
            checked = checked.replace(dataset=str(Path(checked.dataset).resolve()))
        # Milliseconds, for runs that are started together.
        name = f"{checked.recipe}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
        return RunArguments(checked, workdir or Path("runs") / name, overwrite, data_dir)

    return train


def _has_flag(name: str, words: Sequence[str]) -> bool:
    return any(word.split("=")[0] == f"--{name}" for word in words)


def _flag_value(name: str, words: Sequence[str]) -> str | None:
    """Returns what stands behind `--name`, before tyro has read the words."""
    for word, following in itertools.zip_longest(words, words[1:]):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    dataset: str | None = None,
    data_dir: Path | None = None,
) -> None:
    """Measure the saved weights of a run on all test images.

    Args:
        run: Run directory, or a weights file.
        dataset: Data set to measure on; if not given, the one that the network was trained on.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
    """
    trained = mnistjax.load_weights(run)
    name = dataset or trained.config.dataset or trained.info.name
    data = mnistjax.load_dataset(name, data_dir=data_dir)
    for what in ("num_classes", "image_shape"):
        expected, found = getattr(trained.info, what), getattr(data.info, what)
        if expected != found:
            raise mnistjax.ConfigError(
                f"expected a data set of {what} {expected}, as in {run}, found {name} of {found}"
            )
    metrics = mnistjax.evaluate(trained.model, trained.variables, data.test)
    figures = metrics.compute()
    print(f"model    {trained.model.name}, from {run}")
    print(f"dataset  {data.info.name} ({data.source})")
    print(
        f"test accuracy {float(figures['accuracy']):.2%} on all {int(metrics.count):,} images, "
        f"loss {float(figures['loss']):.4f}"
    )


def info() -> None:
    """Show versions, devices and where data is looked for."""
    packages = ("mnistjax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
    table = _table("what", "value")
    table.add_row("python", platform.python_version())
    for package in packages:
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("devices", ", ".join(str(device) for device in jax.devices()))
    table.add_row("CPU cores", str(os.cpu_count()))
    table.add_row("data", str(mnistjax.data_directory()))
    _show(table)


def datasets() -> None:
    """List the data sets by name."""
    table = _table("name", "classes", "training", "test", "from")
    for name, known in mnistjax.DATASETS.items():
        counts = [f"{size:,}" if size else "?" for size in (known.train_size, known.test_size)]
        origin = f"TFDS {known.builder}" if known.builder else "embedded"
        table.add_row(name, str(known.num_classes), *counts, origin)
    _show(table)


def recipes() -> None:
    """List the recipes, and the MNIST accuracy that each is to reach."""
    table = _table("recipe", "epochs", "batch", "target", "network and training")
    for name, recipe in mnistjax.RECIPES.items():
        target = f"{recipe.target:g} % {recipe.measured_on}"
        epochs = f"{recipe.config.epochs:g}"
        table.add_row(name, epochs, str(recipe.config.batch_size), target, recipe.summary)
    _show(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show(table: Table) -> None:
    Console(highlight=False).print(table)


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: the words after `mnistjax`; those of the process if None.
    """
    words = sys.argv[1:] if arguments is None else arguments
    commands: dict[str, Callable[..., Any]] = {
        "train": _run_flags(mnistjax.get_recipe("cnn"), words),
        "evaluate": evaluate,
        "info": info,
        "datasets": datasets,
        "recipes": recipes,
    }
    asked = tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="mnistjax",
        description="Train small image classifiers in pure JAX.",
        args=words,
        config=_TYRO,
    )
    if isinstance(asked, RunArguments):
        asked.run()

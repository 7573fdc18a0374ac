"""The flags of a training program."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

import mnistjax
from mnistjax.cli.shell import FLAG_STYLE


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """What a training program was asked for on its command line.

    Attributes:
        config: the settings.
        workdir: directory of the run.
        overwrite: whether the run that it already holds may be replaced.
        data_dir: folder of the data sets, or None for the default.
        tensorboard: whether event files for TensorBoard are written too.
        report: whether report.html and plots/*.png are written too.
    """

    config: mnistjax.TrainConfig
    workdir: Path
    overwrite: bool
    data_dir: Path | None
    tensorboard: bool = False
    report: bool = True

    def callbacks(self) -> list[mnistjax.Callback]:
        """Returns what shows and records the run: a progress bar, and TensorBoard if asked for.

        Raises:
            ConfigError: TensorBoard was asked for and is not installed.
        """
        return [mnistjax.ProgressBar(), *([mnistjax.TensorBoard()] if self.tensorboard else [])]

    def run(self) -> mnistjax.FitResult:
        """Loads the data set, trains with a progress bar, and writes the run directory."""
        callbacks = self.callbacks()
        dataset = mnistjax.load_dataset(self.config.dataset, data_dir=self.data_dir)
        return mnistjax.fit(
            self.config,
            dataset,
            workdir=self.workdir,
            overwrite=self.overwrite,
            callbacks=callbacks,
            report=self.report,
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
    return tyro.cli(run_flags(default, words), args=words, config=FLAG_STYLE)


class _Settings(mnistjax.TrainConfig):
    """The settings as tyro collects them, not checked yet: so the checks' errors stay ours."""

    def __post_init__(self) -> None:
        """Checks nothing."""


def run_flags(default: mnistjax.TrainConfig, words: Sequence[str]) -> Callable[..., RunArguments]:
    """Returns the command that trains, with a flag for every setting.

    Args:
        default: the settings that the flags change, unless `--recipe` in `words` names others.
        words: the words of the command line.
    """
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
        tensorboard: bool = False,
        report: bool = True,
    ) -> RunArguments:
        """Train a network, and measure it on all test images.

        Args:
            config: The settings.
            workdir: Directory of the run; if not given, a new one below runs/.
            overwrite: Replace the run that the directory already holds.
            data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
                TensorFlow Datasets uses.
            tensorboard: Write event files for TensorBoard too, into tensorboard/ of the directory.
            report: Write no report.html and no plots/*.png, which takes some seconds.
        """
        checked = mnistjax.TrainConfig(**vars(config))
        if checked.dataset and Path(checked.dataset).is_dir():
            # The run may be evaluated from another folder.
            checked = checked.replace(dataset=str(Path(checked.dataset).resolve()))
        # Milliseconds, for runs that are started together.
        name = f"{checked.recipe}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
        return RunArguments(
            checked, workdir or Path("runs") / name, overwrite, data_dir, tensorboard, report
        )

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

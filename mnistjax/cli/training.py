"""The flags of a training program."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict, get_type_hints

import tyro

import mnistjax
from mnistjax.cli.shell import FLAG_STYLE


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """What a training program was asked for on its command line.

    Attributes:
        config: the settings.
        workdir: directory of the run.
        overwrite: whether a run that the directory already holds may be replaced.
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
        """Returns a progress bar, and those of TensorBoard and the report that were asked for.

        Raises:
            ConfigError: TensorBoard was asked for and is not installed.
        """
        chosen: list[mnistjax.Callback] = [mnistjax.ProgressBar()]
        if self.tensorboard:
            chosen.append(mnistjax.TensorBoard())
        if self.report:
            # Last: the others have said all that they have to say before it takes its seconds.
            chosen.append(mnistjax.WriteReport(verbose=True))
        return chosen

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
        )


def parse_run_arguments(
    default: mnistjax.TrainConfig, arguments: Sequence[str] | None = None
) -> RunArguments:
    """Reads the flags of a training program: one for every setting, and those of `RunArguments`.

    Args:
        default: the settings that the flags change, unless `--recipe` names others.
        arguments: the words of the command line; those of the process if None.

    Raises:
        ConfigError: a setting is out of its bounds.
        UnknownNameError: a recipe, model, optimizer or schedule does not exist.
    """
    return tyro.cli(train_command(default), args=arguments, config=FLAG_STYLE)


def train_command(default: mnistjax.TrainConfig) -> Callable[..., RunArguments]:
    """Returns the command that trains, with a flag for every setting.

    Args:
        default: the settings that the flags change, unless `--recipe` names others.
    """

    def train(
        settings: Mapping[str, Any],
        workdir: Path | None = None,
        overwrite: bool = False,
        data_dir: Path | None = None,
        tensorboard: bool = False,
        report: bool = True,
    ) -> RunArguments:
        """Train a network and measure it on all test images.

        Args:
            settings: The defaults shown are those without --recipe.
            workdir: Directory of the run; if not given, a new one in runs/.
            overwrite: Replace the run that the directory already holds.
            data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
                TensorFlow Datasets uses.
            tensorboard: Write event files for TensorBoard too, to tensorboard/ in the directory.
            report: Skip report.html and plots/*.png, which take some seconds.
        """
        config = _configure(default, settings)
        # Milliseconds, for runs that are started together.
        name = f"{config.recipe}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
        return RunArguments(
            config, workdir or Path("runs") / name, overwrite, data_dir, tensorboard, report
        )

    # From this annotation tyro makes a flag per setting, and hands over those that were given.
    train.__annotations__["settings"] = _settings_type(default)
    return train


def _configure(default: mnistjax.TrainConfig, given: Mapping[str, Any]) -> mnistjax.TrainConfig:
    """Returns the settings of the recipe, or the default ones, changed as the flags say."""
    recipe = given.get("recipe", default.recipe)
    base = default if recipe == default.recipe else mnistjax.get_recipe(recipe)
    config = base.replace(**given)
    dataset = config.dataset
    if dataset and dataset not in mnistjax.data.DATASETS and Path(dataset).is_dir():
        # Absolute, because the run may be evaluated from another folder.
        config = config.replace(dataset=str(Path(dataset).resolve()))
    return config


def _settings_type(default: mnistjax.TrainConfig) -> Any:
    """Returns a `TypedDict` of all settings, each optional, with what tyro shows of it."""
    hints = get_type_hints(mnistjax.TrainConfig, include_extras=True)
    described = _describe_settings()
    fields = {}
    for field in dataclasses.fields(default):
        shown = f"(default: {getattr(default, field.name)})"
        flag = tyro.conf.arg(help=described[field.name], help_behavior_hint=shown)
        fields[field.name] = Annotated[hints[field.name], flag]
    # `total=False`: tyro leaves out what was not given, so that a recipe's own settings stay.
    # mypy knows the functional form with literal names alone.
    return TypedDict("Settings", fields, total=False)  # type: ignore[operator]


def _describe_settings() -> dict[str, str]:
    """Returns the docstring of every setting, which Python itself keeps in the source alone."""
    (definition,) = ast.parse(inspect.getsource(mnistjax.TrainConfig)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
    }

"""The command-line flags of a training program."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast, get_type_hints

import tyro

import mnistjax
from mnistjax.cli.shell import FLAG_STYLE
from mnistjax.errors import ConfigError
from mnistjax.files import user_path


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """The parsed command line of a training program.

    Attributes:
        config: the settings.
        workdir: the run directory.
        overwrite: whether a run that the directory already holds may be replaced.
        data_dir: folder of the data sets, or None for the default.
        resume: whether a run that the directory already holds goes on.
        checkpoints: when checkpoints are saved and which are kept.
        tensorboard: whether to write event files for TensorBoard too.
        report: whether to write report.html and plots/*.png too.
    """

    config: mnistjax.TrainConfig
    workdir: Path
    overwrite: bool
    data_dir: Path | None
    resume: bool = False
    checkpoints: mnistjax.CheckpointPolicy = dataclasses.field(
        default_factory=mnistjax.CheckpointPolicy
    )
    tensorboard: bool = False
    report: bool = True

    def callbacks(self) -> list[mnistjax.Callback]:
        """Returns a progress bar and, if chosen, the callbacks of TensorBoard and the report.

        Raises:
            ConfigError: TensorBoard was chosen but is not installed.
        """
        chosen: list[mnistjax.Callback] = [mnistjax.ProgressBar()]
        if self.tensorboard:
            chosen.append(mnistjax.TensorBoard())
        if self.report:
            # Last, because it takes seconds and the output of the others should not wait for it.
            chosen.append(mnistjax.WriteReport(verbose=True))
        return chosen

    def run(self) -> mnistjax.FitResult:
        """Loads the data set, trains with a progress bar, and writes the run directory.

        Returns:
            What `mnistjax.fit` returned.
        """
        callbacks = self.callbacks()
        dataset = mnistjax.load_dataset(self.config.dataset, data_dir=self.data_dir)
        return mnistjax.fit(
            self.config,
            dataset,
            workdir=self.workdir,
            overwrite=self.overwrite,
            resume=self.resume,
            checkpoints=self.checkpoints,
            callbacks=callbacks,
        )


def parse_run_arguments(
    default: mnistjax.TrainConfig, arguments: Sequence[str] | None = None
) -> RunArguments:
    """Parses the flags of a training program: one per setting, and those of `RunArguments`.

    Args:
        default: the settings that the flags change, unless `--recipe` selects others.
        arguments: the words of the command line; those of the process if None.

    Returns:
        The parsed flags.

    Raises:
        ConfigError: a setting is out of bounds.
        UnknownNameError: a recipe, model, optimizer or schedule does not exist.
    """
    return tyro.cli(train_command(default), args=arguments, config=FLAG_STYLE)


def train_command(default: mnistjax.TrainConfig) -> Callable[..., RunArguments]:
    """Returns the command that trains, with one flag per setting.

    Args:
        default: the settings that the flags change, unless `--recipe` selects others.

    Returns:
        A function whose signature tyro turns into flags.
    """

    # Long, because tyro reads the flags from its signature and their help from its docstring.
    def train(
        settings: Mapping[str, Any],
        workdir: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None,
        overwrite: bool = False,
        resume: bool = False,
        checkpoint_every: str | None = None,
        keep_checkpoints: int = 2,
        keep_best_checkpoint: bool = False,
        deterministic: bool = False,
        data_dir: Path | None = None,
        tensorboard: bool = False,
        report: bool = True,
    ) -> RunArguments:
        """Train a network and measure it on all test images.

        Args:
            settings: The defaults shown are those without --recipe.
            workdir: Directory of the run; if not given, a new one in runs/.
            overwrite: Replace the run that the directory already holds.
            resume: Go on with the run that the directory already holds, or start it.
            checkpoint_every: Interval of checkpoints, such as 30s, 5min, 500steps or 1epoch; if not
                given, 30 s, or longer where that would take more than 2 % of the time.
            keep_checkpoints: Number of newest checkpoints to keep.
            keep_best_checkpoint: Keep the checkpoint of the best validation accuracy, too.
            deterministic: Give the same bits in every run on a GPU, which is slower there; on a CPU
                they are always the same.
            data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
                TensorFlow Datasets uses.
            tensorboard: Write event files for TensorBoard too, to tensorboard/ in the directory.
            report: Skip report.html and plots/*.png, which take some seconds.
        """
        config = _configure(default, settings)
        if deterministic:
            config = config.replace(deterministic=True)
        if resume and workdir is None:
            raise ConfigError("--resume needs the --workdir of the run, found none")
        checkpoints = mnistjax.CheckpointPolicy(
            every=checkpoint_every, keep=keep_checkpoints, keep_best=keep_best_checkpoint
        )
        # With milliseconds, so that runs that start at the same time get different names.
        name = f"{config.recipe}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
        return RunArguments(
            config=config,
            workdir=Path("runs") / name if workdir is None else user_path(workdir, "workdir"),
            overwrite=overwrite,
            data_dir=data_dir,
            resume=resume,
            checkpoints=checkpoints,
            tensorboard=tensorboard,
            report=report,
        )

    # From this annotation tyro makes one flag per setting; it passes on only those that were given.
    train.__annotations__["settings"] = _settings_type(default)
    return train


def _configure(default: mnistjax.TrainConfig, given: Mapping[str, Any]) -> mnistjax.TrainConfig:
    """Returns the settings of the recipe, or the default ones, changed by the flags."""
    recipe = given.get("recipe", default.recipe)
    base = default if recipe == default.recipe else mnistjax.get_recipe(recipe)
    config = base.replace(**given)
    dataset = config.dataset
    if dataset and dataset not in mnistjax.data.DATASETS and Path(dataset).is_dir():
        # Absolute, because the run may be evaluated from another folder.
        config = config.replace(dataset=str(Path(dataset).resolve()))
    return config


def _settings_type(default: mnistjax.TrainConfig) -> Any:
    """Returns a `TypedDict` of all settings, each optional and with the help that tyro shows."""
    hints = get_type_hints(mnistjax.TrainConfig, include_extras=True)
    described = _describe_settings()
    fields = {}
    for field in dataclasses.fields(default):
        if hints[field.name] is bool:  # Without a default, tyro would make it `--no-...`.
            continue
        shown = f"(default: {getattr(default, field.name)})"
        flag = tyro.conf.arg(help=described[field.name], help_behavior_hint=shown)
        fields[field.name] = Annotated[hints[field.name], flag]
    # `total=False`: tyro leaves out what was not given, so that a recipe's own settings stay.
    # The cast: type checkers accept the functional form only with literal names.
    return cast(Any, TypedDict)("Settings", fields, total=False)


def _describe_settings() -> dict[str, str]:
    """Returns the docstrings of all settings, which Python keeps only in the source."""
    (definition,) = ast.parse(inspect.getsource(mnistjax.TrainConfig)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
    }

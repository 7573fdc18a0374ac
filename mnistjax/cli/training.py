"""The command-line flags of a training program."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import datetime
import inspect
import itertools
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast, get_type_hints

import jax
import tyro

import mnistjax
from mnistjax.cli.compilation_cache import use_compilation_cache
from mnistjax.cli.launching import heartbeat
from mnistjax.cli.shell import FLAG_STYLE, check_teacher_is_given
from mnistjax.errors import ConfigError, RunError
from mnistjax.files import user_path
from mnistjax.runs.processes import together

# What JAX says when another process is gone; other errors of its runtime are not about processes.
_LOST = re.compile(r"UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|[Gg]loo|NCCL")


@dataclasses.dataclass(frozen=True)
class Processes:
    """How this process finds the others; JAX finds out what is None where it can.

    Attributes:
        coordinator: host:port of process 0.
        count: number of processes.
        number: number of this process, from 0.
    """

    coordinator: str | None = None
    count: int | None = None
    number: int | None = None

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Connects this process with the others.

        Raises:
            ConfigError: something is missing, or does not fit.
            RunError: the other processes cannot be reached, or one of them was lost.
        """
        mnistjax.runs.initialize(self.coordinator, self.count, self.number)
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if not _LOST.search(str(error)):
                raise
            reason = str(error).splitlines()[0]
            raise RunError(
                f"the other processes were lost, and with --workdir and --resume the run goes on: "
                f"{reason}"
            ) from error


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
        devices: number of devices, or "all"; None for the default.
        images: where the training images are kept.
        processes: the processes that train together; None for this one alone.
        compilation_cache: whether compiled programs are kept for later processes.
        tensorboard: whether to write event files for TensorBoard too.
        report: whether to write report.html, draw.html and plots/*.png too.
        teacher: directory of the network, or of the population, that teaches; None for none.
    """

    config: mnistjax.TrainConfig
    workdir: Path
    overwrite: bool
    data_dir: Path | None
    resume: bool = False
    checkpoints: mnistjax.CheckpointPolicy = dataclasses.field(
        default_factory=mnistjax.CheckpointPolicy
    )
    devices: int | str | None = None
    images: str = "auto"
    processes: Processes | None = None
    compilation_cache: bool = True
    tensorboard: bool = False
    report: bool = True
    teacher: Path | None = None

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
        # First, because the others may take long.
        return [*heartbeat(), *chosen]

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Turns on the compilation cache and connects this process with others, as chosen.

        Raises:
            ConfigError: what is said of the processes does not fit.
            RunError: the other processes cannot be reached, or one of them was lost.
        """
        if self.compilation_cache:
            use_compilation_cache()
        with self.processes.connected() if self.processes else contextlib.nullcontext():
            yield

    def run(self) -> mnistjax.FitResult:
        """Loads the data set, trains with a progress bar, and writes the run directory.

        Returns:
            What `mnistjax.fit` returned.
        """
        callbacks = self.callbacks()
        with self.environment():
            with together():
                dataset = mnistjax.load_dataset(self.config.dataset, data_dir=self.data_dir)
                teacher = mnistjax.runs.load_teacher(self.teacher) if self.teacher else None
            return mnistjax.fit(
                self.config,
                dataset,
                workdir=self.workdir,
                overwrite=self.overwrite,
                resume=self.resume,
                checkpoints=self.checkpoints,
                devices=self.devices,
                images=self.images,
                callbacks=callbacks,
                teacher=teacher,
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
        devices: str | None = None,
        images: Literal["auto", "replicated", "sharded", "streamed"] = "auto",
        distributed: bool = False,
        coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None,
        num_processes: int | None = None,
        process_id: int | None = None,
        data_dir: Path | None = None,
        compilation_cache: bool = True,
        tensorboard: bool = False,
        report: bool = True,
        teacher: Path | None = None,
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
            devices: Number of devices of each process that share each batch, or all; if not given,
                all accelerators, or one CPU.
            images: Where training images are kept: replicated on every device, sharded over the
                devices, streamed from the host, or the first of these that fits.
            distributed: Train in several processes, of which this is one. JAX finds the others on a
                TPU and under Slurm, Open MPI and Kubernetes; the next three flags say it elsewhere.
            coordinator: Address of process 0.
            num_processes: Number of processes.
            process_id: Number of this process, from 0.
            data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
                TensorFlow Datasets uses.
            compilation_cache: Compile anew, without the programs that are kept in the user's cache
                directory; MNISTJAX_COMPILATION_CACHE=off does so for all commands.
            tensorboard: Write event files for TensorBoard too, to tensorboard/ in the directory.
            report: Skip report.html, draw.html and plots/*.png, which take some seconds.
            teacher: Directory of a run or a sweep; the network learns from its probabilities too.
        """
        check_teacher_is_given(settings, teacher)
        config = configure(default, settings)
        if deterministic:
            config = config.replace(deterministic=True)
        processes = Processes(coordinator, num_processes, process_id) if distributed else None
        if not distributed and (coordinator, num_processes, process_id) != (None, None, None):
            raise ConfigError("--coordinator, --num-processes and --process-id need --distributed")
        if resume and workdir is None:
            raise ConfigError("--resume needs the --workdir of the run, found none")
        checkpoints = mnistjax.CheckpointPolicy(
            every=checkpoint_every, keep=keep_checkpoints, keep_best=keep_best_checkpoint
        )
        return RunArguments(
            config=config,
            workdir=choose_workdir(workdir, config.recipe),
            overwrite=overwrite,
            data_dir=data_dir,
            resume=resume,
            checkpoints=checkpoints,
            devices=_parse_devices(devices),
            images=images,
            processes=processes,
            compilation_cache=compilation_cache,
            tensorboard=tensorboard,
            report=report,
            teacher=teacher,
        )

    # From this annotation tyro makes one flag per setting; it passes on only those that were given.
    train.__annotations__["settings"] = settings_type(default)
    return train


def choose_workdir(workdir: str | None, name: str) -> Path:
    """Returns the directory that was given, or a new one in `runs/`.

    Args:
        workdir: the flag of the command line; None if it was not given.
        name: what the name of a new directory begins with; the date and the time follow.

    Raises:
        ConfigError: the path cannot be used.
    """
    if workdir is not None:
        return user_path(workdir, "workdir")
    # With milliseconds, so that runs that start at the same time get different names.
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]


def _parse_devices(text: str | None) -> int | str | None:
    if text is None or text == "all":
        return text
    if not text.isdecimal():
        raise ConfigError(f"--devices must be a positive integer or all, found {text}")
    return int(text)


def configure(default: mnistjax.TrainConfig, given: Mapping[str, Any]) -> mnistjax.TrainConfig:
    """Returns the settings of the recipe, or the default ones, changed by the flags.

    Args:
        default: the settings if no recipe is given.
        given: the flags that were given, by name.
    """
    recipe = given.get("recipe", default.recipe)
    base = default if recipe == default.recipe else mnistjax.get_recipe(recipe)
    config = base.replace(**given)
    dataset = config.dataset
    if dataset and dataset not in mnistjax.data.DATASETS and Path(dataset).is_dir():
        # Absolute, because the run may be evaluated from another folder.
        config = config.replace(dataset=str(Path(dataset).resolve()))
    return config


def settings_type(
    default: mnistjax.TrainConfig, *, several: Callable[[str], bool] = lambda name: False
) -> Any:
    """Returns a `TypedDict` of all settings, each optional and with the help that tyro shows.

    Args:
        default: the settings whose values are shown.
        several: whether the flag of a setting, by name, takes several values.
    """
    hints = get_type_hints(mnistjax.TrainConfig, include_extras=True)
    described = _describe_settings()
    fields = {}
    for field in dataclasses.fields(default):
        if hints[field.name] is bool:  # Without a default, tyro would make it `--no-...`.
            continue
        shown = f"(default: {getattr(default, field.name)})"
        flag = tyro.conf.arg(help=described[field.name], help_behavior_hint=shown)
        kind: Any = hints[field.name]
        if several(field.name):
            kind = types.GenericAlias(tuple, (kind, ...))
        fields[field.name] = Annotated[kind, flag]
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

"""The command that trains many networks with different seeds and settings."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import mnistjax
from mnistjax.cli.shell import check_teacher_is_given, make_table, show
from mnistjax.cli.training import choose_workdir, configure, settings_type
from mnistjax.errors import ConfigError, RunError
from mnistjax.report.sweep_page import name_spread

# All members have these in common, or, as the seed, a flag of their own.
_SINGLE = ("recipe", "dataset", "validation_fraction", "validation_seed")
_BOUNDED = {"uniform": mnistjax.runs.Uniform, "log-uniform": mnistjax.runs.LogUniform}
_LOG = logging.getLogger(__name__)
_SHOWN = {"validation_accuracy": "validation %", "test_accuracy": "test %"}


@dataclasses.dataclass(frozen=True)
class SweepArguments:
    """The parsed command line of `mnistjax sweep`.

    Attributes:
        config: the settings that all members have in common.
        lists: the values of each setting that varies, by name.
        combine: "product" or "zip".
        draws: number of draws from the distributions among `lists`, or None without one.
        draw_seed: seed of the draws.
        search: how members are selected on the way, or None.
        together: number of members that are trained side by side; None leaves it to the library.
        workdir: the directory of the population.
        overwrite: whether a population that the directory already holds may be replaced.
        resume: whether a population that the directory already holds goes on.
        data_dir: folder of the data sets, or None for the default.
        ensemble: whether the soft vote of the networks is measured, too.
        report: whether report.html is written, too.
        teacher: directory of the network, or of the population, that teaches; None for none.
    """

    config: mnistjax.TrainConfig
    lists: Mapping[str, Any]
    combine: Literal["product", "zip"]
    draws: int | None
    draw_seed: int
    search: mnistjax.runs.Halving | mnistjax.runs.PBT | None
    together: int | None
    workdir: Path
    overwrite: bool
    resume: bool
    data_dir: Path | None
    ensemble: bool
    report: bool = True
    teacher: Path | None = None

    def run(self) -> None:
        """Trains the population, and prints a line per member and the tables."""
        dataset = mnistjax.load_dataset(self.config.dataset, data_dir=self.data_dir)
        teacher = mnistjax.runs.load_teacher(self.teacher) if self.teacher else None
        begin = time.perf_counter()
        found = mnistjax.fit_population(
            self.config,
            dataset,
            combine=self.combine,
            draws=self.draws,
            draw_seed=self.draw_seed,
            search=self.search,
            together=self.together or "auto",
            workdir=self.workdir,
            overwrite=self.overwrite,
            resume=self.resume,
            teacher=teacher,
            on_member=self._print_member,
            **self.lists,
        )
        _print_summary(found)
        trained = sum(member.trained is not None for member in found.members)
        ended = sum(bool(member.history) for member in found.members)
        early = f", {ended} ended early," if ended else ""
        seconds = time.perf_counter() - begin
        print(f"\n{trained} of {len(found)} trained{early} in {seconds:.1f} s, in {self.workdir}")
        if not trained:
            raise RunError("expected a network, found that the training of all failed")
        if self.ensemble:
            accuracy = mnistjax.evaluate(found.ensemble(), dataset.test).summary()["accuracy"]
            print(f"soft vote of {trained} networks: {accuracy:.2%} of the test images")
        if self.report:
            _write_report(found)

    def _print_member(self, row: Mapping[str, Any]) -> None:
        settings = " ".join(f"{name}={_shorten(row[name])}" for name in self.lists)
        if row["error"]:
            print(f"{row['member']:4d}  {settings}  failed: {row['error']}", flush=True)
            return
        shares = [row[name] for name in _SHOWN]
        words = " ".join(
            f"{name.split('_')[0]} {share:.2%}"
            for name, share in zip(_SHOWN, shares, strict=True)
            if share is not None
        )
        print(f"{row['member']:4d}  {settings}  {words}  {row['train_seconds']:.1f} s", flush=True)


def sweep_command(default: mnistjax.TrainConfig) -> Callable[..., SweepArguments]:
    """Returns the command that trains a population, with a flag per setting.

    Args:
        default: the settings that the flags change, unless `--recipe` selects others.

    Returns:
        A function whose signature tyro turns into flags.
    """

    def sweep(
        settings: Mapping[str, Any],
        seeds: int = 1,
        combine: Literal["product", "zip"] = "product",
        draw: tuple[str, ...] = (),
        draws: int | None = None,
        draw_seed: int = 0,
        halving: bool = False,
        pbt: bool = False,
        together: int | None = None,
        workdir: str | None = None,
        overwrite: bool = False,
        resume: bool = False,
        deterministic: bool = False,
        data_dir: Path | None = None,
        ensemble: bool = False,
        report: bool = True,
        teacher: Path | None = None,
    ) -> SweepArguments:
        """Train networks with every combination of the given settings and several seeds.

        A flag with several values varies that setting. The table has mean and standard deviation
        over the seeds; the test images select nothing.

        Args:
            settings: The defaults shown are those without --recipe.
            seeds: Number of seeds for each combination, from --seed on.
            combine: Take every combination of the values, or the first ones of all flags together,
                then the second ones, and so on.
            draw: Settings to draw at random, each as NAME=KIND:VALUE:VALUE, for example
                learning-rate=log-uniform:1e-4:1e-2, momentum=uniform:0.8:0.99 or
                optimizer=choice:adam:muon.
            draws: Number of draws, for each combination of the other settings.
            draw_seed: Seed of the draws.
            halving: Successive halving: train all settings for a few epochs, then the best third
                for three times as many, and so on; by mean validation accuracy over the seeds.
            pbt: Population-based training: after each epoch the worst quarter of the networks goes
                on from the best quarter, with learning rates and other numbers changed a little.
            together: Number of networks that are trained side by side, in one program; if not
                given, 1 on CPU, and as many as fit in memory elsewhere.
            workdir: Directory of the population; if not given, a new one in runs/.
            overwrite: Replace the population that the directory already holds.
            resume: Go on with the population that the directory already holds, or start it.
            deterministic: Give the same bits in every run on a GPU, which is slower there; on a CPU
                they are always the same.
            data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
                TensorFlow Datasets uses.
            ensemble: Measure the soft vote of all networks, too.
            report: Skip report.html, the page that shows all networks.
            teacher: Directory of a run or a sweep; all networks learn from its probabilities too.
        """
        check_teacher_is_given(settings, teacher)
        if together is not None and together < 1:
            raise ConfigError(f"--together must be at least 1, found {together}")
        if seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, found {seeds}")
        if resume and workdir is None:
            raise ConfigError("--resume needs the --workdir of the population, found none")
        varying, fixed = _split(settings, draw)
        if halving and pbt:
            raise ConfigError("expected --halving or --pbt, found both")
        config = configure(default, fixed)
        if deterministic:
            config = config.replace(deterministic=True)
        if seeds > 1:
            varying["seed"] = range(config.seed, config.seed + seeds)
        return SweepArguments(
            config=config,
            lists=varying,
            combine=combine,
            draws=draws,
            draw_seed=draw_seed,
            search=_search(halving, pbt),
            together=together,
            workdir=choose_workdir(workdir, f"sweep-{config.recipe}"),
            overwrite=overwrite,
            resume=resume,
            data_dir=data_dir,
            ensemble=ensemble,
            report=report,
            teacher=teacher,
        )

    kinds = settings_type(default, several=lambda name: name not in (*_SINGLE, "seed"))
    sweep.__annotations__["settings"] = kinds
    return sweep


def _split(
    settings: Mapping[str, Any], draw: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the values or the distribution of each setting that varies, and the other settings.

    Raises:
        ConfigError: a flag has no values, or a setting has values and a distribution.
    """
    for name, values in settings.items():
        if values == ():
            raise ConfigError(f"--{name.replace('_', '-')} needs at least one value")
    varying: dict[str, Any] = {
        name: values
        for name, values in settings.items()
        if isinstance(values, tuple) and len(values) > 1
    }
    fixed = {
        name: values[0] if isinstance(values, tuple) else values
        for name, values in settings.items()
        if name not in varying
    }
    for name, distribution in map(_parse_distribution, draw):
        if name in varying:
            raise ConfigError(f"expected values or one distribution of {name}, found two")
        varying[name] = distribution
    return varying, fixed


def _parse_distribution(words: str) -> tuple[str, Any]:
    """Returns the setting and the distribution that `--draw` names."""
    name, _, description = words.partition("=")
    kind, *values = description.split(":")
    name = name.replace("-", "_")
    if kind == "choice" and values:
        return name, mnistjax.runs.Choice([_parse_value(value) for value in values])
    numbers = [_parse_value(value) for value in values]
    if kind in _BOUNDED and len(numbers) == 2 and not any(isinstance(n, str) for n in numbers):
        return name, _BOUNDED[kind](*map(float, numbers))
    raise ConfigError(
        "expected NAME=uniform:LOW:HIGH, NAME=log-uniform:LOW:HIGH or NAME=choice:VALUE:VALUE, "
        f"found --draw {words}"
    )


def _parse_value(word: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return word


def _search(halving: bool, pbt: bool) -> mnistjax.runs.Halving | mnistjax.runs.PBT | None:
    if halving:
        return mnistjax.runs.Halving()
    return mnistjax.runs.PBT() if pbt else None


def _shorten(value: Any) -> str:
    """Returns a setting in words; numbers that were drawn have more digits than one can read."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_summary(found: mnistjax.runs.Population) -> None:
    """Prints mean and spread over the seeds for each combination of the other settings."""
    lines = found.summary()
    names = [name for name in found.members[0].settings if name != "seed"]
    # Only where it says something, as 80 characters are not many.
    told = [name for name in ("failed", "eliminated") if any(line[name] for line in lines)]
    told += ["trained_epochs"] if "eliminated" in told else []
    titles = [name.replace("_", " ") for name in (*names, "n", *told)]
    table = make_table(*titles, *_SHOWN.values(), "95 % interval", numbers_from=len(names))
    for line in lines:
        cells = [_shorten(line[name]) for name in (*names, "n", *told)]
        cells += [name_spread(line[f"{name}_mean"], line[f"{name}_sd"]) for name in _SHOWN]
        low, high = line["test_accuracy_low"], line["test_accuracy_high"]
        cells.append("" if low is None else f"{100 * low:.2f} to {100 * high:.2f}")
        table.add_row(*cells)
    show(table, title="mean ± standard deviation over seeds")


def _write_report(found: mnistjax.runs.Population) -> None:
    """Writes the page of the population; if it fails, everything else is on disk already."""
    try:
        page = mnistjax.report.write_sweep_report(found)
    except Exception as error:  # Whatever it is, the networks are trained and kept.
        reason = " ".join(str(error).split()) or type(error).__name__
        _LOG.warning("the report failed, and the networks are kept: %s", reason)
    else:
        print(f"report in {page}")

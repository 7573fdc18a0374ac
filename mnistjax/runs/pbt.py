"""Population-based training: the worst members go on from the best, with changed settings."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnistjax.atomic import write_text_atomically
from mnistjax.errors import ConfigError, RunError
from mnistjax.files import read_json
from mnistjax.runs.build import traced_numbers
from mnistjax.runs.checkpoints import restore_latest, save_checkpoint
from mnistjax.runs.config import clip_setting
from mnistjax.runs.directory import claim_run_directory, says_not_writable, write_metrics
from mnistjax.runs.population_files import SEARCH
from mnistjax.runs.start import progress_template
from mnistjax.runs.trainer import Candidate, Trainer, check_validated, validation_accuracy

# Close to 1, what matters about a decay rate is how far it is from 1.
_DECAYS = ("momentum", "b1", "b2", "ema_decay")

# Who goes on from whom, and with which settings.
Move = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PBT:
    """Population-based training by validation accuracy.

    After every `interval` epochs, each of the worst members takes over weights and optimizer of one
    of the best ones, drawn at random, and its settings with each number that varies multiplied by
    one of `factors` (Jaderberg et al., 2017, https://arxiv.org/abs/1711.09846); of decay rates,
    the distance from 1 is multiplied. A member whose loss became NaN counts as one of the worst.

    Attributes:
        interval: epochs between two exchanges.
        share: share of the members that are replaced, and of those that replace them.
        factors: by which numbers are multiplied, each with the same probability.
        seed: seed of the draws. Each number of each member has draws of its own.

    Raises:
        ConfigError: an attribute is out of its bounds.
    """

    interval: int = 1
    share: float = 0.25
    factors: tuple[float, ...] = (0.8, 1.25)
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the attributes."""
        for name, least in (("interval", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"expected {name}, an integer from {least} on, found {value!r}")
        try:
            share, factors = float(self.share), tuple(float(factor) for factor in self.factors)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"expected numbers as share and factors: {error}") from error
        if not 0 < share <= 0.5:
            raise ConfigError(f"expected a share above 0, at most 0.5, found {self.share!r}")
        if not factors or not all(0 < factor < math.inf for factor in factors):
            raise ConfigError(f"expected positive factors, at least one, found {self.factors!r}")
        # The exchanges are written as JSON, which knows no numbers of NumPy.
        object.__setattr__(self, "share", share)
        object.__setattr__(self, "factors", factors)

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Checks that members can take over from each other.

        Raises:
            ConfigError: there are no validation images, fewer than two members, or no exchange
                before the end; members differ in more than seeds and numbers that a compiled
                program takes as arguments; no such number varies; or a run may stop early.
        """
        check_validated(candidates)
        for one in candidates:
            if one.config.patience is not None:
                found = f"patience={one.config.patience}"
                raise ConfigError(f"expected no early stopping, found {found}")
        if len(candidates) < 2 or candidates[0].epochs <= self.interval:
            raise ConfigError(
                f"expected at least two members and more than {self.interval} epochs, found "
                f"{len(candidates)} and {candidates[0].epochs}"
            )
        if len({one.group for one in candidates}) > 1:
            raise ConfigError(
                "expected members that share a compiled program, as weights pass from one to "
                "another, found settings that need several"
            )
        if not _numbers(candidates):
            raise ConfigError(
                "expected a number that varies, of those that programs take as arguments: "
                + ", ".join(traced_numbers(candidates[0].config))
            )

    def moves(
        self, accuracies: Sequence[float | None], settings: Sequence[Mapping[str, Any]], number: int
    ) -> list[Move]:
        """Decides who goes on from whom.

        Args:
            accuracies: validation accuracy of each member; None if its training failed.
            settings: the numbers of each member that may be changed.
            number: number of the exchange, from 0.

        Returns:
            A row per member that is replaced: its number, `member`, that of the one from which it
            goes on, `source`, and its new numbers, `settings`.

        >>> moves = PBT().moves([0.9, 0.7, 0.8, None], [{"learning_rate": 0.1}] * 4, 0)
        >>> [(move["member"], move["source"]) for move in moves]
        [(3, 0)]
        """
        sound = [member for member, found in enumerate(accuracies) if found is not None]
        ranked = sorted(sound, key=lambda member: -(accuracies[member] or 0.0))
        count = math.ceil(self.share * len(accuracies))
        best = ranked[:count]
        failed = [member for member, found in enumerate(accuracies) if found is None]
        # The worst are never among the best, even where few are left.
        worst = ranked[count:][::-1][: max(0, count - len(failed))]
        moves = []
        for member in [*failed, *worst] if best else []:
            rng = np.random.default_rng([self.seed, number, member])
            source = best[int(rng.integers(len(best)))]
            changed = {
                name: self._perturb(name, value, number, member)
                for name, value in settings[source].items()
            }
            moves.append({"member": member, "source": source, "settings": changed})
        return moves

    def _perturb(self, name: str, value: float, number: int, member: int) -> float:
        rng = np.random.default_rng([self.seed, number, member, *name.encode()])
        factor = self.factors[int(rng.integers(len(self.factors)))]
        changed = 1 - factor * (1 - value) if name in _DECAYS else factor * value
        return clip_setting(name, changed)

    def train(self, trainer: Trainer, candidates: Sequence[Candidate], *, resume: bool) -> None:
        """Trains candidates, with exchanges between them.

        Args:
            trainer: trains and keeps them.
            candidates: all candidates.
            resume: whether they may have been trained before.

        Raises:
            RunError: a member was stopped early, or a file is damaged or cannot be written; or as
                `fit`.
            Interrupted: as `fit`.
        """
        assert trainer.place is not None
        names, current = _numbers(candidates), list(candidates)
        journal = _Journal(trainer.place / SEARCH, names, len(current), resume=resume)
        for number, epochs in enumerate(range(self.interval, current[0].epochs, self.interval)):
            if number == len(journal.rounds):
                members = [
                    trainer.train(one, epochs=epochs, resume=resume or number > 0)
                    for one in current
                ]
                if any(member.trained for member in members):
                    raise RunError(
                        "expected members that train to their end, found one that stopped"
                    )
                accuracies = [validation_accuracy(member, epochs) for member in members]
                numbers = [{name: getattr(one.config, name) for name in names} for one in current]
                journal.add(self.moves(accuracies, numbers, number))
            before, moves = current, journal.rounds[number]
            current = _moved(before, moves)
            if number == len(journal.rounds) - 1 and not journal.applied:
                for move in moves:
                    one, source = current[move["member"]], before[move["source"]]
                    _take_over(trainer, one, source, epochs)
                journal.mark_applied()
        for one in current:
            trainer.train(one, resume=True)
            trainer.tell(one)


def _numbers(candidates: Sequence[Candidate]) -> list[str]:
    """Returns the numbers that vary, of those that programs take as arguments."""
    varying = []
    for name in traced_numbers(candidates[0].config):
        given = name in candidates[0].settings
        if given and len({one.settings[name] for one in candidates}) > 1:
            varying.append(name)
    return varying


def _moved(candidates: Sequence[Candidate], moves: Sequence[Move]) -> list[Candidate]:
    """Returns the candidates with the settings after an exchange."""
    moved = list(candidates)
    for move in moves:
        one = candidates[move["member"]]
        moved[one.number] = one.change(move["settings"])
    return moved


def _take_over(trainer: Trainer, one: Candidate, source: Candidate, epochs: int) -> None:
    """Replaces the run of a member by a copy of another one, with its own settings and key."""
    path, origin = trainer.directory(one), trainer.directory(source)
    assert path is not None
    assert origin is not None
    plan, its_plan = one.plan, source.plan
    template = progress_template(its_plan)
    progress = restore_latest(origin, its_plan, template, lambda: trainer.data)
    if progress is None or len(progress.history) != epochs:
        raise RunError(
            f"expected a checkpoint of member {source.number} after epoch {epochs}, found none in "
            f"{origin}"
        )
    # Its random draws differ from those of the other member from here on.
    state = dataclasses.replace(progress.state, key=jax.random.key(one.config.seed))
    # The history is that of the other member up to here, and says so.
    *before, last = progress.history
    history = (*before, {**last, "taken_over_from": source.number})
    progress = dataclasses.replace(progress, state=state, history=history)
    with (
        claim_run_directory(path, one.config, overwrite=True) as directory,
        says_not_writable(path),
    ):
        save_checkpoint(directory, plan, progress, trainer.data)
        write_metrics(path, progress.history)


class _Journal:
    """The exchanges on disk, written before they are made, so that a killed search goes on."""

    def __init__(self, path: Path, names: Sequence[str], count: int, *, resume: bool) -> None:
        """Begins without exchanges, or reads those of the search that goes on.

        Args:
            path: the file.
            names: the numbers that the search changes.
            count: number of members.
            resume: whether the search goes on.

        Raises:
            RunError: the file is damaged, or cannot be removed.
        """
        self._path, self.applied = path, True
        self.rounds: list[list[Move]] = []
        if not resume:
            with says_not_writable(path.parent):
                path.unlink(missing_ok=True)
        elif path.exists():
            try:
                content = read_json(path)
                self.rounds, self.applied = content["rounds"], bool(content["applied"])
                for move in itertools.chain.from_iterable(self.rounds):
                    _check_move(move, names, count)
            except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
                raise RunError(f"expected the exchanges of a search in {path}: {error}") from error

    def add(self, moves: list[Move]) -> None:
        """Notes an exchange that is about to be made."""
        self.rounds.append(moves)
        self._write(applied=False)

    def mark_applied(self) -> None:
        """Notes that the last exchange has been made."""
        self._write(applied=True)

    def _write(self, *, applied: bool) -> None:
        self.applied = applied
        content = {"applied": applied, "rounds": self.rounds}
        with says_not_writable(self._path.parent):
            write_text_atomically(self._path, json.dumps(content) + "\n")


def _check_move(move: Move, names: Sequence[str], count: int) -> None:
    """Raises an exception unless this is what `PBT.moves` returns."""
    members, settings = [move["member"], move["source"]], move["settings"]
    if not all(type(member) is int and 0 <= member < count for member in members):
        raise ValueError(f"there are no members {members}")
    if settings.keys() != set(names) or not all(map(math.isfinite, settings.values())):
        raise ValueError(f"they are not finite values of {', '.join(names)}")

"""The progress of a run: everything that the rest of the run depends on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from mnistjax.runs.plan import Plan
from mnistjax.training import Metrics, TrainState

History = tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """A position in a run, at any step, from which the run can go on.

    Attributes:
        state: the state of the training.
        metrics: sums over the images of the current epoch so far.
        history: one row per finished epoch.
        done: steps of the current epoch so far.
        seconds: training time of the current epoch so far.
        best: the state after the epoch with the best validation accuracy; None without early
            stopping.
        stopped: whether the run ends before its last step.
    """

    state: TrainState
    metrics: Metrics
    history: History = ()
    done: int = 0
    seconds: float = 0.0
    best: TrainState | None = None
    stopped: bool = False

    @property
    def kept(self) -> TrainState:
        """The state that the run would keep if it ended here."""
        return self.state if self.best is None else self.best

    @property
    def best_step(self) -> int:
        """The step of the best validation accuracy, the first of equal ones; -1 without one."""
        return _best_row(self.history)["step"]

    def step(self, plan: Plan) -> int:
        """Returns the number of updates so far."""
        return min(len(self.history) * plan.steps_per_epoch + self.done, plan.steps)

    def is_over(self, plan: Plan) -> bool:
        """Returns whether no epoch is left to train."""
        return self.stopped or len(self.history) == math.ceil(plan.steps / plan.steps_per_epoch)

    def finish_epoch(
        self, plan: Plan, row: dict[str, Any], metrics: Metrics, *, stop: bool
    ) -> Progress:
        """Returns the progress after an epoch, at the start of the next one.

        Args:
            plan: the run.
            row: the metrics of the epoch.
            metrics: the sums of no images.
            stop: whether a callback asked to stop.
        """
        history, best = (*self.history, row), self.best
        if plan.config.patience is not None:
            best_row = _best_row(history)
            best = self.state if best_row is row else best
            stop = stop or len(history) - 1 - history.index(best_row) >= plan.config.patience
        return Progress(
            state=self.state,
            metrics=metrics,
            history=history,
            best=best,
            stopped=stop,
        )


def _best_row(history: History) -> dict[str, Any]:
    rows = [row for row in history if row["validation_accuracy"] is not None]
    # `max` returns the first of equal rows.
    return max(rows, key=lambda row: row["validation_accuracy"], default={"step": -1})

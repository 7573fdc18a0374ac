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
        best_accuracy: its validation accuracy.
        waited: epochs since then.
        stopped: whether the run ends before its last step.
    """

    state: TrainState
    metrics: Metrics
    history: History = ()
    done: int = 0
    seconds: float = 0.0
    best: TrainState | None = None
    best_accuracy: float = -1.0
    waited: int = 0
    stopped: bool = False

    @property
    def kept(self) -> TrainState:
        """The state that the run would keep if it ended here."""
        return self.state if self.best is None else self.best

    def step(self, plan: Plan) -> int:
        """Returns the number of updates so far."""
        return min(len(self.history) * plan.steps_per_epoch + self.done, plan.steps)

    def is_over(self, plan: Plan) -> bool:
        """Returns whether no epoch is left to train."""
        return self.stopped or len(self.history) == math.ceil(plan.steps / plan.steps_per_epoch)

    def finish_epoch(self, plan: Plan, row: dict[str, Any], *, stop: bool) -> Progress:
        """Returns the progress after an epoch, at the start of the next one.

        Args:
            plan: the run.
            row: the metrics of the epoch.
            stop: whether a callback asked to stop.
        """
        best, best_accuracy, waited = self.best, self.best_accuracy, self.waited
        if plan.config.patience is not None:
            waited += 1
            if row["validation_accuracy"] > best_accuracy:
                best, best_accuracy, waited = self.state, row["validation_accuracy"], 0
            stop = stop or waited >= plan.config.patience
        return Progress(
            state=self.state,
            metrics=Metrics.empty(plan.dataset.info.num_classes),
            history=(*self.history, row),
            best=best,
            best_accuracy=best_accuracy,
            waited=waited,
            stopped=stop,
        )

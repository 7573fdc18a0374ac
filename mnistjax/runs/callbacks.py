"""Callbacks, whose hooks a run calls while it trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnistjax.errors import MnistjaxError
from mnistjax.runs.trained import FitResult

Row = Mapping[str, Any]

_LOG = logging.getLogger(__name__)


class Callback:
    """Base class of callbacks, which `fit` calls on the host; override the hooks that you need.

    A callback does not break the run: if a hook raises, a warning is logged with Python's
    `logging`, only `close` of this callback is called from then on, and the run continues. The one
    exception is a `MnistjaxError` in `on_start`, which ends the run before anything is trained.

    >>> class StopWhenAccurate(Callback):
    ...     def on_epoch(self, row):
    ...         return row["train_accuracy"] > 0.99
    """

    in_every_process = False
    """Whether all processes of a run call it, or the first one alone."""

    def on_start(self, run: Row) -> None:
        """Called once, before anything is compiled.

        Args:
            run: description of the run, with the keys `recipe, model, parameters, dataset, source,
                seed, train_count, validation_count, test_count, batch_size, steps,
                steps_per_epoch, device, device_count, process_count, images, workdir, step`; `step`
                is 0 unless the run is resumed. With a teacher, `teacher, teacher_sha256` as well.
        """

    def on_compiled(self, seconds: float) -> None:
        """Called once, after compilation, with the seconds that it took."""

    def on_steps(self, step: int) -> None:
        """Called several times per second, with the number of updates so far."""

    def on_epoch(self, row: Row) -> bool | None:
        """Called after each epoch with its row of `metrics.jsonl`.

        Returns:
            True to stop the run, which then ends as if this had been its last epoch.
        """

    def on_end(self, fitted: FitResult) -> None:
        """Called once, after testing, when all files are written.

        Args:
            fitted: the result that `fit` returns.
        """

    def close(self) -> None:
        """Called when the run is over, even if it failed."""


class Watchers:
    """The callbacks of a run, called so that none of them can break it."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        """Takes the callbacks, in the order in which they are called."""
        self._all = list(callbacks)
        self._listening = list(callbacks)

    def start(self, run: Row) -> None:
        """Calls `on_start` of every callback.

        Raises:
            MnistjaxError: a callback cannot work with this run.
        """
        self._tell("on_start", run, passing=(MnistjaxError,))

    def tell(self, hook: str, *arguments: Any) -> bool:
        """Calls a hook of every callback that has not failed yet.

        Returns:
            Whether any of them returned True.
        """
        return self._tell(hook, *arguments)

    def close(self) -> None:
        """Closes every callback, including those that have failed."""
        self._listening = list(self._all)
        self._tell("close")

    def _tell(self, hook: str, *arguments: Any, passing: tuple[type[Exception], ...] = ()) -> bool:
        answers = []
        for callback in list(self._listening):
            try:
                answers.append(getattr(callback, hook)(*arguments))
            except passing:
                raise
            # A user's code may raise anything, and rich raises SystemExit for a closed pipe.
            except (Exception, SystemExit) as error:
                self._listening.remove(callback)
                reason = " ".join(str(error).split()) or type(error).__name__
                name = f"{type(callback).__name__}.{hook}"
                _LOG.warning("%s failed, and the run goes on without it: %s", name, reason)
        # A comparison of NumPy's numbers is no `bool`.
        return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)


class ProgressBar(Callback):
    """Shows a progress bar and a line per epoch in a terminal, and only the lines elsewhere."""

    _bar: Any = None  # Stays None if an earlier callback ended the run in `on_start`.

    def on_start(self, run: Row) -> None:
        """Prints the data set, the model and the device, and starts the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(highlight=False, soft_wrap=True)
        counts = f"{run['train_count']:,} training, {run['validation_count']:,} validation"
        self._say(f"dataset  {run['dataset']} ({run['source']})")
        self._say(f"images   {counts}, {run['test_count']:,} test")
        self._say(f"model    {run['model']}, {run['parameters']:,} parameters, on {run['device']}")
        if "teacher" in run:
            self._say(f"teacher  {run['teacher']}")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        if run["step"]:
            self._say(f"resumed  after step {run['step']:,}")
        self._task = self._bar.add_task("compiling", total=run["steps"], completed=run["step"])
        # Without a terminal, rich would print an empty line at the end of the bar.
        if self._console.is_interactive:
            self._bar.start()

    def on_compiled(self, seconds: float) -> None:
        """Prints how long compilation took."""
        self._say(f"compiled in {seconds:.1f} s")
        self._bar.update(self._task, description="training")

    def on_steps(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def on_epoch(self, row: Row) -> None:
        """Prints the metrics of an epoch."""
        validation = ""
        if row["validation_accuracy"] is not None:
            validation = f"  validation {row['validation_accuracy']:.2%}"
        self._say(
            f"epoch {row['epoch']:>4.4g}  loss {row['train_loss']:.4f}  "
            f"training {row['train_accuracy']:.2%}{validation}  "
            f"{row['images_per_second']:,.0f} images/s"
        )

    def on_end(self, fitted: FitResult) -> None:
        """Prints the test accuracy and the directory of the results."""
        self.close()
        result = fitted.result
        self._say(
            f"test accuracy {result['test_accuracy']:.2%} on all {result['test_count']:,} images, "
            f"loss {result['test_loss']:.4f}, trained in {result['train_seconds']:.1f} s"
        )
        if fitted.workdir:
            self._say(f"results in {fitted.workdir}")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None and self._bar.live.is_started:
            self._bar.stop()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)

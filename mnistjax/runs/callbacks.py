"""What a run tells the outside while it goes on; every hook is silent by default."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mnistjax.errors import MnistjaxError
from mnistjax.runs.trained import FitResult

Row = Mapping[str, Any]

_LOG = logging.getLogger(__name__)


class Callback:
    """Hooks on the host side of `fit`; derive from it and override those that you need.

    A callback watches: one that raises is reported in one warning line (of Python's `logging`) and
    not called again, and the run goes on. Only a `MnistjaxError` of `on_start` ends the run, as
    nothing has been trained by then.
    """

    def on_start(self, run: Row) -> None:
        """Called once, before anything is compiled.

        Args:
            run: `recipe, model, parameters, dataset, source, seed, train_count,
                validation_count, test_count, batch_size, steps, steps_per_epoch, device,
                device_count, workdir`.
        """

    def on_compiled(self, seconds: float) -> None:
        """Called once, when everything is compiled, with the seconds that it took."""

    def on_steps(self, step: int) -> None:
        """Called several times per second, with the number of updates so far."""

    def on_epoch(self, row: Row) -> bool | None:
        """Called after each epoch with its row of `metrics.jsonl`.

        Returns:
            True asks the run to stop here; it then ends as if this had been its last epoch.
        """

    def on_end(self, fitted: FitResult) -> None:
        """Called once, after the test images, when everything lies on disk.

        Args:
            fitted: what `fit` is about to return.
        """

    def close(self) -> None:
        """Called when the run is over, also when it breaks off."""


class Watchers:
    """The callbacks of a run, none of which can harm it."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        """Takes the callbacks, to be told in this order."""
        self._all = list(callbacks)
        self._listening = list(callbacks)

    def start(self, run: Row) -> None:
        """Tells all that the run starts.

        Raises:
            MnistjaxError: a callback cannot be used as asked.
        """
        self._tell("on_start", run, passing=(MnistjaxError,))

    def tell(self, hook: str, *arguments: Any) -> bool:
        """Calls a hook of every callback that has not failed yet.

        Returns:
            Whether any of them answered True.
        """
        return self._tell(hook, *arguments)

    def close(self) -> None:
        """Closes all, those that have failed included."""
        self._listening = list(self._all)
        self._tell("close")

    def _tell(self, hook: str, *arguments: Any, passing: tuple[type[Exception], ...] = ()) -> bool:
        answers = []
        for callback in list(self._listening):
            try:
                answers.append(getattr(callback, hook)(*arguments))
            except passing:
                raise
            except Exception as error:  # Whatever it is, the training is worth more.
                self._listening.remove(callback)
                reason = " ".join(str(error).split()) or type(error).__name__
                name = f"{type(callback).__name__}.{hook}"
                _LOG.warning("%s failed, and the run goes on without it: %s", name, reason)
        return any(answer is True for answer in answers)


class ProgressBar(Callback):
    """A live bar and a line per epoch in a terminal, the lines alone elsewhere (drawn by rich)."""

    _bar: Any = None  # There is none where another callback broke the run off before it began.

    def on_start(self, run: Row) -> None:
        """Prints what is about to be trained, and on what; opens the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(highlight=False, soft_wrap=True)
        counts = f"{run['train_count']:,} training, {run['validation_count']:,} validation"
        self._say(f"dataset  {run['dataset']} ({run['source']})")
        self._say(f"images   {counts}, {run['test_count']:,} test")
        self._say(f"model    {run['model']}, {run['parameters']:,} parameters, on {run['device']}")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("compiling", total=run["steps"])
        # Rich ends a bar with an empty line where no terminal shows it.
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
        """Prints the line of an epoch."""
        validation = ""
        if row["validation_accuracy"] is not None:
            validation = f"  validation {row['validation_accuracy']:.2%}"
        self._say(
            f"epoch {row['epoch']:>4.4g}  loss {row['train_loss']:.4f}  "
            f"training {row['train_accuracy']:.2%}{validation}  "
            f"{row['images_per_second']:,.0f} images/s"
        )

    def on_end(self, fitted: FitResult) -> None:
        """Prints the test accuracy and where the results lie."""
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

"""What a run tells the outside while it goes on; every hook is silent by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


class Callback:
    """Hooks on the host side of `fit`; derive from it and override those that you need."""

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
        """Called several times a second, with the number of updates so far."""

    def on_epoch(self, row: Row) -> None:
        """Called after each epoch with its line of `metrics.jsonl`."""

    def on_end(self, result: Row) -> None:
        """Called once, after the test images, with the content of `result.json`."""

    def on_report(self, path: str) -> None:
        """Called once, before the report is written, where `mnistjax.fit` writes one.

        Args:
            path: the file that it will be.
        """

    def close(self) -> None:
        """Called when the run is over, also when it breaks off."""


class ProgressBar(Callback):
    """A live bar and a line an epoch in a terminal, the lines alone elsewhere (drawn by rich)."""

    _bar: Any = None  # There is none where another callback broke the run off before it began.

    def on_start(self, run: Row) -> None:
        """Prints what is about to be trained, and on what; opens the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(highlight=False, soft_wrap=True)
        self._run = run
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

    def on_end(self, result: Row) -> None:
        """Prints the test accuracy and where the results lie."""
        self.close()
        self._say(
            f"test accuracy {result['test_accuracy']:.2%} on all {result['test_count']:,} images, "
            f"loss {result['test_loss']:.4f}, trained in {result['train_seconds']:.1f} s"
        )
        if self._run["workdir"]:
            self._say(f"results in {self._run['workdir']}")

    def on_report(self, path: str) -> None:
        """Prints where the report will lie: writing it takes some seconds."""
        self._say(f"writing the report {path}")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None and self._bar.live.is_started:
            self._bar.stop()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)

"""Trains once and prints the duration of every stage since the start of the process.

`fresh_process.py` starts this program; the arguments are a JSON object and the start time.
"""

import time

_FIRST_LINE = time.time()  # Before the other imports, whose time is measured too.

import json
import sys
from typing import Any

import mnistjax
from mnistjax.cli import one_line_errors

_IMPORTED = time.time()


class Stopwatch(mnistjax.Callback):
    """Records how long each stage takes.

    Attributes:
        stages: seconds of each stage, in order.
    """

    def __init__(self, started: float) -> None:
        self.stages: dict[str, float] = {}
        self._last = started

    def lap(self, stage: str, now: float | None = None) -> None:
        """Ends a stage, at `now` or the current time; repeated stages are summed."""
        now = time.time() if now is None else now
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now

    def on_compiled(self, seconds: float) -> None:
        """Ends the stage `compile`."""
        self.lap("compile")

    def on_steps(self, step: int) -> None:
        """Ends the stage `first_step`, or adds to `train`."""
        self.lap("train" if "first_step" in self.stages else "first_step")

    def on_epoch(self, row: Any) -> None:
        """Adds to `train`, including the evaluation of validation images."""
        self.lap("train")

    def on_end(self, fitted: mnistjax.FitResult) -> None:
        """Ends the stage `evaluate`, the evaluation of the test images."""
        self.lap("evaluate")


@one_line_errors
def main(request: dict[str, Any], started: float) -> None:
    """Trains, and prints the results as a JSON object."""
    from conditions import conditions

    watch = Stopwatch(started)
    watch.lap("interpreter", _FIRST_LINE)
    watch.lap("import", _IMPORTED)
    measured = conditions()
    watch.lap("backend")
    config = mnistjax.TrainConfig(**request["config"])
    dataset = mnistjax.load_dataset(config.dataset, data_dir=request["data_dir"])
    watch.lap("data")
    result = mnistjax.fit(config, dataset, callbacks=[watch]).result
    answer = {
        "result": {key: value for key, value in result.items() if key != "source"},
        "conditions": measured,
        "stages": watch.stages,
        "process_seconds": sum(watch.stages.values()),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), float(sys.argv[2]))

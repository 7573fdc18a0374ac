"""When checkpoints are saved, and which are kept."""

from __future__ import annotations

import dataclasses
import re

from mnistjax.errors import ConfigError

_INTERVAL = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|steps?|epochs?)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """When checkpoints are saved, and which are kept.

    A checkpoint is also saved at the end of training, and when the run is interrupted.

    Raises:
        ConfigError: an interval or a number is out of its bounds.

    >>> CheckpointPolicy(every="500steps").interval
    (500.0, 'step')
    """

    every: str | None = None
    """Interval: "30s", "5min", "500steps" or "1epoch". If not given, 30 s, or longer where saving
    would otherwise take more than 2 % of the time."""
    keep: int = 2
    """Number of checkpoints that are kept, the newest ones."""
    keep_best: bool = False
    """Whether to keep the checkpoint after the epoch of the best validation accuracy, too."""

    def __post_init__(self) -> None:
        """Checks the settings."""
        _ = self.interval
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 1:
            raise ConfigError(f"keep must be at least 1, found {self.keep!r}")

    @property
    def interval(self) -> tuple[float, str]:
        """The interval as a number and its unit: "s", "step" or "epoch"."""
        if self.every is None:
            return 30.0, "s"
        found = _INTERVAL.fullmatch(self.every) if isinstance(self.every, str) else None
        if found is None or not float(found[1]) > 0:
            raise ConfigError(
                'the interval of checkpoints must be like "30s", "5min", "500steps" or "1epoch", '
                f"found {self.every!r}"
            )
        number, unit = float(found[1]), found[2].removesuffix("s") or "s"
        if unit not in {"s", "min"} and not number.is_integer():
            raise ConfigError(f"expected a whole number of {unit}s, found {self.every!r}")
        return (60 * number, "s") if unit == "min" else (number, unit)


DEFAULT_POLICY = CheckpointPolicy()

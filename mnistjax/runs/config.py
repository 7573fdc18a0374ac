"""The configuration of a run: frozen, validated, and with all defaults in one place."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args, get_type_hints

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.files import parse_json
from mnistjax.models import MODELS
from mnistjax.training import OPTIMIZERS, SCHEDULES, make_optimizer

DEFAULT_EPOCHS = 10.0
ON_NAN = ("stop", "skip")
DTYPES = ("float32", "bfloat16")
MAX_STEPS = 2**31 - 1  # The step counter is an int32.
_MAX_FLOAT = 3e38  # About the largest float32.
_MIN_FLOAT = 1e-12
_BELOW_ONE = 1 - 1e-9


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The range of values of a setting, and its wording in error messages."""

    low: float
    high: float
    words: str


Share = Annotated[float, Bounds(0, _BELOW_ONE, "in [0, 1)")]
Positive = Annotated[float, Bounds(_MIN_FLOAT, _MAX_FLOAT, "positive, at most 3e38")]
Seed = Annotated[int, Bounds(0, 2**32 - 1, "from 0 to 2^32 - 1")]
Pixels = Bounds(0, 28, "from 0 to 28 pixels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run.

    Raises:
        UnknownNameError: a model, optimizer or schedule does not exist.
        ConfigError: a setting is out of its bounds, or two settings exclude each other.

    >>> TrainConfig(model="mlp", epochs=2).replace(learning_rate=0.01).learning_rate
    0.01
    """

    recipe: str = "custom"
    """Name of the recipe that the settings start from; every other flag changes one of them."""
    dataset: str | None = None
    """Data set: a name that `mnistjax datasets` lists, tfds:NAME, or the path of a folder with IDX
    or CSV files or pictures. If not given, mnist, or scikit-learn's digits if mnist is not
    available."""
    model: str = "cnn"
    """Network: softmax, mlp, mlp-50-50, cnn, cnn-dropout, cnn-bn, speed, minute,
    accuracy or tiny."""
    dtype: str = "float32"
    """Arithmetic of the network: float32, or bfloat16, which is faster on GPU and TPU. Parameters,
    batch statistics and the loss are float32 in either."""
    epochs: Annotated[float, Bounds(_MIN_FLOAT, 1e6, "positive, at most 1,000,000")] | None = None
    """Passes over the training images; fractions are allowed."""
    steps: Annotated[int, Bounds(1, MAX_STEPS, "from 1 to 2^31 - 1")] | None = None
    """Number of updates, instead of epochs."""
    batch_size: Annotated[int, Bounds(1, 1e9, "from 1 to 1,000,000,000")] = 128
    """Images per update."""
    microbatch_size: Annotated[int, Bounds(1, 1e9, "from 1 to 1,000,000,000")] | None = None
    """Most images whose gradients are computed at a time; those of the pieces of a batch are added
    up. If not given, it follows from the size of the processor's caches, and GPUs and TPUs compute
    whole batches. Networks with batch normalization need whole batches everywhere."""
    seed: Seed = 0
    """Seed of the parameters, the order of the images, dropout and augmentation."""

    optimizer: str = "adam"
    """Optimizer: sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, adadelta, lion, lamb or
    muon."""
    learning_rate: Positive = 1e-3
    """Highest learning rate."""
    schedule: str = "constant"
    """Learning-rate schedule: constant, linear, cosine, one-cycle, exponential or stepwise."""
    warmup: Share = 0.0
    """Share of the updates over which the learning rate first rises from zero."""
    momentum: Share | None = None
    """Momentum of the optimizers momentum, nesterov and rmsprop; their default if not given."""
    b1: Share | None = None
    """First decay rate of adam, adamw, lion and lamb; their default if not given."""
    b2: Share | None = None
    """Second decay rate of the same optimizers; their default if not given."""
    weight_decay: Annotated[float, Bounds(0, _MAX_FLOAT, "from 0 to 3e38")] | None = None
    """Weight decay of kernels, but not of biases and normalization; the optimizer's default if not
    given."""
    clip_norm: Positive | None = None
    """Largest global norm of the gradient; no clipping if not given."""
    label_smoothing: Share = 0.0
    """Share of the target that is spread evenly over all classes."""
    ema_decay: Share | None = None
    """Decay per step of a moving average of the weights, which is evaluated in their place. In step
    t it is min(ema_decay, (1 + t) / (10 + t)), so that the random initial weights lose influence.
    No averaging if not given."""
    distill_weight: Annotated[float, Bounds(0, 1, "from 0 to 1")] = 0.9
    """With a teacher: weight of its probabilities in the loss; the labels have the rest."""
    temperature: Annotated[float, Bounds(0.01, 1000, "from 0.01 to 1,000")] = 2.0
    """With a teacher: softmax temperature at which teacher and student are compared; a higher one
    gives small probabilities more influence."""

    shift: Annotated[int, Bounds(0, 27, "from 0 to 27 pixels")] = 0
    """Augmentation: largest shift in pixels."""
    rotate: Annotated[float, Bounds(0, 180, "from 0 to 180 degrees")] = 0.0
    """Augmentation: largest rotation in degrees."""
    scale: Share = 0.0
    """Augmentation: largest relative change of size."""
    cutout: Annotated[int, Pixels] = 0
    """Augmentation: side in pixels of a square that is set to zero."""
    elastic: Annotated[float, Pixels] = 0.0
    """Augmentation: strength in pixels of elastic distortion."""

    validation_fraction: Share = 0.1
    """Share of the training images of each class held out for validation; 0 holds out none."""
    validation_seed: Seed = 0
    """Seed that selects the validation images; independent of `seed`, so that runs with different
    seeds are validated on the same images."""
    patience: Annotated[int, Bounds(1, 1e9, "from 1 to 1,000,000,000")] | None = None
    """Early stopping: stop after this many epochs without a better validation accuracy, and restore
    the best weights. No early stopping if not given."""
    on_nan: str = "stop"
    """What to do where a gradient is NaN or infinite: stop, or skip the update; after 10 skipped
    updates in a row the run stops."""
    deterministic: bool = False
    """Same bits in every run on a GPU, which is slower there; on a CPU they are always the same."""

    def __post_init__(self) -> None:
        """Checks every setting, before anything is loaded or built."""
        tables: dict[str, Iterable[str]] = {
            "model": MODELS,
            "dtype": DTYPES,
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "on_nan": ON_NAN,
        }
        for kind, table in tables.items():
            name = getattr(self, kind)
            if not isinstance(name, str) or name not in table:
                raise UnknownNameError(kind, name, table)
        dataset = "" if self.dataset is None else self.dataset
        for name, text in (("recipe", self.recipe), ("dataset", dataset)):
            # Settings are read from files, and must not send codes to a terminal.
            if not (isinstance(text, str) and text.isprintable()):
                raise ConfigError(f"{name} must be printable text, found {text!r}")
        if not isinstance(self.deterministic, bool):
            raise ConfigError(f"deterministic must be true or false, found {self.deterministic!r}")
        if self.epochs is not None and self.steps is not None:
            raise ConfigError(f"give epochs ({self.epochs}) or steps ({self.steps}), not both")
        for name, (kind, bounds) in _numbers().items():
            _check_number(name, getattr(self, name), kind, bounds)
        if self.patience is not None and self.validation_fraction == 0:
            raise ConfigError("patience needs validation images: validation_fraction is 0")
        make_optimizer(self.optimizer, self.learning_rate, **self.optimizer_settings)

    @property
    def optimizer_settings(self) -> dict[str, float]:
        """The settings of the optimizer itself that were given."""
        given = {name: getattr(self, name) for name in ("momentum", "b1", "b2")}
        return {name: value for name, value in given.items() if value is not None}

    def num_steps(self, steps_per_epoch: int) -> int:
        """Returns the length of the run in updates, whichever unit it was given in (at least 1)."""
        if self.steps is not None:
            return self.steps
        epochs = DEFAULT_EPOCHS if self.epochs is None else self.epochs
        return max(1, round(epochs * steps_per_epoch))

    def replace(self, **changes: Any) -> TrainConfig:
        """Returns a validated copy with some settings changed.

        Changing `steps` clears `epochs`, and changing `epochs` clears `steps`.

        Raises:
            ConfigError: a setting is out of its bounds.
            UnknownNameError: there is no such setting, or no such model, optimizer or schedule.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError("setting", name, known)
        if changes.get("steps") is not None:
            changes.setdefault("epochs", None)
        elif changes.get("epochs") is not None:
            changes.setdefault("steps", None)
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Returns the settings as a JSON object, one line per setting."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Reads what `to_json` wrote.

        Raises:
            ConfigError: the text is not a JSON object, or a setting is out of its bounds or type.
            UnknownNameError: it has a setting that does not exist.
        """
        try:
            settings = parse_json(text)
        except ValueError as error:
            raise ConfigError(f"expected a JSON object of settings: {error}") from error
        if not isinstance(settings, Mapping):
            raise ConfigError(f"expected a JSON object of settings, got {type(settings).__name__}")
        return cls().replace(**{"epochs": None, "steps": None, **settings})


@functools.cache
def _numbers() -> dict[str, tuple[Any, Bounds]]:
    """Returns the type and the bounds of every setting that is a number, from its declaration."""
    found = {}
    for name, hint in get_type_hints(TrainConfig, include_extras=True).items():
        # `Annotated[float, Bounds(...)]`, alone or in a union with None.
        for part in (hint, *get_args(hint)):
            bounds = [it for it in getattr(part, "__metadata__", ()) if isinstance(it, Bounds)]
            if bounds:
                optional = part is not hint
                found[name] = (part.__origin__ | None if optional else part.__origin__, bounds[0])
    return found


def clip_setting(name: str, value: float) -> float:
    """Returns the nearest value that a setting may have.

    Args:
        name: a setting that is a number.
        value: its value, which may be out of its bounds.

    >>> clip_setting("rotate", 200.0)
    180
    """
    bounds = _numbers()[name][1]
    return min(max(value, bounds.low), bounds.high)


def _check_number(name: str, value: Any, kind: Any, bounds: Bounds) -> None:
    allowed = kind | int  # An int is accepted for a float.
    within = not isinstance(value, bool) and isinstance(value, allowed)
    # A NaN is not within bounds either.
    if not within or not (value is None or bounds.low <= value <= bounds.high):
        raise ConfigError(f"{name} must be {bounds.words}, found {value!r}")

"""mnistjax: train small image classifiers in pure JAX.

>>> import mnistjax
>>> dataset = mnistjax.load_dataset("digits")
>>> config = mnistjax.get_recipe("mlp").replace(epochs=1)
>>> fitted = mnistjax.fit(config, dataset)
>>> int(mnistjax.evaluate(fitted.trained, dataset.test).count)
360

The names that most programs need are exported here. Everything else is in a submodule: `augment`,
`data`, `errors`, `evaluation`, `export`, `models`, `ops`, `plots`, `reading`, `report`, `runs`,
`serving` and `training`. Each name is imported on first access, and so are jax, flax.linen and
optax.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # As in typing, whose import would take longer than all else here.
if TYPE_CHECKING:
    from typing import Any

    from mnistjax import data as data
    from mnistjax import errors as errors
    from mnistjax import evaluation as evaluation
    from mnistjax import export as export
    from mnistjax import models as models
    from mnistjax import plots as plots
    from mnistjax import reading as reading
    from mnistjax import report as report
    from mnistjax import runs as runs
    from mnistjax import serving as serving
    from mnistjax import training as training
    from mnistjax.data import Batch as Batch
    from mnistjax.data import Dataset as Dataset
    from mnistjax.data import DatasetInfo as DatasetInfo
    from mnistjax.data import Split as Split
    from mnistjax.data import augment as augment
    from mnistjax.data import epoch_order as epoch_order
    from mnistjax.data import load_dataset as load_dataset
    from mnistjax.data import steps_per_epoch as steps_per_epoch
    from mnistjax.evaluation import analyze as analyze
    from mnistjax.evaluation import compare_runs as compare_runs
    from mnistjax.evaluation import measure_robustness as measure_robustness
    from mnistjax.models import Model as Model
    from mnistjax.models import count_parameters as count_parameters
    from mnistjax.models import create_model as create_model
    from mnistjax.models import from_linen as from_linen
    from mnistjax.models import ops as ops
    from mnistjax.reading import predict as predict
    from mnistjax.reading import read_digits as read_digits
    from mnistjax.report import WriteReport as WriteReport
    from mnistjax.report import write_report as write_report
    from mnistjax.runs import Callback as Callback
    from mnistjax.runs import CheckpointPolicy as CheckpointPolicy
    from mnistjax.runs import FitResult as FitResult
    from mnistjax.runs import ProgressBar as ProgressBar
    from mnistjax.runs import TensorBoard as TensorBoard
    from mnistjax.runs import TrainConfig as TrainConfig
    from mnistjax.runs import TrainedModel as TrainedModel
    from mnistjax.runs import evaluate as evaluate
    from mnistjax.runs import fit as fit
    from mnistjax.runs import fit_population as fit_population
    from mnistjax.runs import get_recipe as get_recipe
    from mnistjax.runs import load_run as load_run
    from mnistjax.runs import load_weights as load_weights
    from mnistjax.runs import predict_logits as predict_logits
    from mnistjax.runs import save_weights as save_weights
    from mnistjax.training import Metrics as Metrics
    from mnistjax.training import TrainState as TrainState
    from mnistjax.training import compiler_options as compiler_options
    from mnistjax.training import create_train_state as create_train_state
    from mnistjax.training import make_epoch_fn as make_epoch_fn
    from mnistjax.training import make_eval_step as make_eval_step
    from mnistjax.training import make_optimizer as make_optimizer
    from mnistjax.training import make_schedule as make_schedule
    from mnistjax.training import make_train_step as make_train_step
    from mnistjax.training import scale_pixels as scale_pixels

__version__ = "0.1.0"

# The modules of the names, each imported when one of its names is first used. They load jax, which
# takes a second: the command line handles signals before that.
_NAMES = {
    "mnistjax.data": (
        "Batch",
        "Dataset",
        "DatasetInfo",
        "Split",
        "epoch_order",
        "load_dataset",
        "steps_per_epoch",
    ),
    "mnistjax.evaluation": ("analyze", "compare_runs", "measure_robustness"),
    "mnistjax.models": ("Model", "count_parameters", "create_model", "from_linen"),
    "mnistjax.reading": ("predict", "read_digits"),
    "mnistjax.report": ("WriteReport", "write_report"),
    "mnistjax.runs": (
        "Callback",
        "CheckpointPolicy",
        "FitResult",
        "ProgressBar",
        "TensorBoard",
        "TrainConfig",
        "TrainedModel",
        "evaluate",
        "fit",
        "fit_population",
        "get_recipe",
        "load_run",
        "load_weights",
        "predict_logits",
        "save_weights",
    ),
    "mnistjax.training": (
        "Metrics",
        "TrainState",
        "compiler_options",
        "create_train_state",
        "make_epoch_fn",
        "make_eval_step",
        "make_optimizer",
        "make_schedule",
        "make_train_step",
        "scale_pixels",
    ),
}
_NAMESPACES = {
    **{name: f"mnistjax.{name}" for name in ("data", "errors", "evaluation", "export", "models")},
    **{name: f"mnistjax.{name}" for name in ("plots", "reading", "report", "runs", "serving")},
    "training": "mnistjax.training",
    "augment": "mnistjax.data.augment",
    "ops": "mnistjax.models.ops",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULES) + list(_NAMESPACES)


def __getattr__(name: str) -> Any:
    """Imports a submodule, or a name from one, on first access."""
    if name in _NAMESPACES:
        value: Any = importlib.import_module(_NAMESPACES[name])
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists all public names, loaded or not."""
    return sorted({*globals(), *__all__})

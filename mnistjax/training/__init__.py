"""How it learns: state, step, metrics, optimizers, configuration, and the loop around them."""

from mnistjax.training.compiler import compiler_options as compiler_options
from mnistjax.training.metrics import Metrics as Metrics
from mnistjax.training.optimizers import OPTIMIZERS as OPTIMIZERS
from mnistjax.training.optimizers import SCHEDULES as SCHEDULES
from mnistjax.training.optimizers import make_optimizer as make_optimizer
from mnistjax.training.optimizers import make_schedule as make_schedule
from mnistjax.training.state import TrainState as TrainState
from mnistjax.training.state import create_train_state as create_train_state
from mnistjax.training.step import make_epoch_fn as make_epoch_fn
from mnistjax.training.step import make_eval_fn as make_eval_fn
from mnistjax.training.step import make_eval_step as make_eval_step
from mnistjax.training.step import make_train_step as make_train_step
from mnistjax.training.step import scale_pixels as scale_pixels

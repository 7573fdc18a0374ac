"""How it learns: state, step, metrics, optimizers, configuration, and the loop around them."""

from mnistjax.training.callbacks import Callback as Callback
from mnistjax.training.callbacks import ProgressBar as ProgressBar
from mnistjax.training.config import TrainConfig as TrainConfig
from mnistjax.training.loop import FitResult as FitResult
from mnistjax.training.loop import evaluate as evaluate
from mnistjax.training.loop import fit as fit
from mnistjax.training.metrics import Metrics as Metrics
from mnistjax.training.optimizers import OPTIMIZERS as OPTIMIZERS
from mnistjax.training.optimizers import SCHEDULES as SCHEDULES
from mnistjax.training.optimizers import make_optimizer as make_optimizer
from mnistjax.training.optimizers import make_schedule as make_schedule
from mnistjax.training.recipes import RECIPES as RECIPES
from mnistjax.training.recipes import Recipe as Recipe
from mnistjax.training.recipes import get_recipe as get_recipe
from mnistjax.training.rundir import read_result as read_result
from mnistjax.training.state import TrainState as TrainState
from mnistjax.training.state import create_train_state as create_train_state
from mnistjax.training.step import make_epoch_fn as make_epoch_fn
from mnistjax.training.step import make_eval_fn as make_eval_fn
from mnistjax.training.step import make_eval_step as make_eval_step
from mnistjax.training.step import make_train_step as make_train_step
from mnistjax.training.step import scale_pixels as scale_pixels
from mnistjax.training.weights import TrainedModel as TrainedModel
from mnistjax.training.weights import load_weights as load_weights
from mnistjax.training.weights import save_weights as save_weights

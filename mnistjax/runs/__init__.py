"""Training runs: settings, recipes, compiled programs, the training loop, files and callbacks."""

from mnistjax.runs.build import build_augment as build_augment
from mnistjax.runs.build import build_model as build_model
from mnistjax.runs.build import build_optimizer as build_optimizer
from mnistjax.runs.build import build_schedule as build_schedule
from mnistjax.runs.build import build_train_step as build_train_step
from mnistjax.runs.callbacks import Callback as Callback
from mnistjax.runs.callbacks import ProgressBar as ProgressBar
from mnistjax.runs.checkpoint_policy import CheckpointPolicy as CheckpointPolicy
from mnistjax.runs.config import TrainConfig as TrainConfig
from mnistjax.runs.directory import read_metrics as read_metrics
from mnistjax.runs.directory import read_result as read_result
from mnistjax.runs.loop import fit as fit
from mnistjax.runs.recipes import RECIPES as RECIPES
from mnistjax.runs.recipes import Recipe as Recipe
from mnistjax.runs.recipes import get_recipe as get_recipe
from mnistjax.runs.result import package_versions as package_versions
from mnistjax.runs.tensorboard import TensorBoard as TensorBoard
from mnistjax.runs.trained import FitResult as FitResult
from mnistjax.runs.trained import TrainedModel as TrainedModel
from mnistjax.runs.trained import check_same_kind as check_same_kind
from mnistjax.runs.trained import evaluate as evaluate
from mnistjax.runs.trained import load_run_dataset as load_run_dataset
from mnistjax.runs.trained import predict_logits as predict_logits
from mnistjax.runs.weights import load_run as load_run
from mnistjax.runs.weights import load_weights as load_weights
from mnistjax.runs.weights import save_weights as save_weights

"""mnistjax: train small image classifiers in pure JAX.

>>> import mnistjax
>>> dataset = mnistjax.load_dataset("digits")
>>> config = mnistjax.get_recipe("mlp").replace(epochs=1)
>>> result = mnistjax.fit(config, dataset)
>>> result.result["test_count"]
360

Importing it loads jax, flax and optax and nothing else that is heavy.
"""

from mnistjax.data import DATASETS as DATASETS
from mnistjax.data import Batch as Batch
from mnistjax.data import Dataset as Dataset
from mnistjax.data import DatasetInfo as DatasetInfo
from mnistjax.data import Split as Split
from mnistjax.data import compose as compose
from mnistjax.data import cutout as cutout
from mnistjax.data import data_directory as data_directory
from mnistjax.data import elastic as elastic
from mnistjax.data import epoch_order as epoch_order
from mnistjax.data import get_dataset_info as get_dataset_info
from mnistjax.data import load_dataset as load_dataset
from mnistjax.data import random_affine as random_affine
from mnistjax.data import random_rotate as random_rotate
from mnistjax.data import random_scale as random_scale
from mnistjax.data import random_shift as random_shift
from mnistjax.data import read_idx_folder as read_idx_folder
from mnistjax.data import read_kaggle_csv as read_kaggle_csv
from mnistjax.data import sequential_order as sequential_order
from mnistjax.data import split_validation as split_validation
from mnistjax.data import steps_per_epoch as steps_per_epoch
from mnistjax.data import stream_batches as stream_batches
from mnistjax.data import take_batch as take_batch
from mnistjax.errors import ConfigError as ConfigError
from mnistjax.errors import DataFormatError as DataFormatError
from mnistjax.errors import DatasetNotFoundError as DatasetNotFoundError
from mnistjax.errors import MnistjaxError as MnistjaxError
from mnistjax.errors import NonFiniteLossError as NonFiniteLossError
from mnistjax.errors import RunError as RunError
from mnistjax.errors import RunNotFoundError as RunNotFoundError
from mnistjax.errors import UnknownNameError as UnknownNameError
from mnistjax.models import CNN as CNN
from mnistjax.models import MLP as MLP
from mnistjax.models import MODELS as MODELS
from mnistjax.models import BatchNorm as BatchNorm
from mnistjax.models import Model as Model
from mnistjax.models import conv as conv
from mnistjax.models import conv_general_dilated as conv_general_dilated
from mnistjax.models import conv_pool as conv_pool
from mnistjax.models import count_parameters as count_parameters
from mnistjax.models import create_model as create_model
from mnistjax.models import from_linen as from_linen
from mnistjax.models import max_pool as max_pool
from mnistjax.training import OPTIMIZERS as OPTIMIZERS
from mnistjax.training import RECIPES as RECIPES
from mnistjax.training import SCHEDULES as SCHEDULES
from mnistjax.training import Callback as Callback
from mnistjax.training import FitResult as FitResult
from mnistjax.training import Metrics as Metrics
from mnistjax.training import ProgressBar as ProgressBar
from mnistjax.training import Recipe as Recipe
from mnistjax.training import TrainConfig as TrainConfig
from mnistjax.training import TrainedModel as TrainedModel
from mnistjax.training import TrainState as TrainState
from mnistjax.training import build_augment as build_augment
from mnistjax.training import build_model as build_model
from mnistjax.training import build_optimizer as build_optimizer
from mnistjax.training import build_train_step as build_train_step
from mnistjax.training import create_train_state as create_train_state
from mnistjax.training import evaluate as evaluate
from mnistjax.training import fit as fit
from mnistjax.training import get_recipe as get_recipe
from mnistjax.training import load_weights as load_weights
from mnistjax.training import make_epoch_fn as make_epoch_fn
from mnistjax.training import make_eval_fn as make_eval_fn
from mnistjax.training import make_eval_step as make_eval_step
from mnistjax.training import make_optimizer as make_optimizer
from mnistjax.training import make_schedule as make_schedule
from mnistjax.training import make_train_step as make_train_step
from mnistjax.training import read_result as read_result
from mnistjax.training import save_weights as save_weights
from mnistjax.training import scale_pixels as scale_pixels

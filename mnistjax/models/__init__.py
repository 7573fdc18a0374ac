"""Networks as pairs of pure functions, and the fast operations that they are built from."""

from mnistjax.models.cnn import CNN as CNN
from mnistjax.models.dense import MLP as MLP
from mnistjax.models.model import Model as Model
from mnistjax.models.model import PyTree as PyTree
from mnistjax.models.model import Variables as Variables
from mnistjax.models.model import count_parameters as count_parameters
from mnistjax.models.model import from_linen as from_linen
from mnistjax.models.norm import BatchNorm as BatchNorm
from mnistjax.models.ops import conv as conv
from mnistjax.models.ops import conv_general_dilated as conv_general_dilated
from mnistjax.models.ops import conv_pool as conv_pool
from mnistjax.models.ops import max_pool as max_pool
from mnistjax.models.registry import MODELS as MODELS
from mnistjax.models.registry import create_model as create_model

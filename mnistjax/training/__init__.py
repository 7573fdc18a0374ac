"""Training as pure functions, without files, clocks, printing or configuration objects."""

from mnistjax.training.averaging import ema_decay_at as ema_decay_at
from mnistjax.training.averaging import make_batch_stats_fn as make_batch_stats_fn
from mnistjax.training.compiler import compiler_options as compiler_options
from mnistjax.training.inference import EVAL_BATCH_SIZE as EVAL_BATCH_SIZE
from mnistjax.training.inference import in_batches as in_batches
from mnistjax.training.inference import logits_program as logits_program
from mnistjax.training.inference import measure_logits as measure_logits
from mnistjax.training.inference import predict_logits as predict_logits
from mnistjax.training.metrics import Metrics as Metrics
from mnistjax.training.optimizers import OPTIMIZERS as OPTIMIZERS
from mnistjax.training.optimizers import SCHEDULES as SCHEDULES
from mnistjax.training.optimizers import make_optimizer as make_optimizer
from mnistjax.training.optimizers import make_schedule as make_schedule
from mnistjax.training.pixels import scale_pixels as scale_pixels
from mnistjax.training.placing import on_one_device as on_one_device
from mnistjax.training.placing import put as put
from mnistjax.training.state import TrainState as TrainState
from mnistjax.training.state import create_train_state as create_train_state
from mnistjax.training.step import EvalStep as EvalStep
from mnistjax.training.step import TrainStep as TrainStep
from mnistjax.training.step import make_epoch_fn as make_epoch_fn
from mnistjax.training.step import make_eval_fn as make_eval_fn
from mnistjax.training.step import make_eval_step as make_eval_step
from mnistjax.training.step import make_stream_fn as make_stream_fn
from mnistjax.training.step import make_train_step as make_train_step

"""Data sets by name, strict readers of their files, batches, and augmentation."""

from mnistjax.data.augment import Augment as Augment
from mnistjax.data.augment import compose as compose
from mnistjax.data.augment import cutout as cutout
from mnistjax.data.augment import elastic as elastic
from mnistjax.data.augment import random_affine as random_affine
from mnistjax.data.augment import random_rotate as random_rotate
from mnistjax.data.augment import random_scale as random_scale
from mnistjax.data.augment import random_shift as random_shift
from mnistjax.data.batches import Batch as Batch
from mnistjax.data.batches import check_labels as check_labels
from mnistjax.data.batches import epoch_order as epoch_order
from mnistjax.data.batches import named_key as named_key
from mnistjax.data.batches import sequential_order as sequential_order
from mnistjax.data.batches import steps_per_epoch as steps_per_epoch
from mnistjax.data.batches import stream_batches as stream_batches
from mnistjax.data.batches import take_batch as take_batch
from mnistjax.data.idx import read_idx_folder as read_idx_folder
from mnistjax.data.kaggle_csv import read_kaggle_csv as read_kaggle_csv
from mnistjax.data.load import data_directory as data_directory
from mnistjax.data.load import load_dataset as load_dataset
from mnistjax.data.registry import DATASETS as DATASETS
from mnistjax.data.registry import get_dataset_info as get_dataset_info
from mnistjax.data.splits import Dataset as Dataset
from mnistjax.data.splits import DatasetInfo as DatasetInfo
from mnistjax.data.splits import Split as Split
from mnistjax.data.splits import split_validation as split_validation

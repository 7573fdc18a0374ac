"""What was learned: figures, robustness, a look inside, comparisons."""

from mnistjax.evaluation.analysis import Analysis as Analysis
from mnistjax.evaluation.analysis import Calibration as Calibration
from mnistjax.evaluation.analysis import ClassFigures as ClassFigures
from mnistjax.evaluation.analysis import Confusion as Confusion
from mnistjax.evaluation.analysis import analyse as analyse
from mnistjax.evaluation.analysis import known_wrong_labels as known_wrong_labels
from mnistjax.evaluation.comparison import Comparison as Comparison
from mnistjax.evaluation.comparison import ComparisonRow as ComparisonRow
from mnistjax.evaluation.comparison import McNemar as McNemar
from mnistjax.evaluation.comparison import PairTest as PairTest
from mnistjax.evaluation.comparison import compare_runs as compare_runs
from mnistjax.evaluation.comparison import mcnemar as mcnemar
from mnistjax.evaluation.inference import load_run as load_run
from mnistjax.evaluation.inference import predict_probabilities as predict_probabilities
from mnistjax.evaluation.insight import embed as embed
from mnistjax.evaluation.insight import first_layer_filters as first_layer_filters
from mnistjax.evaluation.insight import hidden_features as hidden_features
from mnistjax.evaluation.insight import saliency as saliency
from mnistjax.evaluation.robustness import CORRUPTIONS as CORRUPTIONS
from mnistjax.evaluation.robustness import Robustness as Robustness
from mnistjax.evaluation.robustness import corrupt as corrupt
from mnistjax.evaluation.robustness import measure_robustness as measure_robustness

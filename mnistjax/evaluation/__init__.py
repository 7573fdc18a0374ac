"""Evaluating trained networks: metrics, robustness, filters and saliency, comparison of runs."""

from mnistjax.evaluation.analysis import Analysis as Analysis
from mnistjax.evaluation.analysis import Calibration as Calibration
from mnistjax.evaluation.analysis import ClassMetrics as ClassMetrics
from mnistjax.evaluation.analysis import Confusion as Confusion
from mnistjax.evaluation.analysis import analyze as analyze
from mnistjax.evaluation.analysis import analyze_logits as analyze_logits
from mnistjax.evaluation.comparison import Comparison as Comparison
from mnistjax.evaluation.comparison import ComparisonRow as ComparisonRow
from mnistjax.evaluation.comparison import PairTest as PairTest
from mnistjax.evaluation.comparison import compare_runs as compare_runs
from mnistjax.evaluation.insight import first_layer_filters as first_layer_filters
from mnistjax.evaluation.insight import hidden_features as hidden_features
from mnistjax.evaluation.insight import project_2d as project_2d
from mnistjax.evaluation.insight import saliency as saliency
from mnistjax.evaluation.label_errors import find_label_errors as find_label_errors
from mnistjax.evaluation.robustness import CORRUPTIONS as CORRUPTIONS
from mnistjax.evaluation.robustness import Corruption as Corruption
from mnistjax.evaluation.robustness import Robustness as Robustness
from mnistjax.evaluation.robustness import corrupt as corrupt
from mnistjax.evaluation.robustness import measure_robustness as measure_robustness
from mnistjax.evaluation.sampling import draw_sample as draw_sample
from mnistjax.evaluation.significance import McNemar as McNemar
from mnistjax.evaluation.significance import Welch as Welch
from mnistjax.evaluation.significance import adjust_p_values as adjust_p_values
from mnistjax.evaluation.significance import mcnemar as mcnemar
from mnistjax.evaluation.significance import welch as welch

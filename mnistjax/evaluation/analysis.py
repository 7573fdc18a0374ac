"""Metrics of logits: accuracy, metrics per class, confusions, calibration, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnistjax.data import Dataset, DatasetInfo
from mnistjax.errors import DataFormatError
from mnistjax.evaluation.label_errors import find_label_errors
from mnistjax.evaluation.significance import CONFIDENCE_LEVEL
from mnistjax.runs import TrainedModel, check_same_kind, predict_logits
from mnistjax.training import EVAL_BATCH_SIZE, measure_logits

_BINS = 15
_MAX_CONFUSIONS = 10


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class; a ratio whose denominator is 0 counts as 0.

    Attributes:
        name: name of the class.
        precision: fraction of the predictions of this class that are right, TP / (TP + FP).
        recall: fraction of the images of this class that are predicted so, TP / (TP + FN).
        f1: harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).
        support: number of images of this class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """How many images of one class were predicted to be of another.

    Attributes:
        true: index of the true class.
        predicted: index of the class that was predicted instead.
        count: number of images.
    """

    true: int
    predicted: int
    count: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """How closely confidence matches accuracy: a reliability curve over B bins of equal width.

    The expected calibration error is the sum over the bins of n_b / N |accuracy_b - confidence_b|
    (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

    Attributes:
        edges: float64 [B + 1], from 0 to 1; a bin includes its upper edge.
        counts: int64 [B], images per bin, n_b.
        confidence: float64 [B], mean probability of the predicted class; NaN in an empty bin.
        accuracy: float64 [B], fraction of right predictions; NaN in an empty bin.
        ece: the expected calibration error.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """The metrics of a network on N labeled images, computed from its logits.

    Attributes:
        class_names: a name for each of the K classes.
        labels: int32 [N].
        probabilities: float32 [N, K], the softmax of the logits.
        predictions: int64 [N], the class of the largest logit of each image.
        accuracy: fraction of right predictions.
        interval: its 95 % confidence interval (Wilson's score interval).
        loss: mean cross-entropy in nats.
        confusion: int64 [K, K], number of images per true class (row) and predicted class
            (column).
        classes: the metrics of each class.
        top_confusions: the most frequent confusions, at most ten, in descending order.
        calibration: the reliability curve.
        accuracy_without_label_errors: accuracy without the images whose labels are known to be
            wrong; None if there are no such images, or only such images.
        count_without_label_errors: number of the remaining images, or None likewise.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    predictions: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    loss: float
    confusion: np.ndarray
    classes: tuple[ClassMetrics, ...]
    top_confusions: tuple[Confusion, ...]
    calibration: Calibration
    accuracy_without_label_errors: float | None
    count_without_label_errors: int | None

    @property
    def confidences(self) -> np.ndarray:
        """The probability of the predicted class, float32 [N]."""
        return np.max(self.probabilities, -1)

    @property
    def mistakes(self) -> np.ndarray:
        """Indices of the wrongly predicted images, the most confident first, int64 [M]."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        return wrong[np.argsort(-self.confidences[wrong], kind="stable")]


def analyze(
    trained: TrainedModel, dataset: Dataset, *, batch_size: int = EVAL_BATCH_SIZE
) -> Analysis:
    """Analyzes a network on all test images of a data set.

    Accuracy, loss and confusion matrix equal those of `evaluate(trained, dataset.test)` exactly.

    Args:
        trained: the network.
        dataset: the data set that the network was trained on, or another one with as many classes
            and the same image shape.
        batch_size: images per call of the compiled program.

    Returns:
        All metrics. Known label errors of MNIST are found, and the accuracy without them is
        given as well.

    Raises:
        ConfigError: the number of classes or the image shape of the data set differs from that of
            the network, or `batch_size` is less than 1.
        DataFormatError: a logit is not finite.

    >>> import mnistjax
    >>> digits = mnistjax.load_dataset("digits")
    >>> fitted = mnistjax.fit(mnistjax.get_recipe("softmax").replace(steps=5), digits)
    >>> analyze(fitted.trained, digits).accuracy == fitted.result["test_accuracy"]
    True
    """
    check_same_kind(trained, dataset.info)
    logits = predict_logits(trained, dataset.test.images, batch_size=batch_size)
    labels, errors = dataset.test.labels, find_label_errors(dataset)
    return analyze_logits(logits, labels, dataset.info, label_errors=errors)


def analyze_logits(
    logits: np.ndarray,
    labels: np.ndarray,
    info: DatasetInfo,
    *,
    label_errors: Sequence[int] = (),
) -> Analysis:
    """Analyzes logits of labeled images.

    Args:
        logits: float [N, K], as `predict_logits` returns them; N is at least 1.
        labels: int [N], 0 to K - 1.
        info: the data set, which has the names of the K classes.
        label_errors: indices of the images whose labels are known to be wrong, as
            `find_label_errors` returns them.

    Returns:
        All metrics.

    Raises:
        DataFormatError: the shapes do not match, there is no image, a label is out of range, or a
            logit is not finite.

    >>> info = DatasetInfo("pets", 2, ("cat", "dog"))
    >>> logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> analysis = analyze_logits(logits, np.array([0, 1, 1]), info)
    >>> analysis.confusion.tolist(), analysis.mistakes.tolist()
    ([[1, 0], [1, 1]], [1])
    """
    from scipy.special import softmax

    _check(logits, labels, info)
    # The dtypes of the compiled program, so that every argmax sees the same values.
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels, np.int32)
    metrics = measure_logits(logits, labels)
    summary = metrics.summary()
    probabilities = softmax(logits.astype(np.float64), -1)
    predictions = np.argmax(logits, -1)
    correct = predictions == labels
    kept = np.delete(correct, label_errors)
    apart = bool(len(label_errors)) and bool(len(kept))
    confusion = np.asarray(metrics.confusion, np.int64)
    return Analysis(
        class_names=info.class_names,
        labels=labels,
        probabilities=probabilities.astype(np.float32),
        predictions=predictions,
        accuracy=summary["accuracy"],
        interval=wilson_interval(int(correct.sum()), len(correct)),
        loss=summary["loss"],
        confusion=confusion,
        classes=_class_metrics(labels, predictions, info),
        top_confusions=_top_confusions(confusion),
        calibration=calibrate(np.max(probabilities, -1), correct),
        accuracy_without_label_errors=float(kept.mean()) if apart else None,
        count_without_label_errors=len(kept) if apart else None,
    )


def _check(logits: np.ndarray, labels: np.ndarray, info: DatasetInfo) -> None:
    count = len(labels)
    if count < 1 or logits.shape != (count, info.num_classes) or labels.shape != (count,):
        raise DataFormatError(
            f"expected labels [N] and logits [N, {info.num_classes}], N >= 1, "
            f"found {list(labels.shape)} and {list(logits.shape)}"
        )
    if labels.min() < 0 or labels.max() >= info.num_classes:
        raise DataFormatError(
            f"expected labels from 0 to {info.num_classes - 1}, "
            f"found {labels.min()} to {labels.max()}"
        )
    finite = np.isfinite(logits).all(-1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise DataFormatError(f"expected finite logits, found {logits[index]} at index {index}")


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Computes the 95 % confidence interval of a proportion by Wilson's score method.

    With p = correct / count, n = count and z = 1.96 its bounds are
    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), which, unlike
    p +- z sqrt(p (1 - p) / n), stays within [0, 1] (Wilson, 1927,
    https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        correct: number of right predictions, 0 to `count`.
        count: number of predictions, at least 1.

    Returns:
        The lower and the upper bound.

    >>> low, high = wilson_interval(9_900, 10_000)
    >>> round(low, 4), round(high, 4)
    (0.9879, 0.9918)
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _class_metrics(
    labels: np.ndarray, predictions: np.ndarray, info: DatasetInfo
) -> tuple[ClassMetrics, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, predictions, labels=range(info.num_classes), zero_division=0.0
    )
    return tuple(
        ClassMetrics(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(info.class_names, *columns, strict=True)
    )


def _top_confusions(confusion: np.ndarray) -> tuple[Confusion, ...]:
    errors = confusion * ~np.eye(len(confusion), dtype=bool)
    order = np.argsort(-errors, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return tuple(
        Confusion(int(true), int(predicted), int(errors[true, predicted]))
        for true, predicted in pairs
        if errors[true, predicted]
    )


def calibrate(confidences: np.ndarray, correct: np.ndarray, *, bins: int = _BINS) -> Calibration:
    """Computes the reliability curve and the expected calibration error; see `Calibration`.

    Args:
        confidences: float [N], probability of the predicted class, from 0 to 1.
        correct: bool [N], whether the prediction was right.
        bins: number of bins of equal width over [0, 1].

    Returns:
        The reliability curve and its expected calibration error.

    >>> round(calibrate(np.array([0.9, 0.8]), np.array([True, False])).ece, 3)
    0.45
    """
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.digitize(confidences, edges[1:-1], right=True)
    counts = np.bincount(bin_of, minlength=bins)
    sums = np.bincount(bin_of, weights=confidences, minlength=bins)
    hits = np.bincount(bin_of, weights=correct, minlength=bins)
    ece = np.abs(hits - sums).sum() / max(len(confidences), 1)
    filled = np.where(counts, counts, np.nan)
    return Calibration(edges, counts, sums / filled, hits / filled, float(ece))

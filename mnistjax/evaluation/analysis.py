"""What the probabilities of a split say: accuracy, classes, confusions, calibration, mistakes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnistjax.data import Dataset, DatasetInfo
from mnistjax.errors import DataFormatError

CONFIDENCE_LEVEL = 0.95
_BINS = 15
_MOST_CONFUSED = 10

# The labels of these fifteen MNIST test images are wrong. Where they stand depends on who stored
# them, so they are known by their pixels (BLAKE2b of 8 bytes) and by the wrong label. In the order
# of the published files they are 947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651,
# 6783, 8527, 9679 and 9729.
_WRONG_LABELS = {
    "722e10298f8f6058": 8,
    "9e1c37f551a0d643": 0,
    "c234624e207c6060": 9,
    "41d44249f4b3e5f2": 4,
    "424165476d327b61": 2,
    "73b937c2ca91130d": 5,
    "ca0e2308c5a9219e": 6,
    "a143c3a954061749": 6,
    "aab74a2194423b17": 5,
    "1750337f6e41d9bb": 5,
    "df3f688f1e0964bd": 0,
    "b37f46e34381cb7e": 1,
    "491c6f19471809b1": 4,
    "ef39e0a01083b09d": 6,
    "052ec55ea3f71589": 5,
}


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is recognised; a quotient without a denominator counts as 0.

    Attributes:
        name: name of the class.
        precision: share of its predictions that are right.
        recall: share of its images that are predicted so.
        f1: harmonic mean of the two.
        support: number of its images.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """A pair of classes that were taken for each other.

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
    """Whether confidence is deserved: a reliability curve over B equal bins (Guo et al., 2017).

    Attributes:
        edges: float64 [B + 1], from 0 to 1; a bin holds its upper edge.
        counts: int64 [B], images a bin.
        confidence: float64 [B], mean probability of the predicted class; NaN where no image is.
        accuracy: float64 [B], share of right predictions; NaN where no image is.
        ece: expected calibration error: mean of |accuracy - confidence|, weighted by the counts.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that the probabilities of N labelled images say of a network.

    Attributes:
        class_names: a name for each of the K classes.
        labels: int32 [N].
        probabilities: float32 [N, K].
        accuracy: share of right predictions.
        interval: its 95 % confidence interval (Wilson's score interval).
        loss: mean cross-entropy in nats.
        confusion: int64 [K, K], images by true class (row) and predicted class (column).
        classes: the figures of each class.
        most_confused: at most ten pairs of classes, the most frequent first.
        calibration: the reliability curve.
        clean_accuracy: accuracy without the images whose labels are known to be wrong, or None
            where none are known.
        clean_count: number of those images that are left, or None.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    loss: float
    confusion: np.ndarray
    classes: tuple[ClassFigures, ...]
    most_confused: tuple[Confusion, ...]
    calibration: Calibration
    clean_accuracy: float | None
    clean_count: int | None

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of each image, int64 [N]."""
        return np.argmax(self.probabilities, -1)

    @property
    def confidences(self) -> np.ndarray:
        """The probability of that class, float32 [N]."""
        return np.max(self.probabilities, -1)

    @property
    def mistakes(self) -> np.ndarray:
        """Indices of the wrongly predicted images, the most confident first, int64 [M]."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        return wrong[np.argsort(-self.confidences[wrong], kind="stable")]


def analyse(
    probabilities: np.ndarray,
    labels: np.ndarray,
    info: DatasetInfo,
    *,
    known_wrong: Sequence[int] = (),
) -> Analysis:
    """Works out every figure of a network on labelled images.

    Args:
        probabilities: float [N, K], as `predict_probabilities` gives them; N is at least 1.
        labels: int [N], 0 to K - 1.
        info: the data set, for the K names of its classes.
        known_wrong: indices of images whose labels are known to be wrong, as
            `known_wrong_labels` finds them.

    Raises:
        DataFormatError: the arrays do not belong together, or hold no image.
    """
    _check(probabilities, labels, info)
    predictions = np.argmax(probabilities, -1)
    correct = predictions == labels
    clean = np.delete(correct, known_wrong)
    confusion = _confusion_matrix(labels, predictions, info.num_classes)
    # Where logits lie 88 apart a float32 probability is 0, and its logarithm infinite.
    truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = -np.mean(np.log(np.maximum(truth, np.finfo(np.float32).tiny)))
    return Analysis(
        class_names=info.class_names,
        labels=np.asarray(labels, np.int32),
        probabilities=np.asarray(probabilities, np.float32),
        accuracy=float(correct.mean()),
        interval=wilson_interval(int(correct.sum()), len(correct)),
        loss=float(loss),
        confusion=confusion,
        classes=_class_figures(labels, predictions, info),
        most_confused=_most_confused(confusion),
        calibration=calibrate(np.max(probabilities, -1), correct),
        clean_accuracy=float(clean.mean()) if len(known_wrong) and len(clean) else None,
        clean_count=len(clean) if len(known_wrong) and len(clean) else None,
    )


def _check(probabilities: np.ndarray, labels: np.ndarray, info: DatasetInfo) -> None:
    count = len(labels)
    if count < 1 or probabilities.shape != (count, info.num_classes) or labels.shape != (count,):
        raise DataFormatError(
            f"expected labels [N] and probabilities [N, {info.num_classes}], N >= 1, "
            f"found {list(labels.shape)} and {list(probabilities.shape)}"
        )
    if labels.min() < 0 or labels.max() >= info.num_classes:
        raise DataFormatError(
            f"expected labels from 0 to {info.num_classes - 1}, "
            f"found {labels.min()} to {labels.max()}"
        )


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Returns Wilson's 95 % score interval (1927) of a share; unlike +- 1.96 sd it stays in [0, 1].

    Args:
        correct: how many were right, 0 to `count`.
        count: of how many, >= 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predictions, labels=range(classes))


def _class_figures(
    labels: np.ndarray, predictions: np.ndarray, info: DatasetInfo
) -> tuple[ClassFigures, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, predictions, labels=range(info.num_classes), zero_division=0.0
    )
    return tuple(
        ClassFigures(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(info.class_names, *columns, strict=True)
    )


def _most_confused(confusion: np.ndarray) -> tuple[Confusion, ...]:
    errors = confusion * ~np.eye(len(confusion), dtype=bool)
    order = np.argsort(-errors, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return tuple(
        Confusion(int(true), int(predicted), int(errors[true, predicted]))
        for true, predicted in pairs
        if errors[true, predicted]
    )


def calibrate(confidences: np.ndarray, correct: np.ndarray, *, bins: int = _BINS) -> Calibration:
    """Compares confidence with accuracy, bin by bin.

    Args:
        confidences: float [N], probability of the predicted class.
        correct: bool [N], whether the prediction was right.
        bins: number of equal bins over [0, 1].
    """
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.digitize(confidences, edges[1:-1], right=True)
    counts = np.bincount(bin_of, minlength=bins)
    sums = np.bincount(bin_of, weights=confidences, minlength=bins)
    hits = np.bincount(bin_of, weights=correct, minlength=bins)
    ece = np.abs(hits - sums).sum() / max(len(confidences), 1)
    filled = np.where(counts, counts, np.nan)
    return Calibration(edges, counts, sums / filled, hits / filled, float(ece))


def known_wrong_labels(dataset: Dataset) -> tuple[int, ...]:
    """Finds the MNIST test images whose labels are known to be wrong, wherever they stand.

    The images are told by their pixels and their label, so a copy of MNIST in another order gives
    the same images, and one whose labels were mended gives none.

    Args:
        dataset: any data set; its test split is searched.

    Returns:
        Their indices, ascending: fifteen in MNIST, none in most other data sets.
    """
    split = dataset.test
    return tuple(
        index
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True))
        if _WRONG_LABELS.get(_digest(image)) == label
    )


def _digest(image: np.ndarray) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest()

"""The images of a report: PNG files with alternative texts."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnistjax import plots
from mnistjax.data import Dataset
from mnistjax.errors import ConfigError
from mnistjax.evaluation import (
    Analysis,
    Robustness,
    draw_sample,
    first_layer_filters,
    hidden_features,
    project_2d,
    saliency,
)
from mnistjax.plots.mosaic import as_gray
from mnistjax.runs import TrainedModel, build_augment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# t-SNE takes a second for 500 images, and a minute for ten thousand.
_PROJECTED = 500
_EXPLAINED = 10  # Images with a saliency map.

# Points in the plane, float [N, 2], and their labels, int32 [N].
Projection = tuple[np.ndarray, np.ndarray]

_DESCRIPTIONS = {
    "samples": "Sample images of the classes",
    "class_distribution": "Bar chart of the number of training and test images of each class",
    "augmentation": "Training images, each beside several augmented versions",
    "learning_curves": "Line charts of loss and accuracy over the epochs",
    "confusion": "Heat map of the confusion matrix",
    "mistakes": "Wrongly predicted test images with true class, predicted class and confidence",
    "reliability": "Line chart of accuracy against confidence, above a histogram of confidence",
    "robustness": "Line charts of accuracy against the strength of each corruption",
    "filters": "The weights of the first layer as small images",
    "saliency": "Test images, each above a map of how its pixels change the score of its class",
    "embedding": "Scatter plot of test images in the plane, by class",
}


@dataclass(frozen=True)
class ReportImage:
    """An image of the report.

    Attributes:
        png: bytes of the PNG file.
        description: the alternative text, for readers who cannot see the image.
    """

    png: bytes
    description: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header of the file."""
        return struct.unpack(">II", self.png[16:24])

    @property
    def uri(self) -> str:
        """The image as a `data:` URI."""
        return data_uri(self.png)


def data_uri(png: bytes) -> str:
    """Returns the bytes of a PNG file as a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def draw_pictures(
    trained: TrainedModel,
    dataset: Dataset,
    analysis: Analysis,
    *,
    robustness: Callable[[], Sequence[Robustness]],
    projection: Callable[[], Projection | None],
    seed: int,
) -> dict[str, ReportImage]:
    """Draws all images of the report.

    Args:
        trained: the network, with the history of its run; an ensemble has none.
        dataset: the data set that it was trained and measured on.
        analysis: its analysis on all test images.
        robustness: returns its accuracies on corrupted images; called after other images have been
            drawn, as it may wait for them to be measured.
        projection: returns what `project_sample` found; called last.
        seed: seed of augmentation.

    Returns:
        The images by name; the names are from `PLOT_NAMES`. "augmentation" is missing if the run
        has none; "filters" and "embedding" are missing if the network does not provide them. An
        ensemble has none of them, and no "learning_curves".
    """
    drawings: dict[str, Callable[[], Figure | None]] = {
        "samples": lambda: plots.samples(dataset.train, dataset.info),
        "class_distribution": lambda: plots.class_distribution(dataset),
        "learning_curves": lambda: _draw_history(trained),
        "confusion": lambda: plots.confusion(analysis),
        "mistakes": lambda: plots.mistakes(analysis, dataset.test.images),
        "reliability": lambda: plots.reliability(analysis),
        "saliency": lambda: _draw_saliency(trained, dataset, analysis),
        "augmentation": lambda: _draw_augmentation(trained, dataset, seed),
        "filters": lambda: _draw_filters(trained),
        "robustness": lambda: plots.robustness(robustness()),
        "embedding": lambda: _draw_projection(projection(), dataset),
    }
    pictures = {}
    for name, draw in drawings.items():
        figure = draw()
        if figure is not None:
            pictures[name] = ReportImage(plots.render_png(figure), _DESCRIPTIONS[name])
    return pictures


def _draw_history(trained: TrainedModel) -> Figure | None:
    return plots.learning_curves(trained.history) if trained.history else None


def _draw_augmentation(trained: TrainedModel, dataset: Dataset, seed: int) -> Figure | None:
    # The networks of an ensemble, which has no history, may have been trained each in its own way.
    augment = build_augment(trained.config) if trained.history else None
    return plots.augmentation(dataset.train, augment, seed=seed) if augment else None


def _draw_filters(trained: TrainedModel) -> Figure | None:
    with contextlib.suppress(ConfigError):
        return plots.filters(first_layer_filters(trained))
    return None


def _draw_saliency(trained: TrainedModel, dataset: Dataset, analysis: Analysis) -> Figure:
    """Draws saliency for the first correctly predicted image of each class, up to ten classes."""
    right = np.flatnonzero(analysis.predictions == analysis.labels)
    # If no prediction is right, the first image of each predicted class is drawn instead.
    candidates = right if len(right) else np.arange(len(analysis.labels))
    classes, first = np.unique(analysis.predictions[candidates], return_index=True)
    chosen, classes = candidates[first][:_EXPLAINED], classes[:_EXPLAINED]
    images = dataset.test.images[chosen]
    gradients = saliency(trained, images, classes)
    names = [analysis.class_names[label] for label in classes]
    return plots.saliency(images, gradients, names)


def project_sample(trained: TrainedModel, dataset: Dataset, *, seed: int) -> Projection | None:
    """Projects the last hidden layer for a sample of the test images to the plane.

    Args:
        trained: the network.
        dataset: the data set.
        seed: seed of the sample and of the projection.

    Returns:
        The points, float [N, 2], and the labels, int32 [N]; None if the network has no hidden
        features, or they are alike for all images.
    """
    sample = draw_sample(dataset.test, _PROJECTED, seed=seed)
    with contextlib.suppress(ConfigError):
        features = hidden_features(trained, sample.images)
        if np.ptp(features, axis=0).any():
            return project_2d(features, method="tsne", seed=seed), sample.labels
    return None


def _draw_projection(projection: Projection | None, dataset: Dataset) -> Figure | None:
    return None if projection is None else plots.projection(*projection, dataset.info)


def encode_image(image: np.ndarray) -> str:
    """Returns an image, uint8 [H, W, C], as the `data:` URI of a small PNG, dark on light."""
    from PIL import Image

    ink = np.round(255 * (1 - as_gray(image[None])[0])).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ink).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue())

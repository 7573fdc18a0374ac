"""The images of a report: PNG files with alternative texts."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from collections.abc import Sequence
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

# t-SNE takes two seconds for a thousand images, and a minute for ten thousand.
_PROJECTED = 1000
_EXPLAINED = 10  # Images with a saliency map.

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
    robustness: Sequence[Robustness],
    *,
    seed: int,
) -> dict[str, ReportImage]:
    """Draws all images of the report.

    Args:
        trained: the network, with the history of its run.
        dataset: the data set that it was trained and measured on.
        analysis: its analysis on all test images.
        robustness: its accuracies on corrupted images.
        seed: seed of augmentation, of the choice of projected images, and of the projection.

    Returns:
        The images by name; the names are from `PLOT_NAMES`. "augmentation" is missing if the run
        has none; "filters" and "embedding" are missing if the network does not provide them.
    """
    figures = {
        "samples": plots.samples(dataset.train, dataset.info),
        "class_distribution": plots.class_distribution(dataset),
        "learning_curves": plots.learning_curves(trained.history),
        "confusion": plots.confusion(analysis),
        "mistakes": plots.mistakes(analysis, dataset.test.images),
        "reliability": plots.reliability(analysis),
        "robustness": plots.robustness(robustness),
        "saliency": _draw_saliency(trained, dataset, analysis),
    }
    augment = build_augment(trained.config)
    if augment:
        figures["augmentation"] = plots.augmentation(dataset.train, augment, seed=seed)
    with contextlib.suppress(ConfigError):
        figures["filters"] = plots.filters(first_layer_filters(trained))
    with contextlib.suppress(ConfigError):
        figures["embedding"] = _draw_projection(trained, dataset, seed)
    return {
        name: ReportImage(plots.render_png(figure), _DESCRIPTIONS[name])
        for name, figure in figures.items()
    }


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


def _draw_projection(trained: TrainedModel, dataset: Dataset, seed: int) -> Figure:
    sample = draw_sample(dataset.test, _PROJECTED, seed=seed)
    features = hidden_features(trained, sample.images)
    if not np.ptp(features, axis=0).any():
        raise ConfigError("expected features that differ between images, found them all alike")
    points = project_2d(features, method="tsne", seed=seed)
    return plots.projection(points, sample.labels, dataset.info)


def encode_image(image: np.ndarray) -> str:
    """Returns an image, uint8 [H, W, C], as the `data:` URI of a small PNG, dark on light."""
    from PIL import Image

    ink = np.round(255 * (1 - as_gray(image[None])[0])).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ink).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue())

"""The images of a report: each as a PNG file, with a description in words."""

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

# t-SNE of a thousand images takes two seconds, of ten thousand a minute.
_PROJECTED = 1000
_EXPLAINED = 10

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
    """An image as a page needs it.

    Attributes:
        png: bytes of the PNG file.
        description: what is seen, for those who cannot see it.
    """

    png: bytes
    description: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the header of the file says."""
        return struct.unpack(">II", self.png[16:24])

    @property
    def uri(self) -> str:
        """The image as a `data:` address."""
        return data_uri(self.png)


def data_uri(png: bytes) -> str:
    """Returns the bytes of a PNG file as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def draw_pictures(
    trained: TrainedModel,
    dataset: Dataset,
    analysis: Analysis,
    robustness: Sequence[Robustness],
    *,
    seed: int,
) -> dict[str, ReportImage]:
    """Draws every image that a run has material for.

    Args:
        trained: the network, with the history of its run.
        dataset: what it was trained and measured on.
        analysis: its analysis on all test images.
        robustness: its accuracies on worse images.
        seed: decides what augmentation draws, which images are projected, and how.

    Returns:
        The images by name, one of `PLOT_NAMES`. There is no augmentation where the run has none,
        and no look inside a network that does not allow it.
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
    """Draws the first recognized image of each class, of the first ten such classes."""
    right = np.flatnonzero(analysis.predictions == analysis.labels)
    # A network that is never right is shown with the classes that it predicts.
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
    """Returns an image, uint8 [H, W, C], as the `data:` address of a small PNG, dark on light."""
    from PIL import Image

    ink = np.round(255 * (1 - as_gray(image[None])[0])).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ink).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue())

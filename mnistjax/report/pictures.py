"""The pictures of a report: what each shows, in words, and as a PNG file."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mnistjax import plots
from mnistjax.data import Dataset
from mnistjax.errors import ConfigError
from mnistjax.evaluation.analysis import Analysis
from mnistjax.evaluation.insight import embed, first_layer_filters, hidden_features, saliency
from mnistjax.evaluation.robustness import Robustness
from mnistjax.plots.mosaic import as_grey
from mnistjax.runs import TrainedModel, build_augment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# t-SNE of a thousand images takes two seconds, of ten thousand a minute.
_EMBEDDED = 1000
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
    "saliency": "Test images, each above a map of how its pixels move the score of its class",
    "embedding": "Scatter plot of test images in the plane, by class",
}


@dataclass(frozen=True)
class Picture:
    """A picture as a page needs it.

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
        """The picture as a `data:` address."""
        return data_uri(self.png)


def data_uri(png: bytes) -> str:
    """Returns the bytes of a PNG file as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def draw_pictures(
    trained: TrainedModel,
    dataset: Dataset,
    analysis: Analysis,
    robustness: Sequence[Robustness],
    history: Sequence[Mapping[str, Any]],
    *,
    seed: int,
) -> dict[str, Picture]:
    """Draws every picture that a run has material for.

    Args:
        trained: the network.
        dataset: what it was trained and measured on.
        analysis: what it says of all test images.
        robustness: its accuracies on worse images.
        history: the lines of `metrics.jsonl`.
        seed: decides what augmentation draws, and the embedding.

    Returns:
        The pictures by name. There is no augmentation where the run has none, and no look inside a
        network that does not allow it.
    """
    figures = {
        "samples": plots.plot_samples(dataset.train, dataset.info),
        "class_distribution": plots.plot_class_distribution(dataset),
        "learning_curves": plots.plot_learning_curves(history),
        "confusion": plots.plot_confusion(analysis),
        "mistakes": plots.plot_mistakes(analysis, dataset.test.images),
        "reliability": plots.plot_reliability(analysis),
        "robustness": plots.plot_robustness(robustness),
        "saliency": _plot_saliency(trained, dataset, analysis),
    }
    augment = build_augment(trained.config)
    if augment:
        figures["augmentation"] = plots.plot_augmentation(dataset.train, augment, seed=seed)
    with contextlib.suppress(ConfigError):
        filters = first_layer_filters(
            trained.model, trained.variables, image_shape=dataset.info.image_shape
        )
        figures["filters"] = plots.plot_filters(filters)
    with contextlib.suppress(ConfigError):
        figures["embedding"] = _plot_embedding(trained, dataset, seed)
    return {
        name: Picture(plots.render_png(figure), _DESCRIPTIONS[name])
        for name, figure in figures.items()
    }


def _plot_saliency(trained: TrainedModel, dataset: Dataset, analysis: Analysis) -> Figure:
    """Shows the first image of each class that is recognised, of the first ten such classes."""
    right = np.flatnonzero(analysis.predictions == analysis.labels)
    # Of a network that is never right, what it takes each image for.
    candidates = right if len(right) else np.arange(len(analysis.labels))
    classes, first = np.unique(analysis.predictions[candidates], return_index=True)
    chosen, classes = candidates[first][:_EXPLAINED], classes[:_EXPLAINED]
    images = dataset.test.images[chosen]
    gradients = saliency(trained.model, trained.variables, images, classes)
    names = [analysis.class_names[label] for label in classes]
    return plots.plot_saliency(images, gradients, names)


def _plot_embedding(trained: TrainedModel, dataset: Dataset, seed: int) -> Figure:
    images, labels = dataset.test.images[:_EMBEDDED], dataset.test.labels[:_EMBEDDED]
    features = hidden_features(trained.model, trained.variables, images)
    if not np.ptp(features, axis=0).any():
        raise ConfigError("expected features that differ between images, found them all alike")
    return plots.plot_embedding(embed(features, method="tsne", seed=seed), labels, dataset.info)


def encode_image(image: np.ndarray) -> str:
    """Returns an image, uint8 [H, W, C], as the `data:` address of a small PNG, dark on light."""
    from PIL import Image

    ink = np.round(255 * (1 - as_grey(image[None])[0])).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ink).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue())

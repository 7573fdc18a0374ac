"""Plots made of images: samples, augmentation, mistakes, filters, saliency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import DatasetInfo, Split
from mnistjax.data.augment import Augment
from mnistjax.evaluation.analysis import Analysis
from mnistjax.plots.mosaic import as_gray, draw_mosaic
from mnistjax.plots.style import SIGNED, draw_message, shorten, styled
from mnistjax.training import scale_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 10
_MAX_ROWS = 12


@styled
def samples(split: Split, info: DatasetInfo) -> Figure:
    """Draws the first ten images of each class, dark on light, one row per class.

    With more than twelve classes, only one image of each is drawn, with its name below.

    Args:
        split: the images; a class may have fewer than ten of them, or none.
        info: the data set, which has the names of the classes.

    Returns:
        The figure.
    """
    many = info.num_classes > _MAX_ROWS
    wanted = 1 if many else _COLUMNS
    found = [np.flatnonzero(split.labels == label)[:wanted] for label in range(info.num_classes)]
    names = [shorten(name, 8 if many else 14) for name in info.class_names]
    places = [
        wanted * label + rank for label, some in enumerate(found) for rank in range(len(some))
    ]
    return draw_mosaic(
        as_gray(split.images[np.concatenate(found)]),
        [names[label] for label, some in enumerate(found) for _ in some] if many else (),
        title=f"The first images of each class: {shorten(info.name, 40)}",
        columns=_COLUMNS,
        # Single images are placed without gaps, even if a class has no image.
        places=None if many else places,
        row_names=() if many else names,
    )


@styled
def augmentation(
    split: Split, augment: Augment, *, seed: int, images: int = 6, variants: int = 9
) -> Figure:
    """Draws images without augmentation, in the first column, and augmented versions beside them.

    Args:
        split: the images, of which the first ones are drawn.
        augment: the augmentation, `(images, *, key) -> images`, of float images in [0, 1].
        seed: seed of its random draws.
        images: number of images, one per row.
        variants: number of augmented versions per image.

    Returns:
        The figure.
    """
    originals = split.images[:images]

    @jax.jit  # as in training, and quicker than operation by operation
    def change(pixels: jax.Array, key: jax.Array) -> jax.Array:
        return augment(jnp.repeat(scale_pixels(pixels), variants, axis=0), key=key)

    changed = np.asarray(change(np.asarray(originals), jax.random.key(seed)))
    gray = changed.mean(-1).reshape(len(originals), variants, *originals.shape[1:3])
    rows = np.concatenate([as_gray(originals)[:, None], gray], 1)
    return draw_mosaic(
        rows.reshape(-1, *rows.shape[2:]),
        title="As stored (first column), and as training sees it",
        columns=variants + 1,
    )


@styled
def mistakes(analysis: Analysis, images: np.ndarray, *, max_images: int = 40) -> Figure:
    """Draws the most confident mistakes, each with true class, predicted class and confidence.

    Args:
        analysis: what `analyze` returned for these images.
        images: uint8 [N, H, W, C], the images that were analyzed, in the same order.
        max_images: the largest number of images to draw.

    Returns:
        The figure.
    """
    wrong = analysis.mistakes[:max_images]
    if not len(wrong):
        return draw_message(f"No mistake among {len(analysis.labels):,} images")
    captions = [
        _caption(analysis.class_names[true], analysis.class_names[predicted], confidence)
        for true, predicted, confidence in zip(
            analysis.labels[wrong],
            analysis.predictions[wrong],
            analysis.confidences[wrong],
            strict=True,
        )
    ]
    count = len(analysis.mistakes)
    which = f"{count:,}" if len(wrong) == count else f"{len(wrong)} most confident of {count:,}"
    return draw_mosaic(
        as_gray(images[wrong]),
        captions,
        title=f"The {which} mistakes: true → predicted, confidence",
        columns=8,
    )


def _caption(true: str, predicted: str, confidence: float) -> str:
    if max(len(true), len(predicted)) <= 2:
        return f"{true} → {predicted}\n{confidence:.0%}"
    return f"{shorten(true, 9)}\n→ {shorten(predicted, 8)}\n{confidence:.0%}"


@styled
def filters(weights: np.ndarray, *, max_filters: int = 64) -> Figure:
    """Draws the weights of the first layer as images, all on the same scale around zero.

    Args:
        weights: float [N, h, w], as `first_layer_filters` returns them.
        max_filters: the largest number of filters to draw; further ones are omitted.

    Returns:
        The figure.

    >>> filters(np.ones((4, 3, 3))).axes[0].texts[0].get_text()
    'Weights of the first layer: 4 filters'
    """
    shown = weights[:max_filters]
    largest = float(np.abs(shown).max(initial=0)) or 1.0
    which = f"first {len(shown)} of {len(weights)}" if len(shown) < len(weights) else len(shown)
    return draw_mosaic(
        shown,
        title=f"Weights of the first layer: {which} filters",
        columns=8 if len(shown) > _COLUMNS else 5,
        limits=(-largest, largest),
        colormap=SIGNED,
        key=(f"{-largest:.2g}", f"{largest:.2g}"),
    )


@styled
def saliency(images: np.ndarray, gradients: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws images, and below each the gradient of the logit of a class per pixel.

    Args:
        images: uint8 [N, H, W, C].
        gradients: float [N, H, W], as `mnistjax.evaluation.saliency` returns them; each is scaled
            by its largest absolute value.
        names: for each image the name of the class whose logit was differentiated.

    Returns:
        The figure.
    """
    from matplotlib import colormaps

    largest = np.abs(gradients).max((1, 2), initial=1e-12, keepdims=True)
    above = colormaps["Greys"](as_gray(images))
    below = colormaps[SIGNED]((1 + gradients / largest) / 2)
    return draw_mosaic(
        np.concatenate([above, below], 1),
        [shorten(name, 12) for name in names],
        title="How a brighter pixel changes the score of the class",
        columns=5,
        limits=(-1, 1),
        colormap=SIGNED,
        key=("lowers it", "raises it"),
    )

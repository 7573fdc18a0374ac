"""Plots made of images: samples, augmentation, mistakes, filters, saliency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import Augment, DatasetInfo, Split
from mnistjax.evaluation.analysis import Analysis
from mnistjax.plots.mosaic import as_grey, draw_mosaic
from mnistjax.plots.style import SIGNED, draw_message, shorten, styled
from mnistjax.training import scale_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 10
_MOST_ROWS = 12


@styled
def plot_samples(split: Split, info: DatasetInfo) -> Figure:
    """Shows the first images of each class, dark on light, a row a class.

    Above twelve classes it is one image of each, with the name below.

    Args:
        split: the images; a class may have a few of them, or none.
        info: the data set, for its classes.
    """
    many = info.num_classes > _MOST_ROWS
    wanted = 1 if many else _COLUMNS
    found = [np.flatnonzero(split.labels == label)[:wanted] for label in range(info.num_classes)]
    names = [shorten(name, 8 if many else 14) for name in info.class_names]
    places = [
        wanted * label + rank for label, some in enumerate(found) for rank in range(len(some))
    ]
    return draw_mosaic(
        as_grey(split.images[np.concatenate(found)]),
        [names[label] for label, some in enumerate(found) for _ in some] if many else (),
        title=f"The first images of each class: {shorten(info.name, 40)}",
        columns=_COLUMNS,
        # A class without an image leaves no hole among single images.
        places=None if many else places,
        row_names=() if many else names,
    )


@styled
def plot_augmentation(
    split: Split, augment: Augment, *, seed: int, images: int = 6, variants: int = 9
) -> Figure:
    """Shows images as they are, in the first column, and as a training run may see them.

    Args:
        split: the images; the first ones are shown.
        augment: what training does to them, `(images, *, key) -> images`.
        seed: decides what it draws.
        images: how many images, each in its row.
        variants: how many versions of each.
    """
    originals = split.images[:images]
    repeated = jnp.repeat(scale_pixels(jnp.asarray(originals)), variants, axis=0)
    changed = augment(repeated, key=jax.random.key(seed))
    grey = np.asarray(changed).mean(-1).reshape(len(originals), variants, *originals.shape[1:3])
    rows = np.concatenate([as_grey(originals)[:, None], grey], 1)
    return draw_mosaic(
        rows.reshape(-1, *rows.shape[2:]),
        title="As stored (first column), and as training sees it",
        columns=variants + 1,
    )


@styled
def plot_mistakes(analysis: Analysis, images: np.ndarray, *, limit: int = 40) -> Figure:
    """Shows the most confident mistakes, each with true class, predicted class and confidence.

    Args:
        analysis: what `analyse` gave for these images.
        images: uint8 [N, H, W, C], those that were analysed, in their order.
        limit: the largest number of images shown.
    """
    wrong = analysis.mistakes[:limit]
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
        as_grey(images[wrong]),
        captions,
        title=f"The {which} mistakes: true → predicted, confidence",
        columns=8,
    )


def _caption(true: str, predicted: str, confidence: float) -> str:
    if max(len(true), len(predicted)) <= 2:
        return f"{true} → {predicted}\n{confidence:.0%}"
    return f"{shorten(true, 9)}\n→ {shorten(predicted, 8)}\n{confidence:.0%}"


@styled
def plot_filters(filters: np.ndarray, *, limit: int = 64) -> Figure:
    """Shows the weights of the first layer as images, all on one scale around zero.

    Args:
        filters: float [N, h, w], as `first_layer_filters` gives them.
        limit: the largest number of filters shown, the first ones.
    """
    shown = filters[:limit]
    largest = float(np.abs(shown).max(initial=0)) or 1.0
    which = f"first {len(shown)} of {len(filters)}" if len(shown) < len(filters) else len(shown)
    return draw_mosaic(
        shown,
        title=f"What the first layer looks for: {which} filters",
        columns=8 if len(shown) > _COLUMNS else 5,
        limits=(-largest, largest),
        colours=SIGNED,
        key=(f"{-largest:.2g}", f"{largest:.2g}"),
    )


@styled
def plot_saliency(images: np.ndarray, saliency: np.ndarray, labels: Sequence[str]) -> Figure:
    """Shows images, and below each how every pixel moves the score of its class.

    Args:
        images: uint8 [N, H, W, C].
        saliency: float [N, H, W], gradients of a logit by the pixels; each is scaled to its own
            largest value.
        labels: N names, of the classes whose logits were looked at.
    """
    from matplotlib import colormaps

    largest = np.abs(saliency).max((1, 2), initial=1e-12, keepdims=True)
    above = colormaps["Greys"](as_grey(images))
    below = colormaps[SIGNED]((1 + saliency / largest) / 2)
    return draw_mosaic(
        np.concatenate([above, below], 1),
        [shorten(label, 12) for label in labels],
        title="How a brighter pixel moves the score of the class",
        columns=5,
        limits=(-1, 1),
        colours=SIGNED,
        key=("lowers it", "raises it"),
    )

"""Small runs that the tests of the report look at."""

from __future__ import annotations

import base64

import numpy as np

import mnistjax
from mnistjax import Dataset, DatasetInfo, Split
from mnistjax.evaluation import Robustness
from mnistjax.report.pictures import ReportImage

HOSTILE_NAME = "<script>alert('name')</script>"
HOSTILE_CLASSES = ('"><img src=x onerror=alert(1)>', "</table></main>", "{{ 7 * 7 }}", "&amp; $x^$")


def squares(count, classes, seed, *, noise=0):
    """12x12 images with a bright bar, whose place is the class; noise makes labels wrong."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 12, 12, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % classes
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 6)
        image[row : row + 2, 2 * column : 2 * column + 2] = 255
    moved = rng.random(count) < noise
    return Split(images, np.where(moved, (labels + 1) % classes, labels).astype(np.int32))


def make_dataset(classes, *, names=(), noise=0.0, name="squares", count=80):
    info = DatasetInfo(name, classes, names, image_shape=(12, 12, 1))
    train, test = squares(160 + 4 * classes, classes, 0), squares(count, classes, 1, noise=noise)
    return Dataset(train, test, info, source="drawn <by> a \"test\" & 'more'")


# Name: data set, settings. Runs of one network and of as many images share their compiled programs.
RUNS = {
    "hostile": (
        make_dataset(4, names=HOSTILE_CLASSES, noise=0.2, name=HOSTILE_NAME),
        {"model": "softmax", "epochs": 3, "shift": 1},
    ),
    "all right": (
        make_dataset(4),
        {"model": "tiny", "epochs": 12, "learning_rate": 0.01, "validation_fraction": 0.0},
    ),
    "forty-seven classes": (
        make_dataset(47, noise=0.3),
        {"model": "softmax", "steps": 30, "patience": 3, "validation_fraction": 0.3},
    ),
    "two test images": (
        make_dataset(4, count=2),
        {"model": "softmax", "steps": 1, "shift": 1},
    ),
    "all wrong": (
        make_dataset(4, noise=1.0),
        {"model": "tiny", "epochs": 12, "learning_rate": 0.01, "validation_fraction": 0.0},
    ),
}


def train(name, workdir):
    """Trains one of `RUNS` into `workdir`, with its report; returns its data set."""
    dataset, settings = RUNS[name]
    config = mnistjax.TrainConfig(batch_size=16, **settings)
    mnistjax.fit(config, dataset, workdir=workdir, callbacks=[mnistjax.WriteReport()])
    return dataset


# One gray pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)


def few_corruptions(monkeypatch):
    """Makes reports cheap: the accuracies on corrupted images are made up."""
    rows = [Robustness("none", 0.0, "", 0.9, 10), Robustness("shift", 1.0, "pixels", 0.8, 10)]
    monkeypatch.setattr("mnistjax.report.page.measure_robustness", lambda *args, **options: rows)


def few_pictures(monkeypatch):
    """Makes reports cheap: of all plots they have one, of a single pixel."""
    monkeypatch.setattr(
        "mnistjax.report.page.draw_pictures",
        lambda *args, **options: {"samples": ReportImage(PNG, "a pixel")},
    )

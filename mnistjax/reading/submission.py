"""Kaggle's digit recognizer: its test.csv in, a submission out."""

from __future__ import annotations

import os

import numpy as np

from mnistjax.atomic import write_text_atomically
from mnistjax.data import read_kaggle_csv
from mnistjax.errors import ConfigError, DataFormatError
from mnistjax.evaluation.inference import predict_probabilities
from mnistjax.runs import TrainedModel

PathLike = str | os.PathLike[str]


def write_submission(trained: TrainedModel, csv: PathLike, output: PathLike) -> np.ndarray:
    """Labels the images of a CSV file as Kaggle's digit recognizer wants them: ImageId,Label.

    Args:
        trained: the network, of images 28x28x1.
        csv: the file, with the header `pixel0,...,pixel783`, plain or compressed by gzip.
        output: the file to write; it is written whole or not at all.

    Returns:
        int [N]: the labels that were written; image 1 is the first.

    Raises:
        DatasetNotFoundError: there is no such CSV file.
        DataFormatError: it has a column of labels, other columns, or values that are no pixels;
            the message names file, line and column.
        ConfigError: the network takes images of another shape.
    """
    images, labels = read_kaggle_csv(csv)
    if labels is not None:
        raise DataFormatError(
            f"expected a header pixel0,...,pixel783 without labels, found label,pixel0,... in "
            f"{csv} line 1"
        )
    if trained.info.image_shape != images.shape[1:]:
        raise ConfigError(
            f"expected a network of images {images.shape[1:]}, found {trained.info.image_shape}"
        )
    found = predict_probabilities(trained.model, trained.variables, images).argmax(axis=1)
    rows = [f"{number},{label}" for number, label in enumerate(found, start=1)]
    write_text_atomically(output, "\n".join(["ImageId,Label", *rows]) + "\n")
    return found

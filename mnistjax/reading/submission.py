"""Writing submissions to Kaggle's digit recognizer."""

from __future__ import annotations

import os

import numpy as np

from mnistjax.atomic import write_text_atomically
from mnistjax.data import read_kaggle_csv
from mnistjax.errors import DataFormatError
from mnistjax.reading.network import check_image_shape, probabilities
from mnistjax.runs import TrainedModel

PathLike = str | os.PathLike[str]


def write_submission(trained: TrainedModel, csv: PathLike, output: PathLike) -> np.ndarray:
    """Classifies the images of Kaggle's test.csv and writes a submission (`ImageId,Label`).

    See https://www.kaggle.com/competitions/digit-recognizer.

    Args:
        trained: a network for images of shape (28, 28, 1).
        csv: the file, with the header `pixel0,...,pixel783`, plain or compressed by gzip.
        output: the file to write, completely or not at all.

    Returns:
        int [N], the predicted labels; the first has ImageId 1.

    Raises:
        DatasetNotFoundError: the CSV file does not exist.
        DataFormatError: the file has labels, other columns, or values that are not pixels; the
            message names file, line and column.
        ConfigError: the network does not take images of shape (28, 28, 1).
        OSError: the output cannot be written.
    """
    images, labels = read_kaggle_csv(csv)
    if labels is not None:
        raise DataFormatError(
            f"expected a header pixel0,...,pixel783 without labels, found label,pixel0,... in "
            f"{csv} line 1"
        )
    check_image_shape(trained, images.shape[1:])
    predicted = probabilities(trained, images).argmax(axis=1)
    rows = [f"{number},{label}" for number, label in enumerate(predicted, start=1)]
    write_text_atomically(output, "\n".join(["ImageId,Label", *rows]) + "\n")
    return predicted

"""Commands that recognize the user's own pictures of digits."""

from __future__ import annotations

import contextlib
import json as json_format
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import mnistjax
from mnistjax.atomic import atomic_path
from mnistjax.cli.shell import one_line, writing
from mnistjax.errors import ConfigError, DataFormatError
from mnistjax.files import printable
from mnistjax.reading import (
    Predictions,
    PreparedDigit,
    annotate,
    describe_reading,
    open_picture,
    prepare_digit,
    write_submission,
)


def predict(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")
    ] = (),
    show: Path | None = None,
    json: bool = False,
    csv: Path | None = None,
    output: Path | None = None,
) -> None:
    """Predict which digits pictures show: any format, size, rotation, light and ink.

    Print one line per picture: file, digit, probability, runner-up, and a warning if it may not
    show a digit. The status is 1 if a file could not be used; the others are still predicted.

    Args:
        run: Run directory, or a weights file.
        images: Pictures of one digit each.
        show: Where to write the prepared images: a PNG file, or a folder for one PNG per picture.
        json: Print a JSON list instead.
        csv: Instead of pictures, Kaggle's test.csv (header pixel0,...,pixel783).
        output: File for the labels of that CSV file, as Kaggle's ImageId,Label.
    """
    if (csv is None) != (output is None):
        raise ConfigError("--csv and --output go together: give both, or none")
    if (csv is None) == (not images):
        raise ConfigError("expected either pictures or --csv with --output")
    if csv is not None and output is not None:
        _refuse_inputs([output], [csv])
    if show is not None:
        _refuse_inputs(_shown_files(show, list(images)), images)
    trained = mnistjax.load_weights(run)
    if csv is not None and output is not None:
        with writing(output):
            labels = write_submission(trained, csv, output)
        print(f"labels of {len(labels):,} images in {output}")
        return
    files, prepared, failures = _prepare(images)
    predictions = mnistjax.predict(trained, prepared)
    print_predictions(files, predictions, as_json=json)
    if show is not None and files:
        _show_inputs(show, files, predictions)
    if failures:
        sys.exit(1)


def _prepare(
    images: tuple[Path, ...],
) -> tuple[list[Path], list[PreparedDigit], int]:
    """Prepares the pictures, and prints an error on stderr for each that cannot be used."""
    files, prepared = [], []
    for path in images:
        try:
            prepared.append(prepare_digit(open_picture(path), str(path)))
        except DataFormatError as error:
            print("error: " + one_line(str(error)), file=sys.stderr)
        else:
            files.append(path)
    return files, prepared, len(images) - len(files)


def print_predictions(
    files: list[Path], predictions: Predictions, *, as_json: bool = False
) -> None:
    """Prints one line per picture, or a JSON list.

    Args:
        files: the paths of the pictures.
        predictions: their predictions, in the same order.
        as_json: whether to print JSON.
    """
    described = [_describe(file, predictions, index) for index, file in enumerate(files)]
    if as_json:
        print(json_format.dumps(described, indent=2))
        return
    for row in described:
        warning = f"  warning: {'; '.join(row['warnings'])}" if row["warnings"] else ""
        print(
            f"{printable(row['file'])}  {row['label']}  {row['probability']:.1%}  "
            f"(then {row['runner_up']}, {row['runner_up_probability']:.1%}){warning}"
        )


def _describe(file: Path, predictions: Predictions, index: int) -> dict[str, Any]:
    names, second = predictions.class_names, predictions.runners_up[index]
    return {
        "file": str(file),
        "label": names[predictions.labels[index]],
        "probability": float(predictions.confidences[index]),
        "runner_up": names[second],
        "runner_up_probability": float(predictions.probabilities[index, second]),
        "warnings": list(predictions.warnings[index]),
    }


def _show_inputs(target: Path, files: list[Path], predictions: Predictions) -> None:
    """Writes the prepared images, enlarged: all in one PNG file, or one file each in a folder."""
    planes = [np.kron(image[..., 0], np.ones((8, 8), np.uint8)) for image in predictions.inputs]
    targets = _shown_files(target, files)
    if targets == [target]:
        _write_png(target, np.hstack([np.pad(plane, 4, constant_values=96) for plane in planes]))
        return
    for path, plane in zip(targets, planes, strict=True):
        _write_png(path, plane)


def _shown_files(target: Path, files: list[Path]) -> list[Path]:
    """Returns where the prepared images are written: one file, or one per picture in a folder."""
    if target.suffix.lower() == ".png" and not target.is_dir():
        return [target]
    stems = [file.stem for file in files]
    repeats = [stems[:index].count(stem) for index, stem in enumerate(stems)]
    names = [f"{stem}-{n}" if n else stem for stem, n in zip(stems, repeats, strict=True)]
    return [target / f"{name}.png" for name in names]


def _refuse_inputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuses to write over a file that the command reads."""
    for output in outputs:
        for path in inputs:
            with contextlib.suppress(OSError):  # One of them does not exist.
                if output.samefile(path):
                    raise ConfigError(f"expected to write to another file than the input {path}")


def _write_png(path: Path, plane: np.ndarray) -> None:
    from PIL import Image

    with writing(path), atomic_path(path) as temporary:
        Image.fromarray(plane).save(temporary, "PNG")


def read(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    photo: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO")],
    output: Path | None = None,
    json: bool = False,
) -> None:
    """Read the digits of a photographed row or page: a postal code, a form, several lines.

    Print one line per row: the digits, and the probability that all of them are right.

    Args:
        run: Run directory, or a weights file.
        photo: Picture of one or more rows of digits.
        output: Where to write the picture with a box and a label around every digit (PNG).
        json: Print JSON with the box, label and probability of every digit instead.
    """
    if output is not None:
        _refuse_inputs([output], [photo])
    trained = mnistjax.load_weights(run)
    reading = mnistjax.read_digits(trained, photo)
    if not reading.rows:
        raise DataFormatError(f"expected digits, found none in {photo}")
    if json:
        described = describe_reading(reading, trained.info.class_names)
        print(json_format.dumps(described, indent=2))
    else:
        for text, row in zip(reading.text.split("\n"), reading.rows, strict=True):
            print(f"{text}  {np.prod([digit.confidence for digit in row]):.1%}")
    if output is not None:
        annotated = annotate(photo, reading, trained.info.class_names)
        with writing(output), atomic_path(output) as temporary:
            annotated.save(temporary, "PNG")

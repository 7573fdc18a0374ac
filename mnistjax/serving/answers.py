"""What the server answers, as objects that JSON can hold."""

from __future__ import annotations

from typing import Any

from mnistjax.reading import Predictions
from mnistjax.runs import TrainedModel, package_versions

USAGE = """\
The network {name}, trained on {dataset}, for images of shape {shape}.

POST /predict  one picture, or pixels:
    curl --data-binary @seven.png -H "Content-Type: image/png" {url}predict
    curl --json '{{"pixels": [[0, 255, ...], ...]}}' {url}predict
POST /read     a photo of rows of digits:
    curl --data-binary @postcode.jpg -H "Content-Type: image/jpeg" {url}read
GET  /health   the network, its accuracy and the versions
"""


def describe_usage(trained: TrainedModel, url: str) -> str:
    """Returns a text that says what can be asked of the server.

    Args:
        trained: the network.
        url: address of the server, which ends in a slash.
    """
    return USAGE.format(
        name=trained.model.name,
        dataset=trained.info.name,
        shape=tuple(trained.info.image_shape),
        url=url,
    )


def describe_predictions(predictions: Predictions) -> dict[str, Any]:
    """Returns the predictions of N images.

    Args:
        predictions: what `mnistjax.reading.interpret` returned.

    Returns:
        `classes`, the names, and `predictions`, a list with an object for each image: `label` (the
        name of the most probable class), `probability` (of this class), `probabilities` (in the
        order of the classes) and `warnings`.
    """
    names = predictions.class_names
    return {
        "classes": list(names),
        "predictions": [
            {
                "label": names[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": row.tolist(),
                "warnings": list(warnings),
            }
            for row, warnings in zip(predictions.probabilities, predictions.warnings, strict=True)
        ],
    }


def describe_health(trained: TrainedModel) -> dict[str, Any]:
    """Returns the description of the network and its origin.

    Args:
        trained: the network, with the result of its run if it is known.

    Returns:
        `status` ("ok"), `network`, `recipe`, `dataset`, `classes`, `image_shape`, `test_accuracy`
        and `trained_with` (the versions of its run), which are None if the run is unknown, and
        `versions` (those of the server).
    """
    result = trained.result or {}
    return {
        "status": "ok",
        "network": trained.model.name,
        "recipe": trained.config.recipe,
        "dataset": trained.info.name,
        "classes": list(trained.info.class_names),
        "image_shape": list(trained.info.image_shape),
        "test_accuracy": result.get("test_accuracy"),
        "trained_with": result.get("versions"),
        "versions": package_versions(),
    }

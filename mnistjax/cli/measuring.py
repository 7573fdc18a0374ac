"""Commands that look at what a run has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import mnistjax


def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    dataset: str | None = None,
    data_dir: Path | None = None,
) -> None:
    """Measure the saved weights of a run on all test images.

    Args:
        run: Run directory, or a weights file.
        dataset: Data set to measure on; if not given, the one that the network was trained on.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
    """
    trained = mnistjax.load_weights(run)
    name = dataset or trained.config.dataset or trained.info.name
    data = mnistjax.load_dataset(name, data_dir=data_dir)
    for what in ("num_classes", "image_shape"):
        expected, found = getattr(trained.info, what), getattr(data.info, what)
        if expected != found:
            raise mnistjax.ConfigError(
                f"expected a data set of {what} {expected}, as in {run}, found {name} of {found}"
            )
    metrics = mnistjax.evaluate(trained.model, trained.variables, data.test)
    figures = metrics.compute()
    print(f"model    {trained.model.name}, from {run}")
    print(f"dataset  {data.info.name} ({data.source})")
    print(
        f"test accuracy {float(figures['accuracy']):.2%} on all {int(metrics.count):,} images, "
        f"loss {float(figures['loss']):.4f}"
    )

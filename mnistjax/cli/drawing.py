"""The command that writes the page to draw on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

import mnistjax
from mnistjax.errors import MnistjaxError
from mnistjax.files import user_path
from mnistjax.report import choose_dtype, round_weights, write_draw_page
from mnistjax.runs import TrainedModel


def draw(
    run: Annotated[Path, tyro.conf.Positional],
    dtype: Literal["float32", "float16", "int8"] | None = None,
    data_dir: Path | None = None,
    output: Path | None = None,
) -> None:
    """Write a page on which one draws, and which shows what the network makes of it.

    The page is one file that works without a server. If it rounds the weights, the test accuracy
    is printed with and without that.

    Args:
        run: Run directory, or a weights file.
        dtype: Dtype of the weights in the page; if not given, float32 for up to 45,000 parameters,
            float16 for up to 262,144, else int8.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses. Needed only to measure what rounding costs.
        output: File to write; if not given, draw.html in the directory.
    """
    trained = mnistjax.load_weights(run)
    dtype = dtype or choose_dtype(trained)
    page = write_draw_page(trained, output or _directory_of(run), dtype=dtype)
    print(f"page in {page} ({page.stat().st_size / 1000:,.0f} kB, weights as {dtype})")
    if dtype != "float32":
        _print_loss_of_accuracy(trained, round_weights(trained, dtype), dtype, data_dir)


def _directory_of(run: Path) -> Path:
    path = user_path(run, "run directory or a weights file")
    return path if path.is_dir() else path.parent


def _print_loss_of_accuracy(
    trained: TrainedModel, rounded: TrainedModel, dtype: str, data_dir: Path | None
) -> None:
    try:
        dataset = mnistjax.runs.load_run_dataset(trained, data_dir=data_dir)
    except MnistjaxError as error:
        print(f"what {dtype} costs was not measured: {error}")
        return
    before, after = (
        mnistjax.evaluate(network, dataset.test).summary()["accuracy"]
        for network in (trained, rounded)
    )
    print(f"test accuracy {before:.2%} with all digits of the weights, {after:.2%} with {dtype}")

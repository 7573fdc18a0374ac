"""Trains in new processes, with empty caches or with those of the run before."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mnistjax

Row = dict[str, Any]

_PROGRAM = Path(__file__).with_name("one_run.py")

# Every program, however quickly it compiled, goes into the cache.
_CACHE_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}


@dataclasses.dataclass(frozen=True)
class FreshPlace:
    """A place where nothing has run yet: no compiled program and no decoded data.

    Attributes:
        compiled: folder of JAX's persistent compilation cache.
        home: what the process takes for the user's cache directory.
        data_dir: folder of the data sets, with the files of the data set alone; None is the
            library's own choice.
    """

    compiled: Path
    home: Path
    data_dir: Path | None


@contextlib.contextmanager
def fresh_place(dataset: str, data_dir: Path | None) -> Iterator[FreshPlace]:
    """Makes a `FreshPlace` in a temporary folder, and removes it.

    Args:
        dataset: name of the data set, whose published files are copied if they are there.
        data_dir: where they are; MNISTJAX_DATA_DIR if None.
    """
    source = (data_dir or mnistjax.data.data_directory()) / dataset
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copied = None
        if source.is_dir() and any(source.glob("*.gz")):
            copied = root / "data"
            copied.mkdir()
            shutil.copytree(source, copied / dataset, ignore=shutil.ignore_patterns(".mnistjax"))
        yield FreshPlace(root / "compiled", root / "home", copied or data_dir)


def run_once(config: mnistjax.TrainConfig, place: FreshPlace) -> Row:
    """Trains in a new process.

    Args:
        config: what to train; it names its data set.
        place: where compiled programs and decoded data are kept: fresh, the run is a cold one;
            a second run in the same place is a warm one.

    Returns:
        `result` (that of `fit`, less its source), `conditions`, `stages`: the seconds of
        `interpreter` (until the first line of the program runs), `import`, `backend` (finding the
        devices), `data`, `compile`, `first_step`, `train` (the rest of it), `evaluate`; and
        `process_seconds`, from the start of the process to the test accuracy. `train` holds the
        measurement of validation images, if there are any, and `evaluate` is that of the test
        images.

    Raises:
        SystemExit: the run failed; its last line on stderr is the message.
    """
    request = {"config": dataclasses.asdict(config), "data_dir": place.data_dir}
    environment = {
        **os.environ,
        **_CACHE_SETTINGS,
        "JAX_COMPILATION_CACHE_DIR": str(place.compiled),
        "XDG_CACHE_HOME": str(place.home),
    }
    words = [sys.executable, str(_PROGRAM), json.dumps(request, default=str), repr(time.time())]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit((done.stderr.strip().splitlines() or ["error: the run failed"])[-1])
    return json.loads(done.stdout.splitlines()[-1])

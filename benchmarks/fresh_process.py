"""Training in new processes, with empty caches or with those of the previous run."""

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

# By default JAX does not cache programs that compile quickly.
_CACHE_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}


@dataclasses.dataclass(frozen=True)
class FreshPlace:
    """A place where nothing has run yet: no compiled program and no decoded data.

    Attributes:
        compiled: folder of JAX's persistent compilation cache.
        home: the user's cache directory in the process.
        data_dir: folder of the data sets, without decoded data; the default folder if None.
    """

    compiled: Path
    home: Path
    data_dir: Path | None


@contextlib.contextmanager
def fresh_place(dataset: str, data_dir: Path | None) -> Iterator[FreshPlace]:
    """Creates a `FreshPlace` in a temporary folder, which is removed afterwards.

    Args:
        dataset: name of the data set, whose published files are copied if they exist.
        data_dir: folder of the data sets; MNISTJAX_DATA_DIR if None.

    Yields:
        The place.
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
        config: the settings, including the data set.
        place: where compiled programs and decoded data are kept. The first run in a fresh place is
            cold; further runs there are warm.

    Returns:
        `result` (that of `fit`, without its source), `conditions`, `stages` (seconds per stage) and
        `process_seconds` (from the start of the process to the test accuracy). The stages are
        `interpreter` (until the first line of the program runs), `import`, `backend` (finding the
        devices), `data`, `compile`, `first_step`, `train` (further steps, and evaluation of the
        validation images) and `evaluate` (evaluation of the test images).

    Raises:
        SystemExit: the run failed; the message is its last line on stderr.
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

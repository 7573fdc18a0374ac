"""The command that serves a network over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import mnistjax


def serve(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Recognize pictures that are sent over HTTP, and serve the page to draw on.

    Ctrl-C ends the server. `POST /predict` takes a picture or pixels, `POST /read` a photo of rows
    of digits; `GET /health` describes the network.

    Args:
        run: Run directory, or a weights file.
        host: Address to listen on; with the default, only programs on this machine can connect.
        port: Port to listen on; 0 chooses a free one.
    """
    mnistjax.serving.check_installed()
    trained = mnistjax.load_run(run)
    with mnistjax.serving.listen(host, port) as listener:
        app = mnistjax.serving.make_app(trained)

        def say(address: str) -> None:
            print(f"serving {run} at {address} (Ctrl-C to stop)", flush=True)

        mnistjax.serving.run_app(app, listener, say)

"""Serves a network until a signal arrives; prints one line of JSON when it is ready.

    python http_server.py TASK

TASK is JSON: `weights` (a file), `onnx` (a file with the same network, with which onnxruntime takes
the place of JAX, or null) and `batching`. The line is the address, for example "127.0.0.1:8000".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import mnistjax
from mnistjax.cli import one_line_errors


def onnx_network(file: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function that computes logits with onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads would otherwise wait busily, on the cores of the clients.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()

    def compute(images: np.ndarray) -> np.ndarray:
        return session.run([logits.name], {pixels.name: images})[0]

    return compute


@one_line_errors
def main(task: dict[str, Any]) -> None:
    """Serves."""
    trained = mnistjax.load_weights(task["weights"])
    network = onnx_network(task["onnx"]) if task["onnx"] else None
    with mnistjax.serving.listen(port=0) as listener:
        app = mnistjax.serving.make_app(trained, network=network, batching=task["batching"])

        def say(address: str) -> None:
            print(json.dumps(address.partition("://")[2]), flush=True)

        mnistjax.serving.run_app(app, listener, say)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""Requests per second and latency of `mnistjax serve`, by number of clients, next to onnxruntime.

    python benchmarks/serving.py --json benchmarks/results/serving.jsonl

The same application serves the same network, computed by JAX or by onnxruntime, with and without
batching. Each server is a process, and so are the clients, which send one image at a time.
"""

import contextlib
import dataclasses
import io
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from conditions import Row, command, conditions, spread, table, write_json_lines
from PIL import Image

import mnistjax
from mnistjax.cli import one_line_errors

WORKERS = Path(__file__).with_name("workers")
WARMUP_SECONDS = 0.5

# Name: what computes the network, and whether requests are batched. The others are compared with
# the first one.
SERVERS = {
    "mnistjax": ("jax", True),
    "mnistjax-unbatched": ("jax", False),
    "onnxruntime": ("onnxruntime", True),
    "onnxruntime-unbatched": ("onnxruntime", False),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    recipe: str = "cnn"
    """Name of the recipe whose network is served; it is hardly trained."""
    servers: tuple[str, ...] = tuple(SERVERS)
    """Servers, by name."""
    clients: tuple[int, ...] = (1, 8, 32)
    """Numbers of clients that send requests at the same time."""
    request: Literal["pixels", "picture"] = "pixels"
    """What a request contains: an image as JSON, or a PNG file that is prepared like a photo."""
    seconds: float = 3.0
    """Duration of each measurement."""
    rounds: int = 5
    """Number of measurements of each server and number of clients."""
    json: Path | None = None
    """File of JSON lines to write anew; none if not given."""


class ServerError(Exception):
    """A server cannot start."""


class Server:
    """The process of a server."""

    def __init__(self, name: str, files: Row) -> None:
        engine, batching = SERVERS[name]
        task = {**files, "batching": batching}
        task["onnx"] = files["onnx"] if engine == "onnxruntime" else None
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(WORKERS / "http_server.py"), json.dumps(task)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            last = (self._process.stderr.read().strip().splitlines() or ["no message"])[-1]
            self.close()
            raise ServerError(last)
        self.address: str = json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.communicate()


def write_files(recipe: str, folder: Path, *, onnx: bool) -> Row:
    """Trains a network for a few steps, and writes its weights and, if asked, the ONNX file."""
    config = mnistjax.get_recipe(recipe).replace(dataset="digits", steps=20)
    trained = mnistjax.fit(config, mnistjax.load_dataset("digits")).trained
    files: Row = {"weights": str(folder / "weights.safetensors"), "onnx": None}
    mnistjax.save_weights(files["weights"], trained)
    if onnx:
        files["onnx"] = str(mnistjax.export.write_onnx(trained, folder / "network.onnx"))
    return files


def make_request(kind: Literal["pixels", "picture"]) -> Row:
    """Returns path, body and content type of the request that is sent again and again."""
    plane = mnistjax.load_dataset("digits").test.images[0, ..., 0]
    if kind == "pixels":
        body = json.dumps({"pixels": plane.tolist()}).encode()
        content_type = "application/json"
    else:
        file, content_type = io.BytesIO(), "image/png"
        Image.fromarray(np.kron(255 - plane, np.ones((5, 5), np.uint8))).save(file, "PNG")
        body = file.getvalue()
    return {"path": "/predict", "body": body.decode("latin-1"), "content_type": content_type}


def measure_once(address: str, request: Row, clients: int, seconds: float) -> Row:
    """Lets clients ask a server; returns requests per second, and percentiles of the latency."""
    task = {**request, "address": address, "clients": clients}
    task |= {"seconds": seconds, "warmup_seconds": WARMUP_SECONDS}
    done = subprocess.run(
        [sys.executable, str(WORKERS / "http_clients.py"), json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    p50, p99 = np.percentile(answer["latencies"], [50, 99])
    return {
        "requests_per_second": answer["requests"] / answer["seconds"],
        "p50_ms": 1000 * float(p50),
        "p99_ms": 1000 * float(p99),
    }


def make_row(
    server: Server,
    clients: int,
    measured: Sequence[Row],
    first: Sequence[Row],
    arguments: Arguments,
) -> Row:
    """Returns the row of a server and a number of clients.

    Args:
        server: the server.
        clients: number of clients.
        measured: what `measure_once` returned, one for each round.
        first: the same of the first server.
        arguments: the settings.
    """
    engine, batching = SERVERS[server.name]
    names = ("requests_per_second", "p50_ms", "p99_ms")
    ratios = [
        theirs["requests_per_second"] / ours["requests_per_second"]
        for theirs, ours in zip(first, measured, strict=True)
    ]
    figures: Row = {}
    for name in names:
        figures |= spread(name, [row[name] for row in measured])
    return {
        "benchmark": "serving",
        "recipe": arguments.recipe,
        "server": server.name,
        "engine": engine,
        "batching": batching,
        "request": arguments.request,
        "clients": clients,
        "seconds": arguments.seconds,
        "warmup_seconds": WARMUP_SECONDS,
        "rounds": arguments.rounds,
        **figures,
        "reference": arguments.servers[0],
        "reference_is_faster_by": statistics.median(ratios),
        **conditions(),
        "command": command(),
    }


COLUMNS: dict[str, Callable[[Row], str]] = {
    "clients": lambda row: str(row["clients"]),
    "server": lambda row: row["server"],
    "requests/s": lambda row: f"{row['requests_per_second']:,.0f}",
    "lowest to highest": lambda row: (
        f"{row['requests_per_second_min']:,.0f} to {row['requests_per_second_max']:,.0f}"
    ),
    "the first is faster by": lambda row: f"{row['reference_is_faster_by']:.2f}",
    "p50 ms": lambda row: f"{row['p50_ms']:.2f}",
    "p99 ms": lambda row: f"{row['p99_ms']:.2f}",
}


def start_servers(names: Sequence[str], files: Row, stack: contextlib.ExitStack) -> list[Server]:
    """Starts the servers one after the other, and prints which cannot start."""
    servers = []
    for name in names:
        try:
            server = Server(name, files)
        except ServerError as error:
            print(f"{name}: skipped, {error}", flush=True)
            continue
        stack.callback(server.close)
        servers.append(server)
    return servers


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures, prints the table, and writes the file."""
    for name in arguments.servers:
        if name not in SERVERS:
            raise mnistjax.errors.UnknownNameError("server", name, SERVERS)
    onnx = any(SERVERS[name][0] == "onnxruntime" for name in arguments.servers)
    request = make_request(arguments.request)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        files = write_files(arguments.recipe, Path(folder), onnx=onnx)
        servers = start_servers(arguments.servers, files, stack)
        found: dict[tuple[str, int], list[Row]] = {}
        for turn in range(arguments.rounds):
            first = turn % max(1, len(servers))
            for clients in arguments.clients:
                for server in servers[first:] + servers[:first]:
                    measured = measure_once(server.address, request, clients, arguments.seconds)
                    found.setdefault((server.name, clients), []).append(measured)
        rows = [
            make_row(
                server,
                clients,
                found[server.name, clients],
                found[servers[0].name, clients],
                arguments,
            )
            for clients in arguments.clients
            for server in servers
        ]
    write_json_lines(arguments.json, rows)
    print(table(rows, COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

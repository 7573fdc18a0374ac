"""Sends requests to a server as fast as it answers: a process of its own, without other libraries.

    python http_clients.py TASK

TASK is JSON: `address` ("127.0.0.1:8000"), `path`, `body`, `content_type`, `clients` (connections,
each of which sends its next request when the last one was answered), `warmup_seconds` (not counted)
and `seconds`. Prints JSON: `requests`, `seconds` and `latencies`, the seconds of each request.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Client(asyncio.Protocol):
    """A connection that is kept.

    Attributes:
        times: when each request was sent, and when it was answered, in seconds.
        ended: when the last answer has arrived, or the connection has failed.
    """

    def __init__(self, request: bytes, until: float) -> None:
        self.times: list[tuple[float, float]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._until = request, until
        self._answer = b""
        self._sent = 0.0

    def connection_made(self, transport: Any) -> None:
        """Sends the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Sends the next request if the answer is complete."""
        self._answer += data
        head, _, content = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if length is None or len(content) < int(length[1]):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._end(RuntimeError(self._answer.decode(errors="replace")))
            return
        now = time.perf_counter()
        self.times.append((self._sent, now))
        if now < self._until:
            self._send()
        else:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the client."""
        self._end(error or RuntimeError("the server has closed the connection"))

    def _end(self, error: Exception | None = None) -> None:
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)
            self._transport.close()


async def run(task: dict[str, Any]) -> dict[str, Any]:
    """Sends the requests; returns what is printed."""
    body = task["body"].encode("latin-1")
    head = [f"POST {task['path']} HTTP/1.1", f"Host: {task['address']}"]
    head += [f"Content-Type: {task['content_type']}", f"Content-Length: {len(body)}", "", ""]
    request = "\r\n".join(head).encode() + body
    host, _, port = task["address"].rpartition(":")
    start = time.perf_counter() + task["warmup_seconds"]
    end = start + task["seconds"]
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(request, end), host, int(port)))[1]
        for _ in range(task["clients"])
    ]
    await asyncio.gather(*(client.ended for client in clients))
    counted = [
        answered - sent
        for client in clients
        for sent, answered in client.times
        if sent >= start and answered <= end
    ]
    return {"requests": len(counted), "seconds": task["seconds"], "latencies": counted}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))))

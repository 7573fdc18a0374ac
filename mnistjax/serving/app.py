"""The application: its routes, and what each of them answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from mnistjax.errors import ConfigError, DataFormatError
from mnistjax.files import printable
from mnistjax.reading import PreparedDigit, describe_reading, interpret, read_digits
from mnistjax.report import try_draw_page
from mnistjax.runs import TrainedModel
from mnistjax.serving.answers import describe_health, describe_predictions, describe_usage
from mnistjax.serving.batching import Batcher
from mnistjax.serving.inputs import FORMATS, JSON, open_image, parse_pixels, prepare_image
from mnistjax.serving.limits import Limits, RequestError
from mnistjax.serving.network import CompiledNetwork, Logits
from mnistjax.serving.server import check_installed

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

_LOG = logging.getLogger(__name__)

# A body up to so many times as large as allowed is received and dropped, so that its sender gets to
# read the answer. For a larger one, the connection is closed.
_DRAINED = 4

# Smaller bodies are parsed sooner than another thread could begin with them.
_PARSED_AT_ONCE = 16 << 10

# So many images are described in 1 ms; the second opinion on each takes 0.1 ms, or 0.2 if alone.
_DESCRIBED_AT_ONCE = 8


def make_app(
    trained: TrainedModel,
    *,
    network: Logits | None = None,
    batching: bool = True,
    limits: Limits | None = None,
) -> Starlette:
    """Makes the ASGI application of a network; it can be served at once.

    All programs are compiled before this returns, so no request waits for the compiler. The routes:

    - `POST /predict`: a PNG or JPEG file, or JSON `{"pixels": ...}` with one image or a list of
      images of whole numbers from 0 to 255. The answer is described by `describe_predictions`.
    - `POST /read`: a PNG or JPEG photo of rows of digits. The answer is `describe_reading`'s.
    - `GET /health`: the network, its data set and accuracy, and versions.
    - `GET /`: the page to draw on, or a text that says how to use the server where there is none.

    A request that cannot be answered gets a status of 400 to 499 and `{"error": "one line"}`; an
    unexpected failure is logged and gets 500 and one line. The application belongs to one event
    loop.

    Args:
        trained: the network, as `load_run` returns it.
        network: computes the logits for `/predict`; None compiles `trained`.
        batching: whether the images of requests that arrive while the network is busy are computed
            together.
        limits: the bounds of requests; those of `Limits()` if None.

    Returns:
        A `starlette.applications.Starlette`.

    Raises:
        ConfigError: Starlette is not installed.
    """
    check_installed()
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    service = _Service(trained, network, limits or Limits(), batching=batching)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    app = Starlette(
        routes=[
            Route("/", service.page, methods=["GET"]),
            Route("/health", _answering(service.health), methods=["GET"]),
            Route("/predict", _answering(service.predict), methods=["POST"]),
            Route("/read", _answering(service.read), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refuse_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Service:
    """The network and its threads; the methods answer requests."""

    def __init__(
        self, trained: TrainedModel, network: Logits | None, limits: Limits, *, batching: bool
    ) -> None:
        self._trained, self._limits = trained, limits
        self._shape = tuple(trained.info.image_shape)
        self._network = network or CompiledNetwork(trained)
        self._health = describe_health(trained)
        self._page = try_draw_page(trained)
        self._waiting_bytes = 0
        # Pictures take milliseconds: they must not keep pixels waiting.
        self._pictures = ThreadPoolExecutor(os.cpu_count() or 1, "pictures")
        workers = 1 if batching else os.cpu_count() or 1
        self._computing = ThreadPoolExecutor(workers, "network")
        batcher = Batcher(self._network, self._computing, limits.images)
        self._logits = batcher if batching else self._compute_alone
        self._warm_up()

    def close(self) -> None:
        """Ends the threads when their work is done."""
        self._pictures.shutdown(wait=False)
        self._computing.shutdown(wait=False)

    def _warm_up(self) -> None:
        """Runs everything that requests run once, so that it is imported and compiled."""
        from PIL import Image

        blank = np.zeros((1, *self._shape), np.uint8)
        self._describe([PreparedDigit(blank[0])], blank, self._network(blank))
        page = np.full((96, 64), 255, np.uint8)
        page[20:76, 28:36] = 0  # A stroke, like a one.
        picture = Image.fromarray(page)
        with contextlib.suppress(DataFormatError):  # A network for images of another size.
            prepare_image(picture, self._shape)
        with contextlib.suppress(ConfigError):  # The same.
            read_digits(self._trained, picture)

    async def _compute_alone(self, images: np.ndarray) -> np.ndarray:
        return await _run_in(self._computing, self._network, images)

    async def health(self, _: Request) -> dict[str, Any]:
        """Answers `GET /health`."""
        return self._health

    async def page(self, request: Request) -> Response:
        """Answers `GET /`."""
        from starlette.responses import HTMLResponse, PlainTextResponse

        if self._page is None:
            return PlainTextResponse(describe_usage(self._trained, str(request.base_url)))
        return HTMLResponse(self._page)

    async def predict(self, request: Request) -> dict[str, Any]:
        """Answers `POST /predict`."""
        content_type = _content_type(request, [*FORMATS, JSON])
        if content_type == JSON:
            prepared = [PreparedDigit(image) for image in await self._pixels(request)]
        else:
            prepared = [await self._prepared(request, content_type)]
        images = np.stack([image for digit in prepared for image in digit.images])
        describe = functools.partial(self._describe, prepared, images, await self._logits(images))
        if len(images) <= _DESCRIBED_AT_ONCE:
            return describe()
        return await _run_in(self._pictures, describe)

    def _describe(
        self, prepared: Sequence[PreparedDigit], images: np.ndarray, logits: np.ndarray
    ) -> dict[str, Any]:
        from scipy.special import softmax

        rows = softmax(logits, axis=1)
        return describe_predictions(interpret(self._trained.info, prepared, images, rows))

    async def _pixels(self, request: Request) -> np.ndarray:
        limit = self._limits.json_bytes(self._shape)
        with self._room_for(request, limit):
            body = await self._body(request, limit)
            parse = functools.partial(parse_pixels, body, self._shape, self._limits.images)
            if len(body) <= _PARSED_AT_ONCE:
                return parse()
            return await _run_in(self._pictures, parse)

    async def _prepared(self, request: Request, content_type: str) -> PreparedDigit:
        def prepare(body: bytes) -> PreparedDigit:
            return prepare_image(open_image(body, content_type, self._limits), self._shape)

        return await self._with_picture(request, prepare)

    async def read(self, request: Request) -> dict[str, Any]:
        """Answers `POST /read`."""
        content_type = _content_type(request, [*FORMATS])

        def read(body: bytes) -> dict[str, Any]:
            image = open_image(body, content_type, self._limits)
            reading = read_digits(self._trained, image)
            return describe_reading(reading, self._trained.info.class_names)

        return await self._with_picture(request, read)

    async def _with_picture(self, request: Request, function: Callable[[bytes], Any]) -> Any:
        """Returns what a function makes of the body, in a thread."""
        limit = self._limits.picture_bytes
        with self._room_for(request, limit):
            return await _run_in(self._pictures, function, await self._body(request, limit))

    @contextlib.contextmanager
    def _room_for(self, request: Request, limit: int) -> Iterator[None]:
        """Reserves memory for a body, as large as it is announced, until it has been used."""
        size = _announced(request) or limit
        if size > limit:
            raise _too_large(limit, f"{size:,}", closes=size > _DRAINED * limit)
        if self._waiting_bytes + size > self._limits.waiting_bytes:
            raise RequestError(503, "too many large requests are waiting: try again later")
        self._waiting_bytes += size
        try:
            yield
        finally:
            self._waiting_bytes -= size

    async def _body(self, request: Request, limit: int) -> bytes:
        """Reads the body, whose length may not be announced."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > limit:
                        raise _too_large(limit, "more", closes=True)
        except TimeoutError:
            message = f"expected the whole request within {self._limits.seconds:g} seconds"
            raise RequestError(408, message, closes=True) from None
        return bytes(body)


async def _run_in(executor: Executor, function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, function, *args)


def _content_type(request: Request, expected: list[str]) -> str:
    """Returns the type of the body.

    It has to be given: pages of other origins may send a request of these types only if the server
    allows it, which this one does not.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in expected:
        types = ", ".join(expected)
        raise RequestError(415, f"expected Content-Type {types}, found {found or 'none'}")
    return found


def _announced(request: Request) -> int | None:
    """Returns the size of the body, or None if it is not known beforehand."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


def _too_large(limit: int, found: str, *, closes: bool) -> RequestError:
    message = f"expected a body of at most {limit:,} bytes, found {found}"
    return RequestError(413, message, closes=closes)


def _answering(
    answer: Callable[[Request], Awaitable[dict[str, Any]]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turns what a method returns or raises into a response."""

    @functools.wraps(answer)
    async def respond(request: Request) -> Response:
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse, Response

        try:
            return JSONResponse(await answer(request))
        except RequestError as error:
            headers = {"Connection": "close"} if error.closes else {}
            return _error(error.status, str(error), headers)
        except (DataFormatError, ConfigError) as error:
            return _error(422, str(error))
        except ClientDisconnect:
            return Response(status_code=400)  # Nobody reads it.
        except Exception as error:  # A fault of the server: it is logged, and the server goes on.
            place = f"{request.method} {request.url.path}"
            _LOG.error("%s failed: %s: %s", place, type(error).__name__, error, exc_info=error)
            return _error(500, "the server failed; its log says why")

    return respond


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """Answers a request for which there is no route."""
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException)
    if error.status_code == 405 and error.headers:
        message = f"expected the method {error.headers['Allow']}, found {request.method}"
    else:
        message = f"expected /, /health, /predict or /read, found {request.url.path}"
    return _error(error.status_code, message, dict(error.headers or {}))


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    from starlette.responses import JSONResponse

    content = {"error": printable(" ".join(message.split()))}
    return JSONResponse(content, status_code=status, headers=headers)

"""What the server accepts, and the error that refuses everything else."""

from __future__ import annotations

import dataclasses
import math

from mnistjax.errors import ConfigError, MnistjaxError


class RequestError(MnistjaxError):
    """Raised for a request that is not answered; the message is one line.

    Attributes:
        status: the HTTP status of the answer, 400 to 599.
        closes: whether the connection is closed, because the rest of the body is not wanted.
    """

    def __init__(self, status: int, message: str, *, closes: bool = False) -> None:
        """Composes the error.

        Args:
            status: the HTTP status of the answer.
            message: what was expected, and what was found.
            closes: whether to close the connection. A client that is still sending then may fail
                before it reads the answer.
        """
        super().__init__(message)
        self.status = status
        self.closes = closes


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of requests; what exceeds them is refused before it is decoded.

    Attributes:
        picture_bytes: size of an image file.
        picture_pixels: pixels of an image file, however few bytes they are compressed to.
        images: number of images in one request of pixels.
        waiting_bytes: size of all bodies together that have arrived, or announced themselves, and
            are not answered yet.
        seconds: from the headers of a request to the end of its body.

    Raises:
        ConfigError: a bound is not positive.
    """

    picture_bytes: int = 8 << 20
    picture_pixels: int = 16 << 20
    images: int = 64
    waiting_bytes: int = 128 << 20
    seconds: float = 30.0

    def __post_init__(self) -> None:
        """Checks that all bounds are positive."""
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ConfigError(f"{name} must be positive, found {value}")

    def json_bytes(self, image_shape: tuple[int, ...]) -> int:
        """Returns the largest size of a request of pixels, in bytes.

        Eight bytes per number are enough for three digits, a comma, brackets and an indentation.

        >>> Limits(images=2).json_bytes((28, 28, 1))
        13568
        """
        return 1024 + 8 * self.images * math.prod(image_shape)

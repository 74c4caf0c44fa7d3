"""Thumbnails: small pictures of moments, kept as JPEGs."""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from playhead.engine.jpeg import JpegEncoder


class Thumbnails:
    """Encodes small pictures as JPEGs; for one thread."""

    def __init__(self) -> None:
        self._encoders: dict[tuple[int, ...], JpegEncoder] = {}

    def encode(self, picture: np.ndarray) -> bytes:
        """A picture uint8 `(h, w, 3)` as a JPEG."""
        height, width = size = picture.shape[:2]
        from playhead.engine.jpeg import JpegEncoder  # and PyAV with it, which nothing but thumbnails needs

        if size not in self._encoders:
            self._encoders[size] = JpegEncoder(height, width, coarse=True)
        return self._encoders[size].encode(np.ascontiguousarray(picture), True)[0]


def decode_jpeg(data: bytes) -> np.ndarray:
    """A picture uint8 `(h, w, 3)`; av's errors for what is no JPEG."""
    import av

    with av.open(io.BytesIO(data), "r", format="mjpeg") as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")

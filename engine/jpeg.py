"""Pictures as JPEGs, and how an encoder of PyAV's is set up: one thread, no delay."""

from fractions import Fraction

import av
import numpy as np


class JpegEncoder:
    """Baseline JPEG, of high quality unless `coarse`; every frame for itself."""

    def __init__(self, height: int, width: int, coarse: bool = False) -> None:
        quality = {"qmin": "6", "qmax": "8"} if coarse else {"qmin": "2", "qmax": "4"}
        self._codec = open_encoder("mjpeg", height, width, "yuvj420p", quality)
        self._count = 0

    def encode(self, frame: np.ndarray, key: bool = True) -> tuple[bytes, bool]:
        """A packet of a frame uint8 `(H, W, 3)`, and whether decoding may begin with it, as it always may."""
        self._count += 1
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuvj420p")
        picture.pts = self._count
        return b"".join(bytes(p) for p in self._codec.encode(picture)), True


def open_encoder(
    name: str, height: int, width: int, pixels: str, options: dict[str, str]
) -> av.VideoCodecContext:
    """An encoder of frames of one size."""
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width, codec.pix_fmt = height, width, pixels
    codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
    codec.thread_count = 1
    codec.options = options
    return codec

"""The encodings of the stream: raw, JPEG, and H.264 without delay. One packet a frame."""

from collections.abc import Callable
from typing import Protocol

import av
import numpy as np

from playhead.engine.jpeg import JpegEncoder, open_encoder

KEY_EVERY = 18
"""Frames of H.264 from one key frame to the next: a second of freedoom."""


class VideoEncoder(Protocol):
    def encode(self, frame: np.ndarray, key: bool) -> tuple[bytes, bool]:
        """A packet of a frame uint8 `(H, W, 3)`, and whether decoding may begin with it."""
        ...


class RawEncoder:
    def encode(self, frame: np.ndarray, key: bool) -> tuple[bytes, bool]:
        return frame.tobytes(), True


class H264Encoder:
    """H.264 in which every frame goes out at once: no frame refers to a later one, no encoder looks ahead."""

    def __init__(self, height: int, width: int) -> None:
        options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "forced-idr": "1"}
        self._codec = open_encoder("libx264", height, width, "yuv420p", options)
        self._codec.gop_size = KEY_EVERY
        self._count = 0

    def encode(self, frame: np.ndarray, key: bool) -> tuple[bytes, bool]:
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
        picture.pts = self._count
        picture.pict_type = av.video.frame.PictureType.I if key else av.video.frame.PictureType.NONE
        self._count += 1
        packets = self._codec.encode(picture)
        return b"".join(bytes(p) for p in packets), any(p.is_keyframe for p in packets)


def make_encoder(codec: str, height: int, width: int) -> VideoEncoder:
    """The encoder of a stream of one size."""
    if codec == "raw":
        return RawEncoder()
    return JpegEncoder(height, width) if codec == "jpeg" else H264Encoder(height, width)


def make_decoder(codec: str, height: int, width: int) -> Callable[[bytes], np.ndarray | None]:
    """A function from packets to frames uint8 `(H, W, 3)`; None for a packet that yields no frame."""
    if codec == "raw":
        return lambda packet: np.frombuffer(packet, np.uint8).reshape(height, width, 3)
    context = av.CodecContext.create("mjpeg" if codec == "jpeg" else "h264", "r")
    context.thread_type = "NONE"
    if codec == "h264":
        context.flags |= av.codec.context.Flags.low_delay

    def decode(packet: bytes) -> np.ndarray | None:
        try:
            frames = context.decode(av.Packet(packet))
        except av.FFmpegError:
            return None
        return frames[-1].to_ndarray(format="rgb24") if frames else None

    return decode
